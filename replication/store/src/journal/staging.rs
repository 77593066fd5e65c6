//! Records on their way to the disk: collected under the store's lock, from all reactors, in blocks
//! of 4096 bytes. Knows every number of the journal; does no I/O.
//!
//! Invariants: `tail <= durable <= written <= taken <= next`, and `next - tail` is less than the
//! ring. `waiting` has one counter for each block from `durable` to `next`: data writes that its
//! records describe and that are not finished.

use std::collections::VecDeque;
use std::fmt;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::block::{JournalBlock, RECORD_SPACE};
use super::record::Record;
use crate::format::BLOCK;

/// Blocks that may wait to be taken by the writer.
const STAGED_MAX: usize = 64;
/// Data blocks that one record may carry.
const PAYLOAD_MAX: u32 = 32;

/// See the module documentation.
pub(crate) struct Staging {
    seed: u64,
    ring: u64,
    /// Staged blocks; the last one is open while `open`.
    bytes: Vec<u8>,
    open: bool,
    next: u64,
    taken: u64,
    written: u64,
    durable: u64,
    tail: u64,
    waiting: VecDeque<Waiting>,
    /// Checksum of the last sealed block.
    previous: u32,
    /// The number `durable` of the last sealed block.
    announced: u64,
    barrier_wanted: bool,
    /// Payload blocks at the front of `bytes` whose header was taken already.
    split_payload: usize,
    /// (block of a compensating clear, block of the failed first write): the second one's data
    /// counts as settled when the first one is written.
    compensations: Vec<(u64, u64)>,
    /// Announced instead of `durable` while recovery writes what it refused.
    held: Option<u64>,
}

/// What a block that is not durable yet waits for.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    /// Data writes under way.
    data: u32,
    /// It means nothing without the next block, which holds (more of) its payload.
    continues: bool,
}

/// Blocks that only barriers and recovery may use.
const RESERVE: u64 = 4;

/// A run of blocks for one write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub first: u64,
    pub blocks: usize,
}

