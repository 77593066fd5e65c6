//! One open disk: the handle that its owner keeps on each reactor, and the management of replicas.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use afs_env::{BufferMut, Disk};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::checkpoint::{CHECKPOINT_BYTES, Checkpointer};
use crate::create::{FormatOptions, format};
use crate::error::{FormatError, OpenError, ReplicaError, StoreError};
use crate::format::{MAX_LAYER_CHUNKS, Superblock};
use crate::ids::{LayerId, ReplicaId};
use crate::inspect::DiskInfo;
use crate::journal::record::Record;
use crate::journal::writer::{GROUP_BYTES, GROUPS, Writer};
use crate::open::{Progress, open, read_head};
use crate::replica::Replica;
use crate::state::{CREATING, DELETED, LIVE, Layer, Meta, Shared};
use crate::stats::{ReplicaInfo, StopReason, StoreStats};
use crate::waiters::Key;

/// The identities of the disks that are open in this process: give one to all opens, and a second
/// disk with the same identity is refused.
#[derive(Default)]
pub struct OpenDisks(Mutex<HashSet<Uuid>>);

/// An identity in use.
struct Claim {
    disks: Arc<OpenDisks>,
    id: Uuid,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.disks.0.lock().remove(&self.id);
    }
}

fn claim(disks: Option<Arc<OpenDisks>>, id: Uuid) -> Result<Option<Claim>, OpenError> {
    let Some(disks) = disks else { return Ok(None) };
    if !disks.0.lock().insert(id) {
        return Err(OpenError::DuplicateIdentity(id));
    }
    Ok(Some(Claim { disks, id }))
}

/// How to open a disk.
#[derive(Default)]
pub struct OpenOptions {
    /// Called after each large read.
    pub progress: Option<Box<dyn FnMut(Progress)>>,
    /// Where to look for a disk with the same identity.
    pub identities: Option<Arc<OpenDisks>>,
    /// Believe that the disk writes 4096 bytes whole although it reports a smaller unit (it has a
    /// power-safe cache, say). Otherwise overwrites on such a disk go through the journal, which
    /// writes them twice.
    pub assume_whole_blocks: bool,
}

/// The part of an open disk that any thread may hold: figures, and what another reactor needs to
/// attach.
#[derive(Clone)]
pub struct StoreShared {
    shared: Arc<Shared>,
    claim: Option<Arc<Claim>>,
}

impl StoreShared {
    /// The disk's figures.
    pub fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    /// All replicas.
    pub fn replicas(&self) -> Vec<ReplicaInfo> {
        self.shared.replica_infos()
    }
}

/// What only the home reactor has.
struct Home {
    groups: Vec<BufferMut>,
    checkpoint: BufferMut,
}

/// An open disk, on one reactor.
pub struct Store<D> {
    shared: Arc<Shared>,
    claim: Option<Arc<Claim>>,
    disk: D,
    home: RefCell<Option<Home>>,
}

impl<D: Disk> Store<D> {
    /// See [`format`](crate::format()).
    ///
    /// # Errors
    /// [`FormatError`].
    pub async fn format(disk: &D, options: &FormatOptions) -> Result<DiskInfo, FormatError> {
        format(disk, options).await
    }

    /// Opens a disk on the reactor that will be its home: reads the chunk table, replays the
    /// journal, sets right what a crash left. Then run [`Store::background`] here, before any
    /// write.
    ///
    /// Takes 640 KiB out of the disk's pool for as long as it is open, and 1 MiB more while it
    /// opens.
    ///
    /// # Errors
    /// [`OpenError`]. Unless it is `Disk`, nothing was written.
    pub async fn open(disk: D, options: OpenOptions) -> Result<Self, OpenError> {
        let head = read_head(&disk).await?;
        let claim = claim(options.identities, head.geometry.disk_id)?;
        let pool = disk.pool();
        let mut spare = Some(pool.try_alloc(CHECKPOINT_BYTES).ok_or(OpenError::NoMemory)?);
        let groups: Vec<_> = (0..GROUPS).filter_map(|_| pool.try_alloc(GROUP_BYTES)).collect();
        if groups.len() < GROUPS {
            return Err(OpenError::NoMemory);
        }
        let mut ignore = |_: Progress| {};
        let mut boxed = options.progress;
        let progress: &mut dyn FnMut(Progress) = match &mut boxed {
            Some(progress) => progress,
            None => &mut ignore,
        };
        let mut shared = open(&disk, &head, &mut spare, progress).await?;
        shared.tears &= !options.assume_whole_blocks;
        let shared = Arc::new(shared);
        let checkpoint = spare.ok_or(OpenError::NoMemory)?;
        let home = RefCell::new(Some(Home { groups, checkpoint }));
        Ok(Self { shared, claim: claim.map(Arc::new), disk, home })
    }

