//! Reads a disk into memory: catalog, chunk table, journal, and the data of the last first writes.
//! Writes nothing, so [`crate::check()`] uses it too; [`crate::recover`] writes what is to be set
//! right.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

use afs_env::{BufferMut, Disk};
use zerocopy::FromBytes;

use crate::apply::{When, layer_or_unknown, replace_layer};
use crate::chunk::{ChunkSlot, Kind};
use crate::error::{Damage, OpenError};
use crate::format::{
    BLOCK, CatalogPage, ENTRIES_PER_CATALOG_PAGE, ENTRIES_PER_TABLE_PAGE, LabelEntry, LayerEntry,
    MAX_LAYER_CHUNKS, ReplicaEntry, Root, TablePage, block_crc,
};
use crate::generations::Generations;
use crate::ids::{Generation, LayerId, ReplicaId};
use crate::journal::record::{Place, Record};
use crate::journal::scan::{End, Replayed, Scan};
use crate::journal::staging::Staging;
use crate::map::NONE;
use crate::mutant::{Mutant, planted};
use crate::open::{Head, OnProgress, Phase, Progress};
use crate::state::{LIVE, Meta, Shared};
use crate::waiters::Waiters;

const READ_BYTES: usize = 1 << 20;

/// A disk's state in memory, and what recovery must still write.
pub(crate) struct Loaded {
    pub shared: Shared,
    pub end: End,
    pub refused: Vec<Refused>,
    pub payloads: HashMap<(u32, u32), u64>,
}

/// Blocks of one chunk whose first write did not reach the disk.
pub(crate) struct Refused {
    pub place: Place,
    pub generation: Generation,
    pub mask: u64,
    /// Nothing is left in the chunk.
    pub free: bool,
}

/// Reads everything. Writes nothing: `check` uses it too.
pub(crate) async fn load<D: Disk>(
    disk: &D,
    head: &Head,
    progress: OnProgress<'_>,
) -> Result<Loaded, OpenError> {
    let Head { geometry, root, both } = head;
    let chunks: Box<[ChunkSlot]> = (0..geometry.chunks).map(|_| ChunkSlot::default()).collect();
    let words = geometry.table_pages.div_ceil(64) as usize;
    let mut dirty = [vec![u64::MAX; words], vec![u64::MAX; words]];
    if let (true, Some(current)) = (root.checkpoint > 0, dirty.get_mut(root.copy as usize)) {
        current.fill(0);
    }
    let start = root.journal_start;
    let meta = Meta {
        staging: Staging::new(geometry.seed, geometry.journal_blocks, start, start, 0),
        waiters: Waiters::default(),
        busy: HashMap::with_capacity(1024),
        layers: Vec::new(),
        slots: HashMap::new(),
        replicas: HashMap::new(),
        generations: Generations::new(),
        root: *root,
        next_layer: root.next_layer,
        free_head: NONE,
        free: 0,
        draining: 0,
        dirty,
        in_place: Vec::new(),
        failed_writes: 0,
        closing: false,
        checkpoint_wanted: false,
    };
    let clean = root.clean && *both;
    let tears = (disk.block_size() as usize) < BLOCK;
    let shared = Shared::new(*geometry, chunks, meta, tears, root.clean);
    let mut loader = Loader {
        shared: &shared,
        disk,
        unverified: VecDeque::new(),
        payloads: HashMap::new(),
        progress,
    };
    if root.checkpoint > 0 {
        loader.read_catalog(root).await?;
        loader.read_table(root).await?;
    }
    let mut end = End { next: start, barrier: start, previous: 0, tail: Vec::new() };
    if !clean {
        end = loader.read_journal(start).await?;
    }
    let refused = loader.verify(end.barrier).await?;
    let payloads = std::mem::take(&mut loader.payloads);
    shared.finish()?;
    Ok(Loaded { shared, end, refused, payloads })
}

/// A first write that no barrier covers yet.
struct Unverified {
    sequence: u64,
    place: Place,
    generation: Generation,
    mask: u64,
    checksums: Vec<u32>,
}

struct Loader<'a, D> {
    shared: &'a Shared,
    disk: &'a D,
    unverified: VecDeque<Unverified>,
    /// (chunk, block) → journal block with its last journalled overwrite.
    payloads: HashMap<(u32, u32), u64>,
    progress: OnProgress<'a>,
}

