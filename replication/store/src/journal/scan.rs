//! Reads the ring back: which blocks count, where the journal ends, and whether its end is a torn
//! tail or damage. Pure: blocks go in, events come out.

use zerocopy::little_endian::U32;

use super::block::JournalBlock;
use super::record::Record;
use crate::error::Damage;
use crate::format::block_crc;

/// A block that counts.
#[derive(Clone, Debug)]
pub(crate) struct Replayed {
    pub sequence: u64,
    /// The barrier that it announces.
    pub durable: u64,
    pub records: Vec<u8>,
}

/// Where the journal ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Sequence number of the next block.
    pub next: u64,
    /// The highest barrier announced.
    pub barrier: u64,
    /// Checksum of the last block.
    pub previous: u32,
    /// Blocks after the end that would look whole: the torn tail.
    pub tail: Vec<u64>,
}

/// Takes the blocks of the ring one by one, from the position of block `start` on, once round.
pub(crate) struct Scan {
    seed: u64,
    /// The disk writes blocks whole: one that is neither old nor new was damaged later.
    whole: bool,
    start: u64,
    at: u64,
    ended: bool,
    end: End,
    chained: bool,
    /// A block whose payload is still coming, and the checksums that it should have.
    open: Option<(Replayed, u32, Vec<u32>)>,
    proof: u64,
}

impl Scan {
    pub(crate) fn new(seed: u64, start: u64, whole: bool) -> Self {
        Self {
            seed,
            whole,
            start,
            at: start,
            ended: false,
            end: End { next: start, barrier: start, previous: 0, tail: Vec::new() },
            chained: false,
            open: None,
            proof: 0,
        }
    }

    /// Takes the next 4096 bytes of the ring; returns a block if one is complete and counts.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Option<Replayed>, Damage> {
        let at = self.at;
        self.at += 1;
        if let Some((block, sum, mut checksums)) = self.open.take() {
            if checksums.pop() == Some(block_crc(bytes)) {
                if checksums.is_empty() {
                    return Ok(Some(self.accept(block, sum, at + 1)));
                }
                self.open = Some((block, sum, checksums));
                return Ok(None);
            }
            self.ended = true;
            self.end.tail.push(block.sequence);
        }
        let Some(block) = JournalBlock::read(bytes, self.seed) else {
            let previous = self.chained.then_some(self.end.previous);
            if self.whole && !self.ended && JournalBlock::was(bytes, at, previous) {
                return Err(Damage::Journal { sequence: at });
            }
            self.ended = true;
            return Ok(None);
        };
        let chained = !self.chained || block.previous.get() == self.end.previous;
        if self.ended || block.sequence.get() != at || !chained {
            self.beyond(block)?;
            return Ok(None);
        }
        let replayed = Replayed {
            sequence: at,
            durable: block.durable.get(),
            records: block.used_records().to_vec(),
        };
        let sum = block.checksum.get();
        if block.payload.get() == 0 {
            return Ok(Some(self.accept(replayed, sum, at + 1)));
        }
        let checksums = payload_checksums(&replayed.records, block.payload.get().into());
        let checksums = checksums.ok_or(Damage::Record { sequence: at })?;
        self.open = Some((replayed, sum, checksums));
        Ok(None)
    }

    fn accept(&mut self, block: Replayed, sum: u32, next: u64) -> Replayed {
        self.end.next = next;
        self.end.previous = sum;
        self.end.barrier = self.end.barrier.max(block.durable);
        self.chained = true;
        block
    }

    /// A whole block where none counts: an older one, the torn tail, or the proof of damage.
    fn beyond(&mut self, block: &JournalBlock) -> Result<(), Damage> {
        self.ended = true;
        let sequence = block.sequence.get();
        if sequence < self.end.next {
            return Ok(());
        }
        if self.end.next == self.start && sequence > self.at {
            return Err(Damage::JournalCut { sequence: self.start });
        }
        self.proof = self.proof.max(block.durable.get());
        self.end.tail.push(sequence);
        Ok(())
    }

    /// The ring has been read once round.
    pub(crate) fn finish(self) -> Result<End, Damage> {
        if self.proof > self.end.next {
            return Err(Damage::Journal { sequence: self.end.next });
        }
        let mut end = self.end;
        if let Some((block, _, _)) = self.open {
            end.tail.push(block.sequence);
        }
        Ok(end)
    }
}

/// The checksums of a block's payload, last first.
fn payload_checksums(mut records: &[u8], blocks: usize) -> Option<Vec<u32>> {
    while !records.is_empty() {
        let (record, rest) = Record::parse(records)?;
        if let Record::Overwrite { checksums, .. } = record {
            let sums = checksums.iter().rev().copied().map(U32::get).collect::<Vec<_>>();
            return (sums.len() == blocks).then_some(sums);
        }
        records = rest;
    }
    None
}

#[cfg(test)]
mod tests;
