//! What a replica holds, chunk by chunk: for replication, which compares two replicas and copies
//! only what differs (DESIGN 5 rules 7 and 8).
//!
//! Chunks are named by their index in the replica: chunk n holds the blocks from
//! `n * chunk_blocks` on. A chunk that was never written, or that was trimmed as a whole, is not
//! allocated and has no stamp: two replicas show it by their allocation maps.
//!
//! The stamp that [`Replica::chunks_since`] goes by is durable before the first write of its
//! generation changes what the chunk holds:
//! - a first write and a clear change it by a record in the journal, which carries the generation;
//! - an overwrite in place waits for the record with the stamp;
//! - an overwrite through the journal has it in the same record.
//!
//! It goes back only when the chunk is freed.

use afs_env::{BufferMut, Disk};

use super::pin::ReadPin;
use super::{Piece, Replica};
use crate::error::StoreError;
use crate::format::{BLOCK, block_crc, block_crc64};
use crate::ids::Generation;
use crate::map::NONE;

/// Chunk indexes that are looked at under one lock.
const STRIDE: u32 = 1024;

/// Checksum of one block: CRC64-NVME (8 bytes), CRC32C (4), zeroes (4), little endian. Finds
/// differences that came by accident, not by design.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(pub [u8; 16]);

const _: () = assert!(size_of::<Sum>() == 16);

impl Sum {
    /// The checksum of a block.
    pub fn of(block: &[u8]) -> Self {
        let mut sum = [0; 16];
        let (long, rest) = sum.split_at_mut(8);
        long.copy_from_slice(&block_crc64(block).to_le_bytes());
        rest.split_at_mut(4).0.copy_from_slice(&block_crc(block).to_le_bytes());
        Self(sum)
    }
}

impl<D: Disk> Replica<D> {
    /// Blocks of one chunk, 4 to 64.
    pub fn chunk_blocks(&self) -> u32 {
        self.shared.geometry.chunk_blocks()
    }

    /// Chunks that the replica's size spans. At most 2^30.
    fn chunks(&self) -> u32 {
        let chunks = self.blocks().div_ceil(self.chunk_blocks().into());
        u32::try_from(chunks).unwrap_or(u32::MAX)
    }

    /// Up to `max` chunks at or after chunk `from` whose stamp is later than `after`, ascending.
    /// With fewer than `max` there is none beyond. Writes under way may be missing.
    pub fn chunks_since(&self, after: Generation, from: u32, max: usize) -> Vec<u32> {
        let end = self.chunks();
        let mut found = Vec::new();
        let mut from = from;
        while from < end && found.len() < max {
            let stride = end.min(from.saturating_add(STRIDE));
            self.stamped_in(after, from..stride, max, &mut found);
            from = stride;
        }
        found
    }

    /// [`Replica::chunks_since`] for one stride.
    fn stamped_in(
        &self,
        after: Generation,
        mut range: std::ops::Range<u32>,
        max: usize,
        found: &mut Vec<u32>,
    ) {
        let meta = self.shared.meta.lock();
        // Neighbours mostly share their generation.
        let mut last = None;
        while let Some(index) = self.layer.map.next_mapped(range.start, range.end) {
            range.start = index + 1;
            let Some(slot) = self.shared.chunk(self.layer.map.get(index)) else { continue };
            let number = slot.generation();
            let later = match last {
                Some((known, later)) if known == number => later,
                _ => meta.generations.get(number) > after,
            };
            last = Some((number, later));
            if later {
                found.push(index);
                if found.len() == max {
                    return;
                }
            }
        }
    }

    /// For `bits` chunks from chunk `from` on, whether they are allocated: bit n % 8 of byte n / 8
    /// is for chunk `from + n`, bits beyond the replica's end are 0. A chunk whose first write or
    /// whose release is under way counts as allocated, and so does one that was zeroed but kept.
    pub fn allocated_map(&self, from: u32, bits: u32) -> Vec<u8> {
        let mut map = vec![0; bits.div_ceil(8) as usize];
        let end = self.chunks().min(from.saturating_add(bits));
        let mut at = from;
        while let Some(index) = self.layer.map.next_mapped(at, end) {
            let bit = index - from;
            if let Some(byte) = map.get_mut((bit / 8) as usize) {
                *byte |= 1 << (bit % 8);
            }
            at = index + 1;
        }
        map
    }

    /// Which blocks of a chunk hold data now: bit n is for its block n. The others read as zeroes.
    pub fn block_states(&self, chunk: u32) -> u64 {
        match self.layer.map.get(chunk) {
            NONE => 0,
            mapped => self.shared.chunk(mapped).map_or(0, |slot| slot.data()),
        }
    }

    /// Reads a whole chunk into the buffer, which must be that large or larger. Returns which
    /// blocks hold data ([`Replica::block_states`]), the checksum of each of these (0 for the
    /// others), and the buffer, cut to the chunk, with what was read. Like a read, it may see
    /// either side of a write that is under way.
    ///
    /// # Errors
    /// `OutOfRange` if the chunk is beyond the replica's end or the buffer is too small, or the
    /// disk's.
    pub async fn checksums(
        &self,
        chunk: u32,
        mut buffer: BufferMut,
    ) -> Result<(u64, [Sum; 64], BufferMut), StoreError> {
        let piece = Piece { index: chunk, first: 0, count: self.chunk_blocks() };
        self.check(u64::from(chunk) * u64::from(piece.count), 1)?;
        if buffer.len() < piece.bytes() {
            return Err(StoreError::OutOfRange);
        }
        buffer.set_len(piece.bytes());
        let pin = ReadPin::take(&self.shared, &self.layer, chunk);
        let data = pin.as_ref().map_or(0, |pin| pin.data);
        let (buffer, result) = self.read_pinned(pin, piece, buffer).await;
        result?;
        let mut sums = [Sum::default(); 64];
        for ((number, sum), block) in (0..).zip(&mut sums).zip(buffer.chunks_exact(BLOCK)) {
            if data >> number & 1 == 1 {
                *sum = Sum::of(block);
            }
        }
        Ok((data, sums, buffer))
    }
}
