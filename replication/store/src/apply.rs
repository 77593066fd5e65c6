//! What a durable record does to the state in memory: the same function at run time and at replay.
//! Called by the journal's sync loop, in the journal's order, under the lock, and by recovery.
//!
//! At replay the table on disk may already have the effects of the record and of later ones
//! (checkpoints are fuzzy), so a record may meet a chunk that belongs to somebody else by now. It
//! then sets what it says, or is ignored, and the later records, which are all replayed, set the
//! rest. Contradictions that remain at the end are damage.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::chunk::{ChunkSlot, Kind};
use crate::error::Damage;
use crate::ids::{Generation, LayerId, ReplicaId};
use crate::journal::record::{Place, Record};
use crate::mutant::{Mutant, planted};
use crate::state::{CREATING, DELETED, LIVE, Layer, Meta, Shared};
use crate::waiters::Key;

/// Nil: the layer was met in a record or table page, but its creation was not (yet).
const UNKNOWN: ReplicaId = ReplicaId([0; 16]);

/// Whether the record comes from the journal of an earlier run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Live,
    Replay,
}

impl Shared {
    /// Applies every record of one block.
    pub(crate) fn apply_all(
        &self,
        meta: &mut Meta,
        sequence: u64,
        mut records: &[u8],
        when: When,
    ) -> Result<(), Damage> {
        while !records.is_empty() {
            let (record, rest) = Record::parse(records).ok_or(Damage::Record { sequence })?;
            self.apply(meta, sequence, &record, when)?;
            records = rest;
        }
        Ok(())
    }

    /// Applies one record.
    pub(crate) fn apply(
        &self,
        meta: &mut Meta,
        sequence: u64,
        record: &Record<'_>,
        when: When,
    ) -> Result<(), Damage> {
        match *record {
            Record::Write { place, generation, mask, .. } => {
                let chunk = self.checked(&place, mask, sequence)?;
                if self.apply_write(meta, chunk, place, mask, when) {
                    stamp(meta, chunk, generation);
                }
                chunk.set_fresh(sequence);
                meta.mark_dirty(place.chunk);
            }
            Record::Clear { place, generation, mask, to_zero, free } => {
                let chunk = self.checked(&place, mask, sequence)?;
                if owns(meta, chunk, &place) {
                    apply_clear(chunk, mask, to_zero);
                    if !planted(Mutant::ClearWithoutStamp) {
                        stamp(meta, chunk, generation);
                    }
                    if free {
                        self.free_chunk(meta, chunk, place.chunk, when);
                    }
                }
                if when == When::Live {
                    self.end_clear(meta, chunk, place.chunk, mask);
                }
                meta.mark_dirty(place.chunk);
            }
            Record::Stamp { place, generation } | Record::Overwrite { place, generation, .. } => {
                let chunk = self.checked(&place, 0, sequence)?;
                self.apply_stamp(meta, chunk, &place, generation);
            }
            Record::Create { replica, layer, parent, blocks } => {
                self.apply_create(meta, replica, layer, parent, blocks, when);
            }
            Record::Resize { layer, blocks, .. } => {
                if let Some(layer) = find(meta, layer) {
                    layer.durable_blocks.store(blocks, Ordering::Release);
                    layer.blocks.store(blocks, Ordering::Release);
                }
            }
            Record::Delete { replica, layer } => self.apply_delete(meta, replica, layer, when),
            Record::Label { layer, label, .. } => {
                if let Some(layer) = find(meta, layer) {
                    *layer.label.lock() = label;
                }
            }
        }
        Ok(())
    }

    fn checked(&self, place: &Place, mask: u64, sequence: u64) -> Result<&ChunkSlot, Damage> {
        let chunk = self.chunk(place.chunk).ok_or(Damage::Record { sequence })?;
        if mask & !self.geometry.full_mask() != 0 {
            return Err(Damage::Record { sequence });
        }
        Ok(chunk)
    }

    /// Returns whether the chunk is the layer's.
    fn apply_write(
        &self,
        meta: &mut Meta,
        chunk: &ChunkSlot,
        place: Place,
        mask: u64,
        when: When,
    ) -> bool {
        let mut good = mask;
        if let Some(busy) = meta.busy.get_mut(&place.chunk) {
            good &= !busy.failed;
            busy.writing &= !mask;
            meta.retire_busy(place.chunk);
        }
        meta.waiters.wake(|key| key == Key::Chunk(place.chunk));
        if !owns(meta, chunk, &place) {
            if when == When::Live {
                return false;
            }
            let layer = layer_or_unknown(meta, place.layer);
            chunk.set_states(0, 0);
            chunk.set_generation(0);
            chunk.set_index(place.index);
            chunk.set_owner(Kind::Owned, layer.slot);
        }
        if planted(Mutant::WholeChunkIsData) {
            good = self.geometry.full_mask();
        }
        if chunk.kind() == Kind::Reserved {
            chunk.set_kind(Kind::Owned);
        }
        chunk.set_states(chunk.data() | good, chunk.zero() & !good);
        true
    }

