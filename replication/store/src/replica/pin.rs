//! Pins: while one is held, the chunk is not given to another owner; with a write's pin, no clear
//! touches it.

use std::sync::atomic::Ordering;

use super::{Piece, Replica};
use crate::chunk::{ChunkSlot, Kind};
use crate::map::NONE;
use crate::mutant::{Mutant, planted};
use crate::state::{Layer, Shared};
use crate::stats::StopReason;
use crate::waiters::Key;

/// Keeps a chunk from being reused while a read is on its way.
pub(super) struct ReadPin<'a> {
    shared: &'a Shared,
    slot: &'a ChunkSlot,
    pub chunk: u32,
    /// The data mask when it was pinned.
    pub data: u64,
}

impl<'a> ReadPin<'a> {
    /// Pins the chunk of `index`, if there is one.
    pub(super) fn take(shared: &'a Shared, layer: &Layer, index: u32) -> Option<Self> {
        loop {
            let chunk = layer.map.get(index);
            if chunk == NONE {
                return None;
            }
            let slot = shared.chunk(chunk)?;
            slot.pin_reader();
            let pin = Self { shared, slot, chunk, data: slot.data() };
            // Whoever frees the chunk first takes it off the map, then looks at the pins: one of us
            // sees the other.
            if layer.map.get(index) == chunk {
                return Some(pin);
            }
        }
    }
}

impl Drop for ReadPin<'_> {
    fn drop(&mut self) {
        self.slot.unpin_reader();
        settle(self.shared, self.slot, self.chunk);
    }
}

fn settle(shared: &Shared, slot: &ChunkSlot, chunk: u32) {
    if slot.kind() == Kind::Draining {
        shared.settle(&mut shared.meta.lock(), chunk);
    }
}

/// Counts a write into a chunk. Must be ended by [`WritePin::end`]; if it is dropped while
/// `in_flight`, the disk stops.
pub(super) struct WritePin<'a> {
    shared: &'a Shared,
    slot: &'a ChunkSlot,
    pub chunk: u32,
    pub in_flight: bool,
}

impl<'a> WritePin<'a> {
    /// Counts a write in, unless a clear is at work.
    pub(super) fn take(shared: &'a Shared, chunk: u32) -> Option<Self> {
        let slot = shared.chunk(chunk)?;
        // Made only when counted in: dropping it counts out.
        slot.pin_writer().then(|| Self { shared, slot, chunk, in_flight: false })
    }

    /// The chunk.
    pub(super) fn slot(&self) -> &'a ChunkSlot {
        self.slot
    }

    /// The data is where it should be, or failed for good.
    pub(super) fn end(mut self) {
        self.in_flight = false;
    }
}

impl Drop for WritePin<'_> {
    fn drop(&mut self) {
        if self.in_flight {
            self.shared.stop(StopReason::WriteAbandoned);
            return;
        }
        if self.slot.unpin_writer() {
            self.shared.meta.lock().waiters.wake(|key| key == Key::Chunk(self.chunk));
        }
        settle(self.shared, self.slot, self.chunk);
    }
}

impl<D: afs_env::Disk> Replica<D> {
    /// Pins the chunk for an overwrite in place, if every block of the piece holds data and nothing
    /// is in the way.
    pub(super) fn pin_overwrite(&self, piece: Piece) -> Option<WritePin<'_>> {
        if self.shared.tears && !planted(Mutant::TearOverwrites) {
            return None;
        }
        let chunk = self.layer.map.get(piece.index);
        if chunk == NONE {
            return None;
        }
        let pin = WritePin::take(&self.shared, chunk)?;
        let mask = piece.mask();
        let mapped = self.layer.map.get(piece.index) == chunk;
        let slot = pin.slot();
        (mapped && slot.data() & mask == mask && self.may_overwrite(slot)).then_some(pin)
    }

    /// The generation's stamp and the barrier that an overwrite needs are durable.
    pub(super) fn may_overwrite(&self, slot: &ChunkSlot) -> bool {
        self.is_stamped(slot) && self.is_covered(slot)
    }

    /// The chunk has the stamp of the generation that writes belong to.
    pub(super) fn is_stamped(&self, slot: &ChunkSlot) -> bool {
        slot.generation() == self.layer.generation.index()
    }

    /// A barrier past the chunk's first writes is durable.
    pub(super) fn is_covered(&self, slot: &ChunkSlot) -> bool {
        slot.covered(self.shared.barrier.load(Ordering::Acquire)) || planted(Mutant::SkipBarrier)
    }
}
