//! Making replicas equal: ranges that may differ after a leader's death or a failed write (DESIGN 5 rules 6 and 7).
//!
//! Which replica's contents are taken does not matter: what was acknowledged is on all of them, what was not may be there or
//! not, and nobody has read it.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use afs_env::Buffer;
use futures_util::future::{Either, select};

use super::call::{CallError, Change, Ended, To, blocks_of};
use super::io::Open;
use super::tracker::Sequence;
use super::view::{Phase, Port, View};
use super::{Host, Leader};
use crate::message::{Body, CHUNK_BLOCKS_MAX, Outcome, SUMS_BYTES, Sum};
use crate::mutant::{Mutant, planted};

const BLOCK: usize = afs_env::BLOCK_BYTES as usize;
/// Shorter ranges are copied without asking whether they differ.
const COMPARE_FROM: u64 = 16;
/// How often the equaliser looks when nobody calls.
const LOOK: Duration = Duration::from_secs(1);
/// After something could not be made equal.
const AGAIN: Duration = Duration::from_millis(20);

/// The sums of one chunk at one replica.
pub(super) struct ChunkSums {
    mask: u64,
    sums: Buffer,
}

impl ChunkSums {
    /// The sum of a block; `None` for one that reads as zeroes.
    fn of(&self, block: usize) -> Option<&Sum> {
        let holds = self.mask >> block & 1 == 1;
        let rest = self.sums.get(8..)?;
        rest.get(block * size_of::<Sum>()..)?.first_chunk().filter(|_| holds)
    }

    /// Bit n: block n differs.
    pub(super) fn differs(&self, other: &ChunkSums) -> u64 {
        (0..CHUNK_BLOCKS_MAX)
            .filter(|&block| self.of(block) != other.of(block))
            .fold(0, |bits, block| bits | 1 << block)
    }
}

impl<H: Host> Leader<H> {
    /// Makes `range` of a shard, which is held, equal on all in-sync replicas, as an ordinary write with number `sequence`. False
    /// if it could not be done now.
    pub(super) async fn equalise(
        &self,
        view: &View,
        shard: usize,
        range: &Range<u64>,
        sequence: Sequence,
    ) -> bool {
        let done = planted(Mutant::SkipEqualise)
            || view.in_sync(shard).count() < 2
            || self.equalise_parts(view, shard, range, sequence).await;
        if done {
            if let Some(pending) = self.shared().pending().get(shard) {
                pending.remove(range);
            }
            self.shared().close_equalised();
        }
        done
    }

    async fn equalise_parts(
        &self,
        view: &View,
        shard: usize,
        range: &Range<u64>,
        sequence: Sequence,
    ) -> bool {
        let mut at = range.start;
        while at < range.end {
            let chunk = self.chunk_of(at);
            let part = at..chunk.end.min(range.end);
            at = part.end;
            if !self.equalise_part(view, shard, &part, sequence).await {
                return false;
            }
        }
        true
    }

    /// One that lies in one chunk. If a replica is full, another one's contents may fit.
    async fn equalise_part(
        &self,
        view: &View,
        shard: usize,
        part: &Range<u64>,
        sequence: Sequence,
    ) -> bool {
        let mut sources: Vec<usize> = view.in_sync(shard).map(|(index, _)| index).collect();
        let ports = self.ports(view, shard);
        sources.sort_by_key(|index| !matches!(ports.get(*index), Some(Port::Local(Some(_)))));
        for &source in &sources {
            let mut differs = self.bits_of(part);
            if part.end - part.start >= COMPARE_FROM {
                differs = 0;
                let Ok(own) = self.sums(view, shard, source, part.start).await else {
                    return false;
                };
                for &other in sources.iter().filter(|other| **other != source) {
                    let Ok(theirs) = self.sums(view, shard, other, part.start).await else {
                        return false;
                    };
                    differs |= own.differs(&theirs);
                }
                differs &= self.bits_of(part);
            }
            let to = To::AllBut(source);
            match self.copy_blocks(view, shard, source, part, differs, sequence, to).await {
                Ended::Done => return true,
                Ended::Failed(Outcome::Full) => {}
                Ended::Failed(_) | Ended::Retry | Ended::NewEpoch => return false,
            }
        }
        false
    }

    /// The chunk that holds a block of a shard.
    pub(super) fn chunk_of(&self, block: u64) -> Range<u64> {
        let size = u64::from(self.shared().chunk_blocks.load(Ordering::Acquire)).max(1);
        let first = block - block % size;
        first..first + size
    }

    /// The blocks of a part of a chunk, as bits of the chunk.
    fn bits_of(&self, part: &Range<u64>) -> u64 {
        let first = self.chunk_of(part.start).start;
        (part.start - first..part.end - first).fold(0, |bits, block| bits | 1 << block)
    }

    /// The sums of the chunk that holds `block`.
    pub(super) async fn sums(
        &self,
        view: &View,
        shard: usize,
        index: usize,
        block: u64,
    ) -> Result<ChunkSums, CallError> {
        let size = u64::from(self.shared().chunk_blocks.load(Ordering::Acquire)).max(1);
        let chunk = u32::try_from(block / size).map_err(|_| CallError::Unreachable)?;
        let body = Body::Sums { chunk };
        let sums = self.ask(view, shard, index, body, SUMS_BYTES).await?;
        let mask = sums.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        Ok(ChunkSums { mask: mask.ok_or(CallError::Lost)?, sums })
    }