    fn apply_stamp(&self, meta: &mut Meta, chunk: &ChunkSlot, place: &Place, g: Generation) {
        if owns(meta, chunk, place) {
            stamp(meta, chunk, g);
            meta.mark_dirty(place.chunk);
        }
        if let Some(busy) = meta.busy.get_mut(&place.chunk) {
            busy.stamp = None;
            meta.retire_busy(place.chunk);
        }
    }

    /// The clear is over: writes may enter the chunk again.
    pub(crate) fn end_clear(&self, meta: &mut Meta, slot: &ChunkSlot, chunk: u32, mask: u64) {
        if let Some(busy) = meta.busy.get_mut(&chunk) {
            busy.clearing &= !mask;
            busy.recorded &= !mask;
            busy.failed &= !mask;
            busy.exclusive = busy.exclusive.saturating_sub(1);
            if busy.exclusive == 0 {
                slot.set_exclusive(false);
            }
            meta.retire_busy(chunk);
        }
        meta.waiters.wake(|key| key == Key::Chunk(chunk));
    }

    fn free_chunk(&self, meta: &mut Meta, slot: &ChunkSlot, chunk: u32, when: When) {
        match (when, meta.layer(slot.slot())) {
            (When::Live, Some(layer)) => self.release(meta, &layer, chunk),
            _ => {
                slot.set_states(0, 0);
                slot.set_generation(0);
                slot.set_owner(Kind::Free, 0);
            }
        }
    }

    fn apply_create(
        &self,
        meta: &mut Meta,
        replica: ReplicaId,
        id: LayerId,
        parent: u64,
        blocks: u64,
        when: When,
    ) {
        meta.next_layer = meta.next_layer.max(id.0.saturating_add(1));
        if when == When::Live {
            if let Some(layer) = find(meta, id) {
                // Deleted while it was being made: the later record counts.
                let from = (CREATING, LIVE);
                let order = Ordering::AcqRel;
                let _ = layer.state.compare_exchange(from.0, from.1, order, Ordering::Acquire);
            }
            return;
        }
        replace_layer(meta, replica, id, parent, blocks);
    }

    fn apply_delete(&self, meta: &mut Meta, replica: ReplicaId, id: LayerId, when: When) {
        let Some(layer) = find(meta, id) else { return };
        layer.state.store(DELETED, Ordering::Release);
        match when {
            When::Live => {
                let mut from = 0;
                while let Some(index) = layer.map.next_mapped(from, 1 << 30) {
                    let chunk = layer.map.get(index);
                    self.release(meta, &layer, chunk);
                    meta.mark_dirty(chunk);
                    from = index + 1;
                }
                meta.slots.remove(&id.0);
                if let Some(place) = meta.layers.get_mut(layer.slot as usize) {
                    *place = None;
                }
            }
            When::Replay => {
                if meta.replicas.get(&replica).is_some_and(|l| l.id == id) {
                    meta.replicas.remove(&replica);
                }
                for (number, chunk) in (0_u32..).zip(&self.chunks) {
                    if chunk.kind() == Kind::Owned && chunk.slot() == layer.slot {
                        self.free_chunk(meta, chunk, number, when);
                        meta.mark_dirty(number);
                    }
                }
            }
        }
    }
}

/// The chunk was last written in this generation, unless it was in a later one: a table page may
/// know of later records, and one that was staged late may carry what was current before.
fn stamp(meta: &mut Meta, chunk: &ChunkSlot, generation: Generation) {
    let (number, held) = (meta.generations.number(generation), chunk.generation());
    if number != held && generation > meta.generations.get(held) {
        chunk.set_generation(number);
    }
}

fn apply_clear(chunk: &ChunkSlot, mask: u64, to_zero: bool) {
    let zero = if to_zero { chunk.zero() | mask } else { chunk.zero() & !mask };
    chunk.set_states(chunk.data() & !mask, zero);
}

fn owns(meta: &Meta, chunk: &ChunkSlot, place: &Place) -> bool {
    matches!(chunk.kind(), Kind::Reserved | Kind::Owned | Kind::Freeing)
        && chunk.index() == place.index
        && meta.slots.get(&place.layer.0) == Some(&chunk.slot())
}

pub(crate) fn find(meta: &Meta, id: LayerId) -> Option<Arc<Layer>> {
    meta.layer(*meta.slots.get(&id.0)?)
}

/// The layer, or a stand-in for one that a later record must create or delete.
pub(crate) fn layer_or_unknown(meta: &mut Meta, id: LayerId) -> Arc<Layer> {
    find(meta, id)
        .unwrap_or_else(|| meta.add_layer(|slot| Layer::new(id, slot, 0, UNKNOWN, 0, DELETED)))
}

/// Puts a layer that replay knows completely in the place of what it had so far.
pub(crate) fn replace_layer(
    meta: &mut Meta,
    replica: ReplicaId,
    id: LayerId,
    parent: u64,
    blocks: u64,
) -> Arc<Layer> {
    let slot = layer_or_unknown(meta, id).slot;
    let layer = Arc::new(Layer::new(id, slot, parent, replica, blocks, LIVE));
    if let Some(place) = meta.layers.get_mut(slot as usize) {
        *place = Some(layer.clone());
    }
    meta.replicas.insert(replica, layer.clone());
    layer
}
