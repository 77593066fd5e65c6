//! What all reactors share of one open disk: the chunk array, read with no lock, and everything
//! else under one lock that is never held over an await.
//!
//! Invariants (checked by [`Shared::check_invariants`]):
//! - those of [`crate::chunk`], of [`crate::generations`] and of [`crate::journal::staging`];
//! - a `Busy` entry exists exactly for chunks with a first write or a clear under way; its masks of
//!   first writes and of clears have no common bit;
//! - states change when the record is durable, in the journal's order, in [`crate::apply`] and
//!   nowhere else;
//! - `free` counts the free list, `allocated` of a layer counts its mapped chunks.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::Poll;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::chunk::{ChunkSlot, Kind};
use crate::error::StoreError;
use crate::format::{ENTRIES_PER_TABLE_PAGE, Geometry, Root};
use crate::generations::{Current, Generations};
use crate::ids::{LayerId, ReplicaId};
use crate::journal::record::{Place, Record};
use crate::journal::staging::Staging;
use crate::label::Label;
use crate::map::{LayerMap, NONE};
use crate::stats::{Counters, StopReason};
use crate::waiters::{Key, Waiters};

/// A layer is being made: its record is not durable yet.
pub(crate) const CREATING: u8 = 0;
/// A layer can be used.
pub(crate) const LIVE: u8 = 1;
/// A layer's end is in the journal.
pub(crate) const DELETED: u8 = 2;

/// One layer. Today each replica has exactly one.
pub(crate) struct Layer {
    pub id: LayerId,
    pub slot: u32,
    pub parent: u64,
    pub replica: ReplicaId,
    pub map: LayerMap,
    /// Size that I/O is checked against.
    pub blocks: AtomicU64,
    /// Size that is durable: what a checkpoint writes.
    pub durable_blocks: AtomicU64,
    /// Mapped chunks.
    pub allocated: AtomicU32,
    /// The generation that writes belong to.
    pub generation: Current,
    /// The replica's label, as it is durable.
    pub label: Mutex<Label>,
    pub state: AtomicU8,
}

impl Layer {
    pub(crate) fn new(
        id: LayerId,
        slot: u32,
        parent: u64,
        replica: ReplicaId,
        blocks: u64,
        state: u8,
    ) -> Self {
        Self {
            id,
            slot,
            parent,
            replica,
            map: LayerMap::new(),
            blocks: blocks.into(),
            durable_blocks: blocks.into(),
            allocated: 0.into(),
            generation: Current::default(),
            label: Mutex::default(),
            state: state.into(),
        }
    }

    pub(crate) fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }
}

/// What is under way in one chunk.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// Blocks with a first write (or a journalled overwrite) under way.
    pub writing: u64,
    /// Blocks with a clear under way, from the moment that it keeps others out.
    pub clearing: u64,
    /// The part of `clearing` whose record is in the journal.
    pub recorded: u64,
    /// Blocks whose first write failed: its record must not make them data.
    pub failed: u64,
    /// Clears that keep writes out of the chunk.
    pub exclusive: u32,
    /// Block and generation of a stamp under way.
    pub stamp: Option<(u64, u32)>,
}

impl Busy {
    pub(crate) fn is_idle(&self) -> bool {
        self.writing | self.clearing == 0 && self.exclusive == 0 && self.stamp.is_none()
    }
}

/// Everything under the lock.
pub(crate) struct Meta {
    pub staging: Staging,
    pub waiters: Waiters,
    pub busy: HashMap<u32, Busy>,
    pub layers: Vec<Option<Arc<Layer>>>,
    pub slots: HashMap<u64, u32>,
    pub replicas: HashMap<ReplicaId, Arc<Layer>>,
    pub generations: Generations,
    pub root: Root,
    pub next_layer: u64,
    /// First chunk of the free list, or [`NONE`].
    pub free_head: u32,
    pub free: u32,
    pub draining: u32,
    /// Table pages that differ from what copy 0 / copy 1 holds on disk, one bit each.
    pub dirty: [Vec<u64>; 2],
    /// In-place writes of journalled overwrites that are not done: the journal must not be cut past
    /// them.
    pub in_place: Vec<u64>,
    pub failed_writes: u32,
    pub closing: bool,
    pub checkpoint_wanted: bool,
}

