//! One physical chunk in memory: 40 bytes, read with no lock, changed under the store's lock.
//!
//! Invariants:
//! - `data` and `zero` have no common bit, and none beyond the chunk's blocks. They hold what is
//!   durable.
//! - A chunk is on the free list exactly when its kind is `Free`; then both masks are 0.
//! - A chunk that is `Reserved`, `Owned` or `Freeing` is what its layer's map says at its index,
//!   and nothing else is.
//! - `writers` counts writes whose data is on its way; with [`EXCLUSIVE`] set no new one begins.
//! - A `Draining` chunk becomes free when `readers` and `writers` are both 0.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bit of `writers`: a clear is at work, new writes must wait.
pub(crate) const EXCLUSIVE: u32 = 1 << 31;
const SLOT_BITS: u32 = 24;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

/// What a chunk is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Nobody's.
    Free = 0,
    /// Mapped, but the first record about it is not durable yet.
    Reserved = 1,
    /// A layer's.
    Owned = 2,
    /// A layer's, and the record that frees it is on its way.
    Freeing = 3,
    /// Nobody's, but reads or writes that had looked it up are still on their way.
    Draining = 4,
}

/// See the module documentation.
#[derive(Default)]
pub(crate) struct ChunkSlot {
    data: AtomicU64,
    zero: AtomicU64,
    owner: AtomicU32,
    index: AtomicU32,
    generation: AtomicU32,
    fresh: AtomicU32,
    readers: AtomicU32,
    writers: AtomicU32,
}

const _: () = assert!(size_of::<ChunkSlot>() == 40);
// With its place in a layer's map a chunk costs at most 48 bytes (DESIGN 6, memory).
const _: () = assert!(size_of::<ChunkSlot>() + size_of::<AtomicU32>() <= 48);

impl ChunkSlot {
    pub(crate) fn kind(&self) -> Kind {
        match self.owner.load(Ordering::SeqCst) >> SLOT_BITS {
            0 => Kind::Free,
            1 => Kind::Reserved,
            2 => Kind::Owned,
            3 => Kind::Freeing,
            _ => Kind::Draining,
        }
    }

    /// The owner's layer slot; means something unless the chunk is free or draining.
    pub(crate) fn slot(&self) -> u32 {
        self.owner.load(Ordering::SeqCst) & SLOT_MASK
    }

    pub(crate) fn set_owner(&self, kind: Kind, slot: u32) {
        let owner = u32::from(kind as u8) << SLOT_BITS | slot & SLOT_MASK;
        self.owner.store(owner, Ordering::SeqCst);
    }

    pub(crate) fn set_kind(&self, kind: Kind) {
        self.set_owner(kind, self.slot());
    }

    /// Index in the layer; for a free chunk, the next one on the free list.
    pub(crate) fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }

    pub(crate) fn set_index(&self, index: u32) {
        self.index.store(index, Ordering::Relaxed);
    }

    /// Bit n: block n holds data.
    pub(crate) fn data(&self) -> u64 {
        self.data.load(Ordering::Acquire)
    }

    /// Bit n: block n is zero whatever lies below.
    pub(crate) fn zero(&self) -> u64 {
        self.zero.load(Ordering::Acquire)
    }

    pub(crate) fn set_states(&self, data: u64, zero: u64) {
        self.data.store(data, Ordering::Release);
        self.zero.store(zero, Ordering::Release);
    }

    /// Number of the generation of the last stamp.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn set_generation(&self, generation: u32) {
        self.generation.store(generation, Ordering::Release);
    }

    /// Whether a barrier at `barrier` covers the chunk's last first write.
    pub(crate) fn covered(&self, barrier: u64) -> bool {
        let ahead = low32(barrier).wrapping_sub(self.fresh.load(Ordering::Acquire));
        // Only the low half is kept: right while the record is less than 2^31 blocks old, and
        // needlessly careful after.
        ahead != 0 && ahead < 1 << 31
    }

    /// What [`ChunkSlot::barrier_passed`] wants to know.
    pub(crate) fn fresh(&self) -> u32 {
        self.fresh.load(Ordering::Acquire)
    }

    /// A barrier at `barrier` covers what `fresh` was; forgets it if no first write came since.
    pub(crate) fn barrier_passed(&self, fresh: u32, barrier: u64) {
        let passed = low32(barrier).wrapping_sub(1);
        let order = Ordering::AcqRel;
        // A newer first write has set a newer value, which must stay.
        let _ = self.fresh.compare_exchange(fresh, passed, order, Ordering::Acquire);
    }

    /// Remembers the journal block of a first write.
    pub(crate) fn set_fresh(&self, sequence: u64) {
        self.fresh.store(low32(sequence), Ordering::Release);
    }

    pub(crate) fn pin_reader(&self) {
        self.readers.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn unpin_reader(&self) {
        self.readers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Counts a write in; false (and not counted) while a clear is at work.
    pub(crate) fn pin_writer(&self) -> bool {
        self.writers
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                (n & EXCLUSIVE == 0).then(|| n + 1)
            })
            .is_ok()
    }

    /// Counts a write out; true if a clear waits for this.
    pub(crate) fn unpin_writer(&self) -> bool {
        self.writers.fetch_sub(1, Ordering::SeqCst) == EXCLUSIVE | 1
    }

    pub(crate) fn writers(&self) -> u32 {
        self.writers.load(Ordering::SeqCst) & !EXCLUSIVE
    }

    pub(crate) fn set_exclusive(&self, on: bool) {
        if on {
            self.writers.fetch_or(EXCLUSIVE, Ordering::SeqCst);
        } else {
            self.writers.fetch_and(!EXCLUSIVE, Ordering::SeqCst);
        }
    }

    pub(crate) fn is_pinned(&self) -> bool {
        self.readers.load(Ordering::SeqCst) != 0 || self.writers() != 0
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn low32(value: u64) -> u32 {
    value as u32
}
