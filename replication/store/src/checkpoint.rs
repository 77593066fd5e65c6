//! Checkpoints: catalog and chunk table go to the copy that is not current, in the background,
//! while I/O goes on; then a superblock names that copy, and the journal before it is superfluous.
//!
//! Why it is safe:
//! - The current copy is not touched, nor the journal after it, until the new superblock is
//!   durable. A cut at any moment before leaves the old copy and the whole journal.
//! - The checkpoint is fuzzy: it begins at a journal block `start` below which everything is
//!   applied to memory; pages are copied from memory one after the other, and may have effects of
//!   later records. Records set values and all records from `start` on are replayed, so the result
//!   is the same (see [`crate::apply`]).
//! - What pages say about data that is not durable: nothing. Memory holds durable states only.
//! - Only pages that changed since this copy was last written are written. After a failure all
//!   count as changed.
//! - Nothing here needs journal space, so writers that wait for a full journal always get on.

use std::sync::atomic::Ordering;

use afs_env::{BufferMut, Disk, DiskError};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::chunk::Kind;
use crate::format::{
    BLOCK, CatalogPage, ChunkEntry, ENTRIES_PER_CATALOG_PAGE, ENTRIES_PER_TABLE_PAGE, LabelEntry,
    LayerEntry, ReplicaEntry, Root, SUPERBLOCK_OFFSETS, Superblock, TablePage,
};
use crate::mutant::{Mutant, planted};
use crate::state::{CREATING, Meta, Shared};
use crate::stats::StopReason;
use crate::waiters::Key;

/// Bytes of one write of the table.
pub(crate) const CHECKPOINT_BYTES: usize = 256 << 10;
const PAGES: usize = CHECKPOINT_BYTES / BLOCK;

/// Writes checkpoints. Exactly one per open disk.
pub(crate) struct Checkpointer<'a, D> {
    shared: &'a Shared,
    disk: &'a D,
    buffer: Option<BufferMut>,
}

impl<'a, D: Disk> Checkpointer<'a, D> {
    pub(crate) fn new(shared: &'a Shared, disk: &'a D, buffer: BufferMut) -> Self {
        Self { shared, disk, buffer: Some(buffer) }
    }

    /// Writes a checkpoint whenever one is wanted, and the last one, clean, when the store is
    /// closed.
    pub(crate) async fn run(&mut self) {
        loop {
            let (wanted, closing) = {
                let mut meta = self.shared.meta.lock();
                (std::mem::take(&mut meta.checkpoint_wanted), meta.closing)
            };
            if self.shared.is_stopped() {
                return;
            }
            if closing {
                return self.close().await;
            }
            if wanted {
                self.shared.forget_generations().await;
                self.retrying(false).await;
                continue;
            }
            self.shared.checkpoint_kick.notified().await;
        }
    }

    async fn close(&mut self) {
        let idle = self.shared.wait(|meta| {
            let staging = &meta.staging;
            match staging.durable() == staging.next() {
                true if meta.in_place.is_empty() => Ok(()),
                true => Err(Key::Checkpoint),
                false => Err(Key::Durable(staging.next() - 1)),
            }
        });
        if idle.await.is_ok() && self.retrying(true).await {
            self.shared.stop(StopReason::Closed);
        }
    }

    async fn retrying(&mut self, clean: bool) -> bool {
        while !self.shared.is_stopped() {
            match self.checkpoint(clean).await {
                Ok(()) => return true,
                Err(_) => self.shared.count_failed_write(),
            }
        }
        false
    }