    /// Asks a replica for exactly `bytes` bytes.
    pub(super) async fn ask(
        &self,
        view: &View,
        shard: usize,
        index: usize,
        body: Body,
        bytes: usize,
    ) -> Result<Buffer, CallError> {
        let ports = self.ports(view, shard);
        let members = view.shards.get(shard).map_or(&[][..], Vec::as_slice);
        let (Some(port), Some(member)) = (ports.get(index), members.get(index)) else {
            return Err(CallError::Unreachable);
        };
        match self.call(port, member, view.epoch(), body, None, bytes).await? {
            Some(data) if data.len() == bytes => Ok(data),
            _ => Err(CallError::Refused(Outcome::Malformed, 0)),
        }
    }

    /// Copies the blocks `differs` of a part of a chunk from one replica to others. What is zero there is given back here.
    #[allow(clippy::too_many_arguments, reason = "all of them say what is copied where")]
    pub(super) async fn copy_blocks(
        &self,
        view: &View,
        shard: usize,
        source: usize,
        part: &Range<u64>,
        differs: u64,
        sequence: Sequence,
        to: To,
    ) -> Ended {
        let first = self.chunk_of(part.start).start;
        for run in runs(differs) {
            let range = first + u64::from(run.start)..first + u64::from(run.end);
            let Some(at) = blocks_of(&range) else { return Ended::Failed(Outcome::OutOfRange) };
            let bytes = at.blocks as usize * BLOCK;
            let Ok(data) = self.ask(view, shard, source, Body::Read(at), bytes).await else {
                return Ended::Retry;
            };
            let zero = data.chunks(BLOCK).map(|block| block.iter().all(|byte| *byte == 0));
            let zeroes =
                zero.enumerate().fold(0, |bits, (block, zero)| bits | u64::from(zero) << block);
            let whole = u64::MAX >> (64 - at.blocks.clamp(1, 64));
            for (bits, clear) in [(zeroes & whole, true), (!zeroes & whole, false)] {
                for piece in runs(bits) {
                    let target =
                        range.start + u64::from(piece.start)..range.start + u64::from(piece.end);
                    let change = if clear {
                        Change::Clear { deallocate: true }
                    } else {
                        Change::Write(
                            data.slice(piece.start as usize * BLOCK..piece.end as usize * BLOCK),
                        )
                    };
                    match self.replicate(view, shard, &target, &change, sequence, to).await {
                        Ended::Done => {}
                        ended => return ended,
                    }
                }
            }
        }
        Ended::Done
    }

    /// Works through what is pending, and tells the replicas when nothing is.
    pub(super) async fn equalise_loop(&self) {
        loop {
            let work = std::pin::pin!(self.shared().work.notified());
            let _ = select(work, std::pin::pin!(self.pause(LOOK))).await;
            let view = self.view();
            match view.phase {
                Phase::Over => return,
                Phase::Serving => {}
                Phase::Claiming | Phase::Sealing => continue,
            }
            for shard in 0..view.shards.len() {
                if !self.equalise_shard(&view, shard).await {
                    self.view_changed(view.number, AGAIN).await;
                    self.shared().work.notify_one();
                    break;
                }
            }
        }
    }

    async fn equalise_shard(&self, view: &View, shard: usize) -> bool {
        let all = self.shared().pending();
        let Some(pending) = all.get(shard) else { return true };
        while let Some(first) = pending.first_in(&(0..view.shard_blocks(shard))) {
            if self.view().number != view.number {
                return false;
            }
            let chunk = self.chunk_of(first.start);
            let part = first.start..first.end.min(chunk.end);
            let base = shard as u64 * view.config.shard_blocks;
            let _held = self.shared().locks.write(base + part.start..base + part.end).await;
            if pending.first_in(&part).is_none() {
                continue;
            }
            let open = Open::repair(self.shared(), shard, part.clone());
            if !self.equalise(view, shard, &part, open.sequence()).await {
                return false;
            }
            open.done();
        }
        self.settle(view, shard).await
    }

    /// Nothing of earlier reigns is pending in a shard: its replicas may forget what they listed.
    async fn settle(&self, view: &View, shard: usize) -> bool {
        if !self.shared().unsettled.lock().contains(&shard) {
            return true;
        }
        let ports = self.ports(view, shard);
        for (index, member) in view.in_sync(shard) {
            let Some(port) = ports.get(index) else { return false };
            let body = Body::Settle { reign: view.config.reign };
            if self.call(port, member, view.epoch(), body, None, 0).await.is_err() {
                return false;
            }
        }
        self.shared().unsettled.lock().remove(&shard);
        true
    }

    /// Waits for `first` or `second`.
    pub(super) async fn either<A, B>(
        &self,
        first: impl Future<Output = A>,
        second: impl Future<Output = B>,
    ) -> Option<A> {
        match select(std::pin::pin!(first), std::pin::pin!(second)).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }
}

/// The runs of set bits.
fn runs(bits: u64) -> impl Iterator<Item = Range<u32>> {
    let mut left = bits;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let start = left.trailing_zeros();
        let count = (left >> start).trailing_ones();
        let end = start + count;
        left = if end >= 64 { 0 } else { left >> end << end };
        Some(start..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_bits() {
        let all = |bits| runs(bits).map(|run| (run.start, run.end)).collect::<Vec<_>>();
        assert_eq!(all(0), []);
        assert_eq!(all(0b1101), [(0, 1), (2, 4)]);
        assert_eq!(all(u64::MAX), [(0, 64)]);
        assert_eq!(all(1 << 63 | 1), [(0, 1), (63, 64)]);
    }
}