impl Staging {
    /// A journal whose next block is `next`; replay would start at `tail`.
    pub(crate) fn new(seed: u64, ring: u64, tail: u64, next: u64, previous: u32) -> Self {
        Self {
            seed,
            ring,
            bytes: Vec::with_capacity((STAGED_MAX + PAYLOAD_MAX as usize + 2) * BLOCK),
            open: false,
            next,
            taken: next,
            written: next,
            durable: next,
            tail,
            waiting: VecDeque::with_capacity(1024),
            previous,
            announced: 0,
            barrier_wanted: false,
            split_payload: 0,
            compensations: Vec::new(),
            held: None,
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Blocks that replay would read.
    pub(crate) fn used(&self) -> u64 {
        self.next - self.tail
    }

    /// Half of the ring is used: time for a checkpoint.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.used() * 2 >= self.ring
    }

    /// Whether the ring, if not the staging area, has room for so many blocks.
    fn ring_has_room(&self, blocks: usize) -> bool {
        let reserve = if self.held.is_some() { 2 } else { RESERVE };
        self.used() + blocks as u64 + reserve < self.ring
    }

    /// A record with this payload must wait for a checkpoint.
    pub(crate) fn needs_cut(&self, payload: &[u8]) -> bool {
        !self.ring_has_room(1 + payload.len() / BLOCK)
    }

    /// Data blocks that one record may carry: few enough to fit into an empty ring with room to
    /// spare.
    pub(crate) fn payload_max(&self) -> u32 {
        let quarter = u32::try_from(self.ring / 4).unwrap_or(u32::MAX);
        quarter.min(PAYLOAD_MAX)
    }

    fn has_room(&self, blocks: usize) -> bool {
        self.ring_has_room(blocks) && self.bytes.len() / BLOCK < STAGED_MAX
    }

    /// Records that recovery could write now, besides a barrier.
    pub(crate) fn recovery_room(&self) -> usize {
        let blocks = (self.ring - self.used()).saturating_sub(3).min(STAGED_MAX as u64 - 1);
        usize::try_from(blocks).unwrap_or(0) * (RECORD_SPACE / 48)
    }

    /// Blocks written from now on announce this instead of `durable`, until `None`.
    pub(crate) fn hold_announcement(&mut self, at: Option<u64>) {
        self.held = at;
    }

    /// Stages a record and the data that goes with it; returns the number of the record's block, or
    /// `None` if there is no room now.
    pub(crate) fn append(&mut self, record: &Record<'_>, payload: &[u8]) -> Option<u64> {
        let payload_blocks = payload.len() / BLOCK;
        if !payload.is_empty() {
            self.open = false;
        }
        if !(self.open && self.encode(record)) {
            if !self.has_room(1 + payload_blocks) {
                return None;
            }
            self.open_block();
            if !self.encode(record) {
                return None;
            }
        }
        let sequence = self.next - 1;
        if !payload.is_empty() {
            self.add_payload(payload);
        }
        Some(sequence)
    }

    fn open_block(&mut self) {
        let mut block = JournalBlock::new_zeroed();
        block.sequence = self.next.into();
        self.bytes.extend_from_slice(block.as_bytes());
        self.open = true;
        self.next += 1;
        self.waiting.push_back(Waiting::default());
    }

    fn encode(&mut self, record: &Record<'_>) -> bool {
        let Some(block) = last_block(&mut self.bytes) else { return false };
        let used = usize::from(block.used.get());
        let Some(space) = block.records.get_mut(used..RECORD_SPACE) else { return false };
        let length = record.encode(space);
        let total = u16::try_from(used + length).unwrap_or(u16::MAX);
        block.used = total.into();
        length != 0
    }

    fn add_payload(&mut self, payload: &[u8]) {
        let blocks = payload.len() / BLOCK;
        if let Some(block) = last_block(&mut self.bytes) {
            block.payload = u16::try_from(blocks).unwrap_or(u16::MAX).into();
        }
        self.bytes.extend_from_slice(payload);
        self.open = false;
        self.next += blocks as u64;
        self.waiting.extend(std::iter::repeat_n(Waiting::default(), blocks));
        for waiting in self.waiting.iter_mut().rev().skip(1).take(blocks) {
            waiting.continues = true;
        }
    }

    /// Asks for a block that announces the current `durable`, even if there is no record.
    pub(crate) fn want_barrier(&mut self) {
        self.barrier_wanted = true;
    }

    /// Copies the next blocks to write into `buffer`, sealed; `None` if there is nothing to write
    /// or, for a barrier, no room.
    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> Option<Group> {
        if self.bytes.is_empty() && self.barrier_wanted && self.announced < self.durable {
            if self.used() + 1 >= self.ring {
                return None;
            }
            self.open_block();
        }
        if self.bytes.is_empty() {
            self.barrier_wanted = false;
            return None;
        }
        let to_ring_end = usize::try_from(self.ring - self.taken % self.ring).unwrap_or(usize::MAX);
        let blocks = (self.bytes.len() / BLOCK).min(buffer.len() / BLOCK).min(to_ring_end);
        let length = blocks * BLOCK;
        // Headers are sealed when taken, so that they announce the latest `durable`; payload was
        // never one.
        self.seal_headers(blocks);
        buffer.get_mut(..length)?.copy_from_slice(self.bytes.get(..length)?);
        self.bytes.drain(..length);
        if self.bytes.is_empty() {
            self.open = false;
        }
        let group = Group { first: self.taken, blocks };
        self.taken += blocks as u64;
        self.barrier_wanted = false;
        Some(group)
    }

    fn seal_headers(&mut self, blocks: usize) {
        let mut at = self.split_payload;
        while at < blocks {
            let Some(bytes) = self.bytes.get_mut(at * BLOCK..(at + 1) * BLOCK) else { return };
            let Ok(block) = JournalBlock::mut_from_bytes(bytes) else { return };
            let announced = self.held.unwrap_or(self.durable);
            block.durable = announced.into();
            block.previous = self.previous.into();
            block.seal(self.seed);
            self.previous = block.checksum.get();
            self.announced = announced;
            at += 1 + usize::from(block.payload.get());
        }
        self.split_payload = at - blocks;
    }

    /// The blocks before `written` are on the disk (perhaps in its cache).
    pub(crate) fn set_written(&mut self, written: u64) {
        self.written = self.written.max(written);
        let mut settled = std::mem::take(&mut self.compensations);
        settled.retain(|&(clear, failed)| {
            let waits = clear >= self.written;
            if !waits {
                self.end_data(failed);
            }
            waits
        });
        self.compensations = settled;
    }

    /// The data of a first write failed; it counts as settled once the block with the clear is
    /// written.
    pub(crate) fn compensate(&mut self, clear: u64, failed: u64) {
        self.compensations.push((clear, failed));
        self.set_written(self.written);
    }

    /// One more data write belongs to a record in this block.
    pub(crate) fn begin_data(&mut self, sequence: u64) {
        if let Some(count) = self.counter(sequence) {
            count.data += 1;
        }
    }

    /// A data write ended.
    pub(crate) fn end_data(&mut self, sequence: u64) {
        if let Some(count) = self.counter(sequence) {
            count.data = count.data.saturating_sub(1);
        }
    }

    fn counter(&mut self, sequence: u64) -> Option<&mut Waiting> {
        let index = usize::try_from(sequence.checked_sub(self.durable)?).ok()?;
        self.waiting.get_mut(index)
    }

    /// How far `durable` may go after a sync that begins now. Never between a block and its
    /// payload: replay drops a block whose payload is not whole, so `durable` must not vouch for it
    /// alone.
    pub(crate) fn sync_target(&self) -> u64 {
        let mut target = self.durable;
        for (next, waiting) in (self.durable + 1..=self.written).zip(&self.waiting) {
            if waiting.data != 0 {
                break;
            }
            if !waiting.continues {
                target = next;
            }
        }
        target
    }

    /// A sync that began at this target ended well.
    pub(crate) fn set_durable(&mut self, target: u64) {
        while self.durable < target {
            self.waiting.pop_front();
            self.durable += 1;
        }
    }

    /// The module's invariants.
    pub(crate) fn check(&self) -> Result<(), String> {
        let order = [self.tail, self.durable, self.written, self.taken, self.next];
        let counters = self.waiting.len() as u64 == self.next - self.durable;
        if order.is_sorted() && counters && self.used() < self.ring {
            return Ok(());
        }
        Err(format!("journal numbers {order:?}, {} counters", self.waiting.len()))
    }

    /// A checkpoint made everything before `tail` superfluous.
    pub(crate) fn cut(&mut self, tail: u64) {
        self.tail = self.tail.max(tail);
    }
}

fn last_block(bytes: &mut [u8]) -> Option<&mut JournalBlock> {
    let at = bytes.len().checked_sub(BLOCK)?;
    JournalBlock::mut_from_bytes(bytes.get_mut(at..)?).ok()
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ring, tail, durable, written, taken, next, .. } = self;
        write!(f, "journal of {ring}: tail {tail}, durable {durable}, written {written}, ")?;
        write!(f, "taken {taken}, next {next}, announced {}, ", self.announced)?;
        write!(f, "barrier wanted {}, data under way {:?}", self.barrier_wanted, self.waiting)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::{Generation, LayerId};
    use crate::journal::record::Place;