    /// Writes one checkpoint.
    pub(crate) async fn checkpoint(&mut self, clean: bool) -> Result<(), DiskError> {
        let (root, mut pages) = self.begin(clean);
        let result = self.write_all(&root, &mut pages).await;
        let mut meta = self.shared.meta.lock();
        if result.is_err() {
            if let Some(dirty) = meta.dirty.get_mut(root.copy as usize) {
                dirty.fill(u64::MAX);
            }
            return result;
        }
        meta.root = root;
        meta.staging.cut(root.journal_start);
        meta.waiters.wake(|key| matches!(key, Key::JournalRoom | Key::Checkpoint));
        drop(meta);
        self.shared.write_kick.notify_one();
        self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Fixes where replay will start, and which pages go.
    fn begin(&self, clean: bool) -> (Root, Vec<u64>) {
        let mut meta = self.shared.meta.lock();
        let durable = meta.staging.durable();
        let start = meta.in_place.iter().copied().min().unwrap_or(durable).min(durable);
        let copy = if planted(Mutant::CheckpointInPlace) {
            meta.root.copy
        } else {
            1 - meta.root.copy.min(1)
        };
        let root = Root {
            revision: meta.root.revision + 1,
            checkpoint: meta.root.checkpoint + 1,
            journal_start: start,
            next_layer: meta.next_layer,
            incarnation: meta.root.incarnation,
            copy,
            clean,
        };
        if planted(Mutant::CutEarly) {
            meta.staging.cut(start);
        }
        let pages = meta.dirty.get_mut(copy as usize).map(|dirty| {
            let clean = vec![0; dirty.len()];
            std::mem::replace(dirty, clean)
        });
        (root, pages.unwrap_or_default())
    }

    async fn write_all(&mut self, root: &Root, pages: &mut [u64]) -> Result<(), DiskError> {
        self.write_table(root, pages).await?;
        let next_layer = self.write_catalog(root).await?;
        self.disk.sync().await?;
        let root = Root { next_layer, ..*root };
        write_superblock(self.shared, self.disk, &root, &mut self.buffer).await
    }

    async fn write_table(&mut self, root: &Root, pages: &[u64]) -> Result<(), DiskError> {
        let count = self.shared.geometry.table_pages as usize;
        let is_dirty =
            |page: usize| pages.get(page / 64).is_some_and(|w| w >> (page % 64) & 1 == 1);
        let base = self.shared.geometry.table_offset.get(root.copy as usize).copied();
        let base = base.ok_or(DiskError::OutOfRange)?;
        let mut page = 0;
        while page < count {
            if !is_dirty(page) {
                page += 1;
                continue;
            }
            let run = (page..count.min(page + PAGES)).take_while(|p| is_dirty(*p)).count();
            let mut buffer = self.take_buffer(run)?;
            self.copy_pages(&mut buffer, page, root);
            self.write(base + (page * BLOCK) as u64, buffer, run).await?;
            self.shared.counters.checkpoint_pages.fetch_add(run as u64, Ordering::Relaxed);
            page += run;
        }
        Ok(())
    }

    fn copy_pages(&self, buffer: &mut BufferMut, first: usize, root: &Root) {
        let meta = self.shared.meta.lock();
        for (number, bytes) in (first..).zip(buffer.chunks_exact_mut(BLOCK)) {
            let Ok(page) = TablePage::mut_from_bytes(bytes) else { return };
            page.zero();
            let number = low32(number as u64);
            for (chunk, entry) in (number * ENTRIES_PER_TABLE_PAGE..).zip(&mut page.entries) {
                if let Some(filled) = self.shared.entry(&meta, chunk) {
                    *entry = filled;
                }
            }
            page.seal(self.shared.geometry.seed, number, low32(root.checkpoint));
        }
    }

    async fn write_catalog(&mut self, root: &Root) -> Result<u64, DiskError> {
        let geometry = &self.shared.geometry;
        let (layer_pages, replica_pages) = (geometry.layer_pages, geometry.replica_pages);
        let first_replica = layer_pages as usize;
        let first_label = first_replica + replica_pages as usize;
        let pages = first_label + replica_pages as usize;
        let base = geometry.catalog_offset.get(root.copy as usize).copied();
        let base = base.ok_or(DiskError::OutOfRange)?;
        let catalog = catalog_entries(self.shared);
        let empty = [[0; 64]; 0];
        let mut done = 0;
        while done < pages {
            let run = (pages - done).min(PAGES);
            let mut buffer = self.take_buffer(run)?;
            for (number, bytes) in (done..).zip(buffer.chunks_exact_mut(BLOCK)) {
                let (entries, at) = if number < first_replica {
                    (&catalog.layers, number)
                } else if number < first_label {
                    (&catalog.replicas, number - first_replica)
                } else {
                    (&catalog.labels, number - first_label)
                };
                let mut page = CatalogPage::new_zeroed();
                let per_page = ENTRIES_PER_CATALOG_PAGE as usize;
                let own = entries.chunks(per_page).nth(at).unwrap_or(&empty);
                for (to, from) in page.entries.iter_mut().zip(own) {
                    *to = *from;
                }
                page.seal(self.shared.geometry.seed, low32(number as u64), low32(root.checkpoint));
                bytes.copy_from_slice(page.as_bytes());
            }
            self.write(base + (done * BLOCK) as u64, buffer, run).await?;
            done += run;
        }
        Ok(catalog.next_layer)
    }

    fn take_buffer(&mut self, pages: usize) -> Result<BufferMut, DiskError> {
        let mut buffer = self.buffer.take().ok_or(DiskError::Gone)?;
        buffer.set_len((pages * BLOCK).min(buffer.capacity()));
        Ok(buffer)
    }

    async fn write(
        &mut self,
        offset: u64,
        buffer: BufferMut,
        pages: usize,
    ) -> Result<(), DiskError> {
        let data = buffer.freeze();
        let result = self.disk.write(offset, data.slice(0..pages * BLOCK)).await;
        self.buffer = data.try_into_mut().ok();
        result
    }
}

/// One checkpoint with no background task, for recovery.
pub(crate) async fn checkpoint_now<D: Disk>(
    disk: &D,
    shared: &Shared,
    spare: &mut Option<BufferMut>,
) -> Result<(), DiskError> {
    let buffer = spare.take().ok_or(DiskError::Gone)?;
    let mut checkpointer = Checkpointer::new(shared, disk, buffer);
    let result = checkpointer.checkpoint(false).await;
    *spare = checkpointer.buffer;
    result
}

/// Writes a superblock into the place that does not hold the newest one.
pub(crate) async fn write_superblock<D: Disk>(
    shared: &Shared,
    disk: &D,
    root: &Root,
    spare: &mut Option<BufferMut>,
) -> Result<(), DiskError> {
    let mut buffer = spare.take().ok_or(DiskError::Gone)?;
    buffer.set_len(BLOCK);
    buffer.copy_from_slice(Superblock::new(&shared.geometry, root).as_bytes());
    let data = buffer.freeze();
    let place = usize::from(root.revision % 2 == 1);
    let offset = SUPERBLOCK_OFFSETS.get(place).copied().unwrap_or_default();
    let result = disk.write_durable(offset, data.slice(0..BLOCK)).await;
    *spare = data.try_into_mut().ok();
    result
}

impl Shared {
    /// What the table says about a chunk; `None` if it is free, or not durably anybody's.
    fn entry(&self, meta: &Meta, chunk: u32) -> Option<ChunkEntry> {
        let slot = self.chunk(chunk)?;
        if !matches!(slot.kind(), Kind::Owned | Kind::Freeing) {
            return None;
        }
        let layer = meta.layers.get(slot.slot() as usize)?.as_ref()?;
        let generation = meta.generations.get(slot.generation());
        Some(ChunkEntry {
            layer: layer.id.0.into(),
            index: slot.index().into(),
            reserved: 0.into(),
            epoch: generation.epoch.into(),
            number: generation.number.into(),
            data: slot.data().into(),
            zero: slot.zero().into(),
        })
    }
}

type Entries = Vec<[u8; 64]>;

/// The catalog as it is in memory, of one moment; replica n has label n.
struct Catalog {
    layers: Entries,
    replicas: Entries,
    labels: Entries,
    next_layer: u64,
}

fn catalog_entries(shared: &Shared) -> Catalog {
    let meta = shared.meta.lock();
    // A layer whose deletion is staged but not durable is still there; one that is being made is
    // not yet.
    let there = meta.layers.iter().flatten().filter(|layer| layer.state() != CREATING);
    let mut catalog = Catalog {
        layers: Vec::new(),
        replicas: Vec::new(),
        labels: Vec::new(),
        next_layer: meta.next_layer,
    };
    for layer in there {
        let blocks = layer.durable_blocks.load(Ordering::Acquire).into();
        catalog.layers.push(bytes_of(&LayerEntry {
            id: layer.id.0.into(),
            parent: layer.parent.into(),
            blocks,
            references: 1.into(),
            flags: 0.into(),
            reserved: [0; 32],
        }));
        catalog.replicas.push(bytes_of(&ReplicaEntry {
            id: layer.replica.0,
            layer: layer.id.0.into(),
            blocks,
            reserved: [0; 32],
        }));
        let mut label = LabelEntry::from(*layer.label.lock());
        if planted(Mutant::CheckpointWithoutLabels) {
            label = LabelEntry::default();
        }
        catalog.labels.push(bytes_of(&label));
    }
    catalog
}

fn bytes_of(entry: &(impl IntoBytes + Immutable)) -> [u8; 64] {
    <[u8; 64]>::read_from_bytes(entry.as_bytes()).unwrap_or([0; 64])
}

#[allow(clippy::cast_possible_truncation, reason = "pages carry the low half; counts are 32 bits")]
fn low32(value: u64) -> u32 {
    value as u32
}
