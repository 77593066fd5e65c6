//! The data path: one replica on one reactor. [`read`] and overwrites touch only atomics; first
//! writes and clears meet at the journal.

mod clear;
mod contents;
mod label;
mod pin;
mod read;
mod write;

pub use contents::Sum;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use afs_env::Disk;

use crate::error::StoreError;
use crate::format::BLOCK_BYTES;
use crate::ids::{Generation, ReplicaId};
use crate::state::{LIVE, Layer, Shared};

/// A handle to one replica, on one reactor; cheap to clone.
///
/// A `write`, `write_zeroes` or `deallocate` that was polled must be polled to its end: dropping
/// one whose data is on its way to the disk would leave a write that may land after a later one, so
/// the store then stops the disk ([`crate::StopReason::WriteAbandoned`]). Reads may be dropped at
/// any time.
#[derive(Clone)]
pub struct Replica<D> {
    shared: Arc<Shared>,
    layer: Arc<Layer>,
    disk: D,
}

/// A part of a command that lies in one chunk.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Chunk index in the layer.
    index: u32,
    /// First block in the chunk.
    first: u32,
    /// Blocks, at least one.
    count: u32,
}

impl Piece {
    fn mask(self) -> u64 {
        (u64::MAX >> (64 - self.count)) << self.first
    }

    fn bytes(self) -> usize {
        (self.count * BLOCK_BYTES) as usize
    }
}

impl<D: Disk> Replica<D> {
    pub(crate) fn new(shared: Arc<Shared>, layer: Arc<Layer>, disk: D) -> Self {
        Self { shared, layer, disk }
    }

    pub(crate) fn layer(&self) -> &Arc<Layer> {
        &self.layer
    }

    /// Its identity.
    pub fn id(&self) -> ReplicaId {
        self.layer.replica
    }

    /// Its size in blocks of 4096 bytes.
    pub fn blocks(&self) -> u64 {
        self.layer.blocks.load(Ordering::Acquire)
    }

    /// Bytes of the chunks that it has.
    pub fn allocated_bytes(&self) -> u64 {
        u64::from(self.layer.allocated.load(Ordering::Relaxed))
            * u64::from(self.shared.geometry.chunk_bytes)
    }

    /// Sets the generation of all writes that begin from now on, unless a later one is set; those
    /// under way stay in theirs. The first overwrite of a chunk in a new generation costs one
    /// journal record. After an open it is the latest that any chunk of the replica has.
    ///
    /// Costs two loads if nothing changes, so it may be called with every write.
    pub fn set_generation(&self, generation: Generation) {
        if self.layer.generation.reaches(generation) {
            return;
        }
        let mut meta = self.shared.meta.lock();
        let number = meta.generations.number(generation);
        self.layer.generation.raise(generation, number);
    }

    /// Checks a range against the replica's size and state; returns the blocks.
    fn check(&self, lba: u64, blocks: u64) -> Result<(), StoreError> {
        if self.shared.is_stopped() {
            return Err(StoreError::Stopped);
        }
        if self.layer.state() != LIVE {
            return Err(StoreError::Deleted);
        }
        let end = lba.checked_add(blocks).ok_or(StoreError::OutOfRange)?;
        if blocks == 0 || end > self.blocks() {
            return Err(StoreError::OutOfRange);
        }
        Ok(())
    }

    /// Whole blocks in a buffer of `bytes`.
    fn blocks_of(bytes: usize) -> Result<u64, StoreError> {
        let bytes = bytes as u64;
        let block = u64::from(BLOCK_BYTES);
        bytes.is_multiple_of(block).then_some(bytes / block).ok_or(StoreError::OutOfRange)
    }

    /// The first piece of a range.
    fn piece(&self, lba: u64, blocks: u64) -> Result<Piece, StoreError> {
        let per_chunk = u64::from(self.shared.geometry.chunk_blocks());
        let first = lba % per_chunk;
        let count = blocks.min(per_chunk - first);
        let convert = |n: u64| u32::try_from(n).map_err(|_| StoreError::OutOfRange);
        Ok(Piece {
            index: convert(lba / per_chunk)?,
            first: convert(first)?,
            count: convert(count)?,
        })
    }

    /// Where a piece lies on the disk.
    fn offset(&self, chunk: u32, piece: Piece) -> u64 {
        self.shared.geometry.chunk_offset(chunk) + u64::from(piece.first) * u64::from(BLOCK_BYTES)
    }
}