impl<D: Disk> Loader<'_, D> {
    /// Reads a range in large reads and shows it block by block.
    async fn read_blocks(
        &mut self,
        phase: Phase,
        offset: u64,
        blocks: u64,
        mut each: impl FnMut(&mut Self, u64, &[u8]) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let block = BLOCK as u64;
        let mut done = 0;
        let mut spare = None;
        while done < blocks {
            let count = (blocks - done).min((READ_BYTES / BLOCK) as u64);
            let bytes = usize::try_from(count * block).unwrap_or(BLOCK);
            let mut buffer: BufferMut = match spare.take() {
                Some(buffer) => buffer,
                None => self.disk.pool().try_alloc(READ_BYTES).ok_or(OpenError::NoMemory)?,
            };
            buffer.set_len(bytes);
            let (buffer, result) = self.disk.read(offset + done * block, buffer).await;
            result?;
            for (number, bytes) in (done..).zip(buffer.chunks_exact(BLOCK)) {
                each(self, number, bytes)?;
            }
            done += count;
            spare = Some(buffer);
            (self.progress)(Progress { phase, done: done * block, total: blocks * block });
        }
        Ok(())
    }

    async fn read_table(&mut self, root: &Root) -> Result<(), OpenError> {
        let geometry = self.shared.geometry;
        let offset = geometry.table_offset.get(root.copy as usize).copied().unwrap_or_default();
        let (copy, newest) = (root.copy, root.checkpoint);
        let pages = u64::from(geometry.table_pages);
        self.read_blocks(Phase::Table, offset, pages, |this, number, bytes| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let page = TablePage::ref_from_bytes(bytes).ok();
            let page = page
                .filter(|page| page.is_whole(geometry.seed, number, newest))
                .ok_or(Damage::Table { copy, page: number })?;
            Ok(this.take_table_page(number, page)?)
        })
        .await
    }

    fn take_table_page(&mut self, number: u32, page: &TablePage) -> Result<(), Damage> {
        let mut meta = self.shared.meta.lock();
        let full = self.shared.geometry.full_mask();
        // Neighbours mostly share owner and generation.
        let mut last_layer = (0, 0);
        let mut last_generation = (Generation::default(), 0);
        for (chunk, entry) in (number * ENTRIES_PER_TABLE_PAGE..).zip(&page.entries) {
            let layer = entry.layer.get();
            if layer == 0 {
                continue;
            }
            let slot = self.shared.chunk(chunk);
            let slot = slot.ok_or(Damage::Chunk { chunk, what: "lies beyond the disk" })?;
            let (data, zero) = (entry.data.get(), entry.zero.get());
            if (data | zero) & !full != 0 || data & zero != 0 {
                return Err(Damage::Chunk { chunk, what: "has impossible block states" });
            }
            if last_layer.0 != layer {
                last_layer = (layer, layer_or_unknown(&mut meta, LayerId(layer)).slot);
            }
            let generation = Generation { epoch: entry.epoch.get(), number: entry.number.get() };
            if last_generation.0 != generation {
                last_generation = (generation, meta.generations.number(generation));
            }
            slot.set_states(data, zero);
            slot.set_index(entry.index.get());
            slot.set_generation(last_generation.1);
            slot.set_owner(Kind::Owned, last_layer.1);
        }
        Ok(())
    }

    async fn read_catalog(&mut self, root: &Root) -> Result<(), OpenError> {
        let geometry = self.shared.geometry;
        let offset = geometry.catalog_offset.get(root.copy as usize).copied().unwrap_or_default();
        let (copy, revision) = (root.copy, root.checkpoint);
        let replica_pages = u64::from(geometry.replica_pages);
        let first_replica = u64::from(geometry.layer_pages);
        let first_label = first_replica + replica_pages;
        let pages = first_label + replica_pages;
        let mut layers = Vec::new();
        let mut replicas = Vec::new();
        let mut labels = Vec::new();
        self.read_blocks(Phase::Table, offset, pages, |_, number, bytes| {
            let page_number = u32::try_from(number).unwrap_or(u32::MAX);
            let page = CatalogPage::ref_from_bytes(bytes).ok();
            let page = page
                .filter(|page| page.is_whole(geometry.seed, page_number, revision))
                .ok_or(Damage::Catalog { copy, page: page_number })?;
            for entry in page.entries.iter().take(ENTRIES_PER_CATALOG_PAGE as usize) {
                if number < first_replica {
                    layers.extend(LayerEntry::read_from_bytes(entry).ok());
                } else if number < first_label {
                    replicas.extend(ReplicaEntry::read_from_bytes(entry).ok());
                } else {
                    labels.extend(LabelEntry::read_from_bytes(entry).ok());
                }
            }
            Ok(())
        })
        .await?;
        layers.retain(|entry: &LayerEntry| entry.id.get() != 0);
        let mut replicas: Vec<(ReplicaEntry, LabelEntry)> =
            replicas.into_iter().zip(labels).collect();
        replicas.retain(|(entry, _)| entry.id != [0; 16]);
        Ok(self.take_catalog(root, &layers, &replicas)?)
    }

    fn take_catalog(
        &self,
        root: &Root,
        layers: &[LayerEntry],
        replicas: &[(ReplicaEntry, LabelEntry)],
    ) -> Result<(), Damage> {
        let mut meta = self.shared.meta.lock();
        for entry in layers {
            let layer = entry.id.get();
            let bad = |what| Damage::Layer { layer, what };
            let mut owners = replicas.iter().filter(|(replica, _)| replica.layer.get() == layer);
            let (owner, label) = owners.next().ok_or(bad("belongs to no replica"))?;
            if owners.next().is_some() || entry.references.get() != 1 {
                return Err(bad("has a wrong reference count"));
            }
            if entry.parent.get() != 0 || entry.flags.get() != 0 {
                return Err(bad("needs a newer version of this program"));
            }
            if owner.blocks.get() != entry.blocks.get() {
                return Err(bad("and its replica differ in size"));
            }
            if layer >= root.next_layer || meta.slots.contains_key(&layer) {
                return Err(bad("has an id that must not be"));
            }
            let (id, blocks) = (ReplicaId(owner.id), entry.blocks.get());
            if meta.replicas.contains_key(&id) {
                return Err(bad("belongs to a replica that has another one"));
            }
            let made = replace_layer(&mut meta, id, LayerId(layer), 0, blocks);
            *made.label.lock() = (*label).into();
        }
        if replicas.len() != layers.len() {
            return Err(Damage::Layer { layer: 0, what: "a replica has no layer" });
        }
        Ok(())
    }

    async fn read_journal(&mut self, start: u64) -> Result<End, OpenError> {
        let geometry = self.shared.geometry;
        let mut scan = Scan::new(geometry.seed, start, !self.shared.tears);
        let first = start % geometry.journal_blocks;
        // Once round the ring, beginning where replay does.
        let parts = [(first, geometry.journal_blocks - first), (0, first)];
        for (from, blocks) in parts {
            let offset = geometry.journal_offset + from * BLOCK as u64;
            self.read_blocks(Phase::Journal, offset, blocks, |this, _, bytes| {
                match scan.feed(bytes)? {
                    Some(block) => Ok(this.replay(&block)?),
                    None => Ok(()),
                }
            })
            .await?;
        }
        Ok(scan.finish()?)
    }

    fn replay(&mut self, block: &Replayed) -> Result<(), Damage> {
        let sequence = block.sequence;
        while self.unverified.front().is_some_and(|u| u.sequence < block.durable) {
            self.unverified.pop_front();
        }
        let mut meta = self.shared.meta.lock();
        let mut rest = block.records.as_slice();
        while !rest.is_empty() {
            let (record, after) = Record::parse(rest).ok_or(Damage::Record { sequence })?;
            self.shared.apply(&mut meta, sequence, &record, When::Replay)?;
            remember(&mut self.unverified, &mut self.payloads, sequence, &record);
            rest = after;
        }
        Ok(())
    }

    /// Compares the data of first writes that no barrier covers, and takes back what is not there.
    async fn verify(&mut self, barrier: u64) -> Result<Vec<Refused>, OpenError> {
        let mut refused = Vec::new();
        let total = self.unverified.len() as u64;
        let mut done = 0;
        while let Some(write) = self.unverified.pop_front() {
            done += 1;
            if write.sequence < barrier || planted(Mutant::IgnoreChecksums) {
                continue;
            }
            let mask = self.bad_blocks(&write).await?;
            if mask != 0 {
                let Unverified { place, generation, .. } = write;
                let meta = &mut self.shared.meta.lock();
                let record = Record::Clear { place, generation, mask, to_zero: false, free: false };
                self.shared.apply(meta, write.sequence, &record, When::Replay)?;
                refused.push(Refused { place, generation, mask, free: false });
            }
            (self.progress)(Progress { phase: Phase::Data, done, total });
        }
        self.free_empty(&mut refused);
        Ok(refused)
    }

    /// A chunk that was taken for a refused write, and holds nothing else, goes back.
    fn free_empty(&self, refused: &mut [Refused]) {
        let mut meta = self.shared.meta.lock();
        for entry in refused.iter_mut().rev() {
            let Some(slot) = self.shared.chunk(entry.place.chunk) else { continue };
            if slot.kind() == Kind::Owned && slot.data() | slot.zero() == 0 {
                slot.set_owner(Kind::Free, 0);
                slot.set_generation(0);
                meta.mark_dirty(entry.place.chunk);
                entry.free = true;
            }
        }
    }

    /// The blocks of a first write whose data is not what its record says.
    async fn bad_blocks(&self, write: &Unverified) -> Result<u64, OpenError> {
        let span = 64 - write.mask.leading_zeros();
        let first = write.mask.trailing_zeros();
        let bytes = (span - first) as usize * BLOCK;
        let buffer = self.disk.pool().try_alloc(bytes).ok_or(OpenError::NoMemory)?;
        let offset = self.shared.geometry.chunk_offset(write.place.chunk);
        let offset = offset + u64::from(first) * BLOCK as u64;
        let (buffer, result) = self.disk.read(offset, buffer).await;
        result?;
        let mut sums = write.checksums.iter();
        let mut bad = 0;
        for (number, block) in (first..).zip(buffer.chunks_exact(BLOCK)) {
            if write.mask >> number & 1 == 1 && sums.next() != Some(&block_crc(block)) {
                bad |= 1 << number;
            }
        }
        Ok(bad)
    }
}