/// One open disk, shared by all reactors.
pub(crate) struct Shared {
    pub geometry: Geometry,
    pub chunks: Box<[ChunkSlot]>,
    pub meta: Mutex<Meta>,
    /// The highest `durable` that a durable block announces.
    pub barrier: AtomicU64,
    stopped: AtomicU8,
    /// The journal writer has something to write.
    pub write_kick: Notify,
    /// The journal's sync loop may have something to sync.
    pub sync_kick: Notify,
    pub checkpoint_kick: Notify,
    /// One creation, resize or deletion of a replica at a time.
    pub manage: tokio::sync::Mutex<()>,
    pub counters: Counters,
    /// The disk cannot write 4096 bytes at once.
    pub tears: bool,
    pub was_clean: bool,
}

impl Shared {
    pub(crate) fn new(
        geometry: Geometry,
        chunks: Box<[ChunkSlot]>,
        meta: Meta,
        tears: bool,
        was_clean: bool,
    ) -> Self {
        Self {
            geometry,
            chunks,
            meta: Mutex::new(meta),
            barrier: 0.into(),
            stopped: 0.into(),
            write_kick: Notify::new(),
            sync_kick: Notify::new(),
            checkpoint_kick: Notify::new(),
            manage: tokio::sync::Mutex::new(()),
            counters: Counters::default(),
            tears,
            was_clean,
        }
    }