    #[test]
    fn durable_never_stops_between_a_block_and_its_payload() {
        let mut staging = Staging::new(1, 64, 1, 1, 0);
        let place = Place { chunk: 0, layer: LayerId(1), index: 0 };
        let generation = Generation::default();
        let sums = [1.into(), 2.into()];
        let record = Record::Overwrite { place, generation, mask: 3, checksums: &sums };
        assert_eq!(staging.append(&record, &[0; 2 * BLOCK]), Some(1));
        assert_eq!(staging.append(&Record::Stamp { place, generation }, &[]), Some(4));
        let mut buffer = vec![0; 2 * BLOCK];
        for (written, target) in [(1, 1), (2, 1), (3, 1), (4, 4), (5, 5)] {
            while staging.take(&mut buffer).is_some() {}
            staging.set_written(written);
            assert_eq!(staging.sync_target(), target, "written {written}");
        }
    }

    #[test]
    fn durable_waits_for_the_data_that_records_describe() {
        let mut staging = Staging::new(1, 64, 1, 1, 0);
        let place = Place { chunk: 0, layer: LayerId(1), index: 0 };
        let record = Record::Stamp { place, generation: Generation::default() };
        let sequence = staging.append(&record, &[]).unwrap();
        staging.begin_data(sequence);
        staging.take(&mut vec![0; BLOCK]).unwrap();
        staging.set_written(2);
        assert_eq!(staging.sync_target(), 1);
        staging.end_data(sequence);
        assert_eq!(staging.sync_target(), 2);
        staging.set_durable(2);
        assert_eq!(staging.check(), Ok(()));
    }
}
