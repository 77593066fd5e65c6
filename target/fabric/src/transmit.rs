//! What waits to be sent on one connection: headers in an arena, data by reference. One vectored send takes
//! all of it. Used by both ends.

use std::collections::VecDeque;
use std::io::IoSlice;

use afs_reactor::Buffer;

/// Pieces that one send call takes at most; more wait for the next call.
pub(crate) const MAX_SLICES: usize = 128;
/// Sent bytes of the arena that are kept before the rest is moved to its front.
const ARENA_SLACK: usize = 16 << 10;

enum Segment {
    /// A run of the arena; `start` counts from the beginning of the connection.
    Headers {
        start: u64,
        len: usize,
    },
    Data(Buffer),
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Segment::Headers { len, .. } => *len,
            Segment::Data(data) => data.len(),
        }
    }
}

/// Bytes on their way out, in order.
///
/// Invariants: the arena holds exactly the unsent header bytes, but for a sent prefix of at most
/// [`ARENA_SLACK`]; neighbouring header runs are one segment; no segment is empty.
#[derive(Default)]
pub(crate) struct Transmit {
    arena: Vec<u8>,
    /// Position of the arena's first byte, counted over all header bytes ever written.
    base: u64,
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that were sent, if it is data.
    front_sent: usize,
    queued: u64,
    sent: u64,
}

impl Transmit {
    /// Lets `write` append header bytes.
    pub(crate) fn headers(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.arena.len();
        write(&mut self.arena);
        let len = self.arena.len() - before;
        if len == 0 {
            return;
        }
        self.queued += len as u64;
        let start = self.base + before as u64;
        match self.segments.back_mut() {
            Some(Segment::Headers { len: last, .. }) => *last += len,
            _ => self.segments.push_back(Segment::Headers { start, len }),
        }
    }

    /// Appends data.
    pub(crate) fn data(&mut self, data: Buffer) {
        if data.is_empty() {
            return;
        }
        self.queued += data.len() as u64;
        self.segments.push_back(Segment::Data(data));
    }

    /// Whether everything was sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Pieces that wait.
    pub(crate) fn pieces(&self) -> usize {
        self.segments.len()
    }

    /// Bytes appended since the connection began.
    pub(crate) fn queued(&self) -> u64 {
        self.queued
    }

    /// Bytes sent since the connection began.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Fills `slices` with what is to be sent next; returns how many were filled.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.front_sent;
        let mut filled = 0;
        for (segment, slice) in self.segments.iter().zip(slices.iter_mut()) {
            let bytes = self.bytes(segment);
            *slice = IoSlice::new(bytes.get(skip..).unwrap_or_default());
            skip = 0;
            filled += 1;
        }
        filled
    }

    /// Counts `bytes` as sent and lets go of what they were.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        let mut left = self.front_sent + bytes;
        while let Some(front) = self.segments.front() {
            if left < front.len() {
                break;
            }
            left -= front.len();
            self.segments.pop_front();
        }
        // What was sent of a header run is cut off it, so that a run to which more is always added does not
        // keep the arena from shrinking.
        if let Some(Segment::Headers { start, len }) = self.segments.front_mut() {
            *start += left as u64;
            *len -= left;
            left = 0;
        }
        self.front_sent = left;
        self.trim();
    }

    fn bytes<'a>(&'a self, segment: &'a Segment) -> &'a [u8] {
        match segment {
            Segment::Data(data) => data,
            Segment::Headers { start, len } => {
                let at = usize::try_from(start - self.base).unwrap_or(usize::MAX);
                self.arena.get(at..at.saturating_add(*len)).unwrap_or_default()
            }
        }
    }

    fn trim(&mut self) {
        let first = self.segments.iter().find_map(|segment| match segment {
            Segment::Headers { start, .. } => Some(*start),
            Segment::Data(_) => None,
        });
        let Some(start) = first else {
            self.base += self.arena.len() as u64;
            self.arena.clear();
            return;
        };
        let unused = usize::try_from(start - self.base).unwrap_or(0);
        if unused > ARENA_SLACK {
            self.arena.drain(..unused);
            self.base = start;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use afs_reactor::BufferPool;

    fn pending(transmit: &Transmit) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let filled = transmit.slices(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn partial_sends_at_every_length_keep_the_stream_whole() {
        let pool = BufferPool::new(1 << 20).unwrap();
        for step in 1..40 {
            let mut transmit = Transmit::default();
            let mut expected = Vec::new();
            let mut sent = Vec::new();
            for round in 0..200u8 {
                transmit.headers(|out| out.extend_from_slice(&[round; 5]));
                transmit.headers(|out| out.extend_from_slice(&[round; 3]));
                expected.extend_from_slice(&[round; 8]);
                let mut data = pool.try_alloc(7).unwrap();
                data.fill(round ^ 0xff);
                expected.extend_from_slice(&data);
                transmit.data(data.freeze());
                let bytes = pending(&transmit);
                let taken = step.min(bytes.len());
                sent.extend_from_slice(&bytes[..taken]);
                transmit.consume(taken);
            }
            while !transmit.is_empty() {
                let bytes = pending(&transmit);
                let taken = step.min(bytes.len());
                sent.extend_from_slice(&bytes[..taken]);
                transmit.consume(taken);
            }
            assert!(sent == expected, "step {step}");
            assert_eq!(
                (transmit.queued(), transmit.sent()),
                (sent.len() as u64, sent.len() as u64)
            );
            assert!(transmit.arena.is_empty());
        }
        assert_eq!(pool.free_bytes(), pool.total_bytes());
    }

    #[test]
    fn responses_of_one_round_are_one_slice() {
        let mut transmit = Transmit::default();
        for _ in 0..32 {
            transmit.headers(|out| out.extend_from_slice(&[1; 24]));
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        assert_eq!(transmit.slices(&mut slices), 1);
    }

    #[test]
    fn arena_stays_small_while_a_backlog_never_ends() {
        let mut transmit = Transmit::default();
        transmit.headers(|out| out.extend_from_slice(&[0; 24]));
        for _ in 0..100_000 {
            transmit.headers(|out| out.extend_from_slice(&[0; 24]));
            transmit.consume(24);
        }
        assert!(transmit.arena.len() < 4 * ARENA_SLACK, "{}", transmit.arena.len());
    }
}