fn remember(
    unverified: &mut VecDeque<Unverified>,
    payloads: &mut HashMap<(u32, u32), u64>,
    sequence: u64,
    record: &Record<'_>,
) {
    match *record {
        Record::Write { place, generation, mask, checksums } => {
            forget(payloads, place.chunk, mask);
            let checksums = checksums.iter().map(|sum| sum.get()).collect();
            unverified.push_back(Unverified { sequence, place, generation, mask, checksums });
        }
        Record::Clear { place, mask, free, .. } => {
            forget(payloads, place.chunk, if free { u64::MAX } else { mask });
        }
        Record::Overwrite { place, mask, .. } => {
            for (at, block) in (sequence + 1..).zip(blocks_of(mask)) {
                payloads.insert((place.chunk, block), at);
            }
        }
        _ => {}
    }
}

fn forget(payloads: &mut HashMap<(u32, u32), u64>, chunk: u32, mask: u64) {
    if !payloads.is_empty() {
        for block in blocks_of(mask) {
            payloads.remove(&(chunk, block));
        }
    }
}

fn blocks_of(mask: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |block| mask >> block & 1 == 1)
}

impl Shared {
    /// The table is complete: builds the maps and the free list, and looks for contradictions.
    fn finish(&self) -> Result<(), Damage> {
        let mut meta = self.meta.lock();
        let per_chunk = u64::from(self.geometry.chunk_blocks());
        let mut last_stamp = (NONE, 0);
        for (chunk, slot) in (0..self.geometry.chunks).zip(&self.chunks).rev() {
            if slot.kind() == Kind::Free {
                self.push_free(&mut meta, chunk);
                continue;
            }
            let bad = |what| Damage::Chunk { chunk, what };
            let layer = meta.layers.get(slot.slot() as usize).and_then(Option::as_ref);
            let layer = layer.filter(|layer| layer.state() == LIVE);
            let layer = layer.ok_or(bad("belongs to a layer that does not exist"))?;
            let blocks = layer.blocks.load(Ordering::Relaxed);
            if u64::from(slot.index()) >= blocks.div_ceil(per_chunk).min(MAX_LAYER_CHUNKS) {
                return Err(bad("lies beyond the end of its layer"));
            }
            if layer.map.set(slot.index(), chunk) != NONE {
                return Err(bad("holds the same part of a layer as another chunk"));
            }
            layer.allocated.fetch_add(1, Ordering::Relaxed);
            let stamp = slot.generation();
            if last_stamp != (slot.slot(), stamp) {
                last_stamp = (slot.slot(), stamp);
                layer.generation.raise(meta.generations.get(stamp), stamp);
            }
        }
        let gone: Vec<_> =
            meta.layers.iter().flatten().filter(|l| l.state() != LIVE).cloned().collect();
        for layer in gone {
            meta.slots.remove(&layer.id.0);
            if let Some(place) = meta.layers.get_mut(layer.slot as usize) {
                *place = None;
            }
        }
        Ok(())
    }
}