    /// What another reactor needs for [`Store::attach`].
    pub fn shared(&self) -> StoreShared {
        StoreShared { shared: self.shared.clone(), claim: self.claim.clone() }
    }

    /// The same open disk on another reactor, with that reactor's handle to the disk.
    pub fn attach(shared: StoreShared, disk: D) -> Self {
        Self { shared: shared.shared, claim: shared.claim, disk, home: RefCell::new(None) }
    }

    /// The journal's writer and the checkpointer. Run it on the home reactor from open to close; it
    /// ends when the disk is closed or stopped. Only the first call does anything. Dropping it
    /// stops the disk.
    pub fn background(&self) -> impl Future<Output = ()> + use<D> {
        let home = self.home.borrow_mut().take();
        let (shared, disk, claim) = (self.shared.clone(), self.disk.clone(), self.claim.clone());
        async move {
            // The disk is in use for as long as somebody writes to it.
            let _claim = claim;
            let Some(Home { groups, checkpoint }) = home else { return };
            let _stop = StopAtEnd(&shared);
            let writer = Writer::new(&shared, &disk, groups);
            let mut checkpointer = Checkpointer::new(&shared, &disk, checkpoint);
            futures_util::future::join3(
                writer.write_loop(),
                writer.sync_loop(),
                checkpointer.run(),
            )
            .await;
        }
    }