    pub(crate) fn chunk(&self, chunk: u32) -> Option<&ChunkSlot> {
        self.chunks.get(chunk as usize)
    }

    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        StopReason::from_code(self.stopped.load(Ordering::Acquire))
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) != 0
    }

    /// Stops the disk: nothing is acknowledged from now on. The first reason stays.
    pub(crate) fn stop(&self, reason: StopReason) {
        let code = reason.code();
        let first =
            self.stopped.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first && reason != StopReason::Closed {
            tracing::error!(disk = %self.geometry.disk_id, %reason, "disk stopped");
        }
        self.meta.lock().waiters.wake(|_| true);
        self.write_kick.notify_one();
        self.sync_kick.notify_one();
        self.checkpoint_kick.notify_one();
    }

    /// Counts a failed write; the second one stops the disk.
    pub(crate) fn count_failed_write(&self) {
        let failed = {
            let mut meta = self.meta.lock();
            meta.failed_writes += 1;
            meta.failed_writes
        };
        if failed >= 2 {
            self.stop(StopReason::WritesFailed);
        }
    }

    /// Tries until `attempt` gives something; a failed attempt says what to wait for. A stopped
    /// disk ends the wait.
    pub(crate) async fn wait<T>(
        &self,
        mut attempt: impl FnMut(&mut Meta) -> Result<T, Key>,
    ) -> Result<T, StoreError> {
        let mut ticket = Ticket { shared: self, slot: None };
        poll_fn(|context| {
            let mut meta = self.meta.lock();
            if self.is_stopped() {
                return Poll::Ready(Err(StoreError::Stopped));
            }
            match attempt(&mut meta) {
                Ok(value) => Poll::Ready(Ok(value)),
                Err(key) => {
                    meta.waiters.register(&mut ticket.slot, key, context.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Waits until the journal is durable past `sequence`.
    pub(crate) async fn wait_durable(&self, sequence: u64) -> Result<(), StoreError> {
        self.wait(|meta| match meta.staging.durable() > sequence {
            true => Ok(()),
            false => Err(Key::Durable(sequence)),
        })
        .await
    }

    /// Puts a record in the journal, or says that there is no room (and asks for a checkpoint).
    pub(crate) fn append(
        &self,
        meta: &mut Meta,
        record: &Record<'_>,
        payload: &[u8],
    ) -> Option<u64> {
        let appended = meta.staging.append(record, payload);
        let full = appended.is_none() && meta.staging.needs_cut(payload);
        if (full || meta.staging.wants_checkpoint()) && !meta.checkpoint_wanted {
            meta.checkpoint_wanted = true;
            self.checkpoint_kick.notify_one();
        }
        match appended {
            Some(_) => self.counters.journal_records.fetch_add(1, Ordering::Relaxed),
            None => self.counters.journal_waits.fetch_add(1, Ordering::Relaxed),
        };
        self.write_kick.notify_one();
        appended
    }

    /// Takes a chunk off the free list for a layer.
    pub(crate) fn allocate(&self, meta: &mut Meta, layer: &Layer, index: u32) -> Option<u32> {
        let chunk = meta.free_head;
        let slot = self.chunk(chunk)?;
        meta.free_head = slot.index();
        meta.free -= 1;
        slot.set_states(0, 0);
        slot.set_index(index);
        slot.set_owner(Kind::Reserved, layer.slot);
        layer.map.set(index, chunk);
        layer.allocated.fetch_add(1, Ordering::Relaxed);
        Some(chunk)
    }

    /// Takes a chunk from its layer. It is free at once, or when the last pin on it is gone.
    pub(crate) fn release(&self, meta: &mut Meta, layer: &Layer, chunk: u32) {
        let Some(slot) = self.chunk(chunk) else { return };
        layer.map.set(slot.index(), NONE);
        layer.allocated.fetch_sub(1, Ordering::Relaxed);
        slot.set_states(0, 0);
        slot.set_generation(0);
        slot.set_kind(Kind::Draining);
        meta.draining += 1;
        self.settle(meta, chunk);
    }

    /// Puts a draining chunk on the free list if nothing holds it any more.
    pub(crate) fn settle(&self, meta: &mut Meta, chunk: u32) {
        let Some(slot) = self.chunk(chunk) else { return };
        if slot.kind() == Kind::Draining && !slot.is_pinned() {
            meta.draining -= 1;
            self.push_free(meta, chunk);
            meta.waiters.wake(|key| key == Key::Space);
        }
    }

    /// Puts a chunk on the free list.
    pub(crate) fn push_free(&self, meta: &mut Meta, chunk: u32) {
        if let Some(slot) = self.chunk(chunk) {
            slot.set_owner(Kind::Free, 0);
            slot.set_index(meta.free_head);
            meta.free_head = chunk;
            meta.free += 1;
        }
    }

    /// The mapping of a chunk that has an owner, as records name it.
    pub(crate) fn place(&self, layer: &Layer, chunk: u32, index: u32) -> Place {
        Place { chunk, layer: layer.id, index }
    }
}

impl Meta {
    /// The table page of this chunk must be written to both copies.
    pub(crate) fn mark_dirty(&mut self, chunk: u32) {
        let page = (chunk / ENTRIES_PER_TABLE_PAGE) as usize;
        for copy in &mut self.dirty {
            if let Some(word) = copy.get_mut(page / 64) {
                *word |= 1 << (page % 64);
            }
        }
    }

    pub(crate) fn layer(&self, slot: u32) -> Option<Arc<Layer>> {
        self.layers.get(slot as usize)?.clone()
    }

    /// Drops the chunk's entry if nothing is under way in it.
    pub(crate) fn retire_busy(&mut self, chunk: u32) {
        if self.busy.get(&chunk).is_some_and(Busy::is_idle) {
            self.busy.remove(&chunk);
        }
    }

    /// Puts a layer in a slot.
    pub(crate) fn add_layer(&mut self, make: impl FnOnce(u32) -> Layer) -> Arc<Layer> {
        let free = self.layers.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.layers.push(None);
            self.layers.len() - 1
        });
        let layer = Arc::new(make(u32::try_from(index).unwrap_or(u32::MAX)));
        self.slots.insert(layer.id.0, layer.slot);
        if let Some(place) = self.layers.get_mut(index) {
            *place = Some(layer.clone());
        }
        layer
    }
}

struct Ticket<'a> {
    shared: &'a Shared,
    slot: Option<usize>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.slot.is_some() {
            self.shared.meta.lock().waiters.release(&mut self.slot);
        }
    }
}
