//! The invariants of [`crate::state`], [`crate::chunk`] and [`crate::generations`], as one function.

use std::sync::atomic::Ordering;

use crate::chunk::Kind;
use crate::map::NONE;
use crate::state::{Meta, Shared};

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    holds.then_some(()).ok_or_else(what)
}

impl Shared {
    /// What is under way, for tests that hang.
    pub(crate) fn describe(&self) -> String {
        let meta = self.meta.lock();
        let mut busy: Vec<_> = meta.busy.iter().collect();
        busy.sort_by_key(|(chunk, _)| **chunk);
        format!(
            "{:?}; free {}, draining {}; busy {busy:?}; waiting {:?}",
            meta.staging,
            meta.free,
            meta.draining,
            meta.waiters.keys()
        )
    }

    pub(crate) fn check_invariants(&self) -> Result<(), String> {
        let meta = self.meta.lock();
        self.check_free_list(&meta)?;
        self.check_chunks(&meta)?;
        self.check_generations(&meta)?;
        for (chunk, busy) in &meta.busy {
            ensure(busy.writing & busy.clearing == 0, || {
                format!("chunk {chunk}: written and cleared")
            })?;
            ensure(busy.recorded & !busy.clearing == 0, || {
                format!("chunk {chunk}: recorded only")
            })?;
            ensure(!busy.is_idle(), || format!("chunk {chunk}: idle entry"))?;
        }
        meta.staging.check()
    }

    fn check_free_list(&self, meta: &Meta) -> Result<(), String> {
        let (mut at, mut count) = (meta.free_head, 0);
        while at != NONE && count <= self.geometry.chunks {
            let slot = self.chunk(at).ok_or("the free list leaves the disk")?;
            ensure(slot.kind() == Kind::Free, || format!("chunk {at} on the free list is used"))?;
            ensure(slot.data() | slot.zero() == 0, || format!("free chunk {at} has states"))?;
            at = slot.index();
            count += 1;
        }
        ensure(count == meta.free, || format!("{count} free chunks, counted {}", meta.free))
    }

    fn check_chunks(&self, meta: &Meta) -> Result<(), String> {
        let (mut free, mut draining, mut mapped) = (0, 0, 0_u32);
        let full = self.geometry.full_mask();
        for (chunk, slot) in (0..self.geometry.chunks).zip(&self.chunks) {
            let (data, zero) = (slot.data(), slot.zero());
            ensure(data & zero == 0 && (data | zero) & !full == 0, || {
                format!("chunk {chunk}: states {data:x} {zero:x}")
            })?;
            match slot.kind() {
                Kind::Free => free += 1,
                Kind::Draining => draining += 1,
                Kind::Reserved | Kind::Owned | Kind::Freeing => {
                    let layer = meta.layers.get(slot.slot() as usize).and_then(Option::as_ref);
                    let layer = layer.ok_or(format!("chunk {chunk} has no layer"))?;
                    let there = layer.map.get(slot.index()) == chunk;
                    ensure(there, || format!("chunk {chunk} is not on its layer's map"))?;
                    mapped += 1;
                }
            }
        }
        let allocated = meta.layers.iter().flatten();
        let allocated: u32 = allocated.map(|l| l.allocated.load(Ordering::Relaxed)).sum();
        ensure(free == meta.free, || format!("{free} chunks are free, counted {}", meta.free))?;
        ensure(draining == meta.draining, || "draining chunks miscounted".into())?;
        ensure(mapped == allocated, || format!("{mapped} chunks mapped, counted {allocated}"))
    }
}