    /// Closes in good order: waits for what is under way in the journal, writes a checkpoint and
    /// the clean mark. New writes fail at once. [`Store::background`] must be running; it ends.
    ///
    /// # Errors
    /// `Stopped` if the disk had stopped, or stops now, because of errors.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.shared.meta.lock().closing = true;
        self.shared.checkpoint_kick.notify_one();
        let closed = self.shared.wait(|_| Err::<(), _>(Key::Checkpoint)).await;
        match self.shared.stop_reason() {
            Some(StopReason::Closed) => Ok(()),
            _ => closed,
        }
    }

    /// Writes a checkpoint soon.
    pub fn request_checkpoint(&self) {
        self.shared.meta.lock().checkpoint_wanted = true;
        self.shared.checkpoint_kick.notify_one();
    }

    /// The disk's identity and layout.
    pub fn info(&self) -> DiskInfo {
        let root = self.shared.meta.lock().root;
        DiskInfo::new(&Superblock::new(&self.shared.geometry, &root))
    }

    /// Whether it had been closed in good order before this open.
    pub fn was_clean(&self) -> bool {
        self.shared.was_clean
    }

    /// Counts the opens of this disk; never the same twice.
    pub fn incarnation(&self) -> u64 {
        self.shared.meta.lock().root.incarnation
    }

    /// Its figures.
    pub fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    /// All replicas, by identity.
    pub fn replicas(&self) -> Vec<ReplicaInfo> {
        self.shared.replica_infos()
    }

    /// A handle to a replica, if it exists.
    pub fn replica(&self, id: ReplicaId) -> Option<Replica<D>> {
        let layer = self.shared.meta.lock().replicas.get(&id).cloned();
        let layer = layer.filter(|layer| layer.state() == LIVE)?;
        Some(Replica::new(self.shared.clone(), layer, self.disk.clone()))
    }

    fn size_fits(&self, blocks: u64) -> Result<(), ReplicaError> {
        let most = MAX_LAYER_CHUNKS * u64::from(self.shared.geometry.chunk_blocks());
        (1..=most).contains(&blocks).then_some(()).ok_or(ReplicaError::BadSize)
    }

    /// Makes an empty replica of `blocks` blocks. Durable when it returns.
    ///
    /// # Errors
    /// `Exists`, `BadSize`, `TableFull`, `NilIdentity`, or the disk's.
    pub async fn create_replica(&self, id: ReplicaId, blocks: u64) -> Result<(), ReplicaError> {
        if id.0 == [0; 16] {
            return Err(ReplicaError::NilIdentity);
        }
        self.size_fits(blocks)?;
        let _one_at_a_time = self.shared.manage.lock().await;
        let sequence = self.shared.wait(|meta| self.stage_create(meta, id, blocks)).await??;
        Ok(self.shared.wait_durable(sequence).await?)
    }

    fn stage_create(
        &self,
        meta: &mut Meta,
        id: ReplicaId,
        blocks: u64,
    ) -> Result<Result<u64, ReplicaError>, Key> {
        if meta.closing {
            return Ok(Err(StoreError::Stopped.into()));
        }
        if meta.replicas.contains_key(&id) {
            return Ok(Err(ReplicaError::Exists));
        }
        if meta.layers.iter().flatten().count() >= self.shared.geometry.catalog_entries() {
            return Ok(Err(ReplicaError::TableFull));
        }
        let layer = LayerId(meta.next_layer);
        let record = Record::Create { replica: id, layer, parent: 0, blocks };
        let sequence = self.shared.append(meta, &record, &[]).ok_or(Key::JournalRoom)?;
        meta.next_layer += 1;
        let made = meta.add_layer(|slot| Layer::new(layer, slot, 0, id, blocks, CREATING));
        meta.replicas.insert(id, made);
        Ok(Ok(sequence))
    }

    /// Changes a replica's size. Durable when it returns. Blocks beyond a smaller size are lost:
    /// trimmed before the size changes, also if the change then fails or the power goes.
    ///
    /// # Errors
    /// `NotFound`, `BadSize`, or the disk's.
    pub async fn resize_replica(&self, id: ReplicaId, blocks: u64) -> Result<(), ReplicaError> {
        self.size_fits(blocks)?;
        let _one_at_a_time = self.shared.manage.lock().await;
        let replica = self.replica(id).ok_or(ReplicaError::NotFound)?;
        let layer = replica.layer().clone();
        let old = layer.durable_blocks.load(Ordering::Acquire);
        if blocks < old {
            // First no new I/O goes there, then what is there goes, then the size is said to be
            // smaller.
            let _locked = self.shared.meta.lock();
            layer.blocks.store(blocks, Ordering::Release);
        }
        if blocks < old {
            replica.clear(blocks, old - blocks, false).await?;
        }
        let sequence = self
            .shared
            .wait(|meta| {
                if meta.closing {
                    return Ok(Err(StoreError::Stopped));
                }
                let record = Record::Resize { replica: id, layer: layer.id, blocks };
                self.shared.append(meta, &record, &[]).map(Ok).ok_or(Key::JournalRoom)
            })
            .await??;
        Ok(self.shared.wait_durable(sequence).await?)
    }

    /// Deletes a replica and frees all that it has. Durable when it returns.
    ///
    /// # Errors
    /// `NotFound`, or the disk's.
    pub async fn delete_replica(&self, id: ReplicaId) -> Result<(), ReplicaError> {
        let _one_at_a_time = self.shared.manage.lock().await;
        let sequence = self.shared.wait(|meta| self.stage_delete(meta, id)).await??;
        Ok(self.shared.wait_durable(sequence).await?)
    }

    fn stage_delete(
        &self,
        meta: &mut Meta,
        id: ReplicaId,
    ) -> Result<Result<u64, ReplicaError>, Key> {
        if meta.closing {
            return Ok(Err(StoreError::Stopped.into()));
        }
        let layer = meta.replicas.get(&id).filter(|layer| layer.state() == LIVE).cloned();
        let Some(layer) = layer else { return Ok(Err(ReplicaError::NotFound)) };
        let record = Record::Delete { replica: id, layer: layer.id };
        let sequence = self.shared.append(meta, &record, &[]).ok_or(Key::JournalRoom)?;
        layer.state.store(DELETED, Ordering::Release);
        meta.replicas.remove(&id);
        Ok(Ok(sequence))
    }

    /// What is under way, as text for a person who looks for why nothing moves.
    pub fn describe(&self) -> String {
        self.shared.describe()
    }

    /// Asserts every invariant of the state in memory that can be asserted at any moment.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.shared.check_invariants()
    }
}

/// The background task is gone: nothing may be acknowledged any more.
struct StopAtEnd<'a>(&'a Shared);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        if !self.0.is_stopped() {
            self.0.stop(StopReason::BackgroundEnded);
        }
    }
}
