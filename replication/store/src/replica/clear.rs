//! Trim and zeroes: records only. A clear first keeps writes out of its chunk and waits for those
//! under way, so that none lands after it; reads go on.

use std::sync::atomic::Ordering;

use afs_env::Disk;

use super::{Piece, Replica};
use crate::chunk::{ChunkSlot, Kind};
use crate::error::StoreError;
use crate::journal::record::Record;
use crate::map::NONE;
use crate::mutant::{Mutant, planted};
use crate::state::{LIVE, Meta, Shared};
use crate::waiters::Key;

/// Keeps writes out of a chunk; gives that up when dropped, unless the record was staged.
struct Held<'a> {
    shared: &'a Shared,
    slot: &'a ChunkSlot,
    chunk: u32,
    mask: u64,
    staged: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.staged {
            let mut meta = self.shared.meta.lock();
            self.shared.end_clear(&mut meta, self.slot, self.chunk, self.mask);
        }
    }
}

impl Shared {
    /// Whether a clear of `mask`, staged now, leaves the chunk with no data and nothing on its way.
    /// `own` are blocks whose first write the clear takes back.
    pub(crate) fn frees(&self, meta: &Meta, chunk: u32, mask: u64, own: u64) -> bool {
        let Some(slot) = self.chunk(chunk) else { return false };
        let (writing, held, recorded) = meta
            .busy
            .get(&chunk)
            .map_or((0, 0, 0), |b| (b.writing, b.clearing & !b.recorded, b.recorded));
        slot.kind() != Kind::Freeing
            && slot.data() & !(recorded | mask) == 0
            && writing & !own == 0
            && held & !mask == 0
    }
}

impl<D: Disk> Replica<D> {
    /// Makes blocks read as zeroes; durable when it returns. With `deallocate` it is
    /// [`Replica::deallocate`], without it chunks stay with the replica.
    pub async fn write_zeroes(
        &self,
        lba: u64,
        blocks: u32,
        deallocate: bool,
    ) -> Result<(), StoreError> {
        self.check(lba, blocks.into())?;
        self.clear(lba, blocks.into(), !deallocate).await
    }

    /// Trims blocks: they read as zeroes, and a chunk with no data left goes back to the pool.
    /// Durable when it returns.
    pub async fn deallocate(&self, lba: u64, blocks: u64) -> Result<(), StoreError> {
        self.check(lba, blocks)?;
        self.clear(lba, blocks, false).await
    }

    /// Clears a range that was checked, or that a resize has cut off.
    pub(crate) async fn clear(
        &self,
        lba: u64,
        blocks: u64,
        to_zero: bool,
    ) -> Result<(), StoreError> {
        let per_chunk = u64::from(self.shared.geometry.chunk_blocks());
        let (mut at, end) = (lba, lba + blocks);
        let last = u32::try_from(end.div_ceil(per_chunk)).map_err(|_| StoreError::OutOfRange)?;
        let mut staged = None;
        while at < end {
            let piece = self.piece(at, end - at)?;
            let Some(mapped) = self.layer.map.next_mapped(piece.index, last) else { break };
            if mapped != piece.index {
                at = u64::from(mapped) * per_chunk;
                continue;
            }
            at += u64::from(piece.count);
            if let Some(sequence) = self.clear_piece(piece, to_zero).await? {
                staged = Some(sequence);
            }
        }
        match staged {
            Some(sequence) => self.shared.wait_durable(sequence).await,
            None => Ok(()),
        }
    }

    /// Stages the clear of one piece; returns its journal block, or `None` if there was nothing to
    /// do.
    async fn clear_piece(&self, piece: Piece, to_zero: bool) -> Result<Option<u64>, StoreError> {
        let held = self.shared.wait(|meta| self.hold(meta, piece, to_zero)).await?;
        let Some(mut held) = held else { return Ok(None) };
        let sequence = self
            .shared
            .wait(|meta| {
                if self.layer.state() != LIVE {
                    return Ok(Err(StoreError::Deleted));
                }
                if meta.closing {
                    return Ok(Err(StoreError::Stopped));
                }
                if held.slot.writers() != 0 && !planted(Mutant::ClearDuringOverwrite) {
                    return Err(Key::Chunk(held.chunk));
                }
                let sequence = self.stage_clear(meta, piece, &held, to_zero)?;
                held.staged = true;
                Ok(Ok(sequence))
            })
            .await??;
        self.shared.counters.clears.fetch_add(1, Ordering::Relaxed);
        Ok(Some(sequence))
    }

    fn hold(&self, meta: &mut Meta, piece: Piece, to_zero: bool) -> Result<Option<Held<'_>>, Key> {
        let mask = piece.mask();
        let chunk = self.layer.map.get(piece.index);
        if chunk == NONE {
            return Ok(None);
        }
        let Some(slot) = self.shared.chunk(chunk) else { return Ok(None) };
        let busy = meta.busy.get(&chunk).map_or(0, |busy| busy.writing | busy.clearing);
        if slot.kind() == Kind::Freeing || busy & mask != 0 {
            return Err(Key::Chunk(chunk));
        }
        let changed = mask & (slot.data() | if to_zero { 0 } else { slot.zero() });
        if changed == 0 && (to_zero || !self.shared.frees(meta, chunk, mask, 0)) {
            return Ok(None);
        }
        let busy = meta.busy.entry(chunk).or_default();
        busy.clearing |= mask;
        busy.exclusive += 1;
        slot.set_exclusive(true);
        Ok(Some(Held { shared: &self.shared, slot, chunk, mask, staged: false }))
    }

    fn stage_clear(
        &self,
        meta: &mut Meta,
        piece: Piece,
        held: &Held<'_>,
        to_zero: bool,
    ) -> Result<u64, Key> {
        let (chunk, mut mask) = (held.chunk, held.mask);
        let free = !to_zero && self.shared.frees(meta, chunk, mask, 0);
        if to_zero {
            // Blocks that were absent stay so.
            mask &= held.slot.data() | held.slot.zero();
        }
        let place = self.shared.place(&self.layer, chunk, piece.index);
        let generation = self.current_generation(meta);
        let record = Record::Clear { place, generation, mask, to_zero, free };
        let sequence = self.shared.append(meta, &record, &[]).ok_or(Key::JournalRoom)?;
        if let Some(busy) = meta.busy.get_mut(&chunk) {
            busy.clearing = busy.clearing & !held.mask | mask;
            busy.recorded |= mask;
        }
        if free {
            held.slot.set_kind(Kind::Freeing);
            if planted(Mutant::ReuseBeforeDurable) {
                self.shared.release(meta, &self.layer, chunk);
            }
        }
        Ok(sequence)
    }
}
