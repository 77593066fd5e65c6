//! Where a namespace's data is: a replica on one of the node's disks, or nowhere.
//!
//! `volumes` makes one [`BackendSource`] per volume; each queue pair opens its [`Backend`] from it, on its own reactor.
//! `io` sends every command that passed its checks here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use afs_reactor::RingDisk;
use afs_reactor::{Buffer, BufferMut, BufferPool, Local};
use afs_store::{Replica, ReplicaId, StoreError};
use afs_volume::{Gone, RangeLocks, VolumeError};
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::cluster::client::VolumeClient;
use crate::cluster::local::LocalHost;
use crate::disks::{Attached, StoreDisk};
use crate::limits::TRANSFER_BYTES_MAX;

/// Why a command on a backend failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The range ends after the last block.
    #[error("the range is outside the volume")]
    OutOfRange,
    /// No space is left for blocks that were never written; overwriting still works.
    #[error("the disk has no space left")]
    Full,
    /// These blocks cannot be read or written.
    #[error("the disk reported an error for these blocks")]
    Media,
    /// The volume has no leader that serves: a retry may do better.
    #[error("the volume is not served at the moment")]
    Unavailable,
    /// The whole disk is stopped, or the volume was deleted: another path may do better.
    #[error("the disk is stopped")]
    Stopped,
}

impl From<StoreError> for BackendError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::OutOfRange => BackendError::OutOfRange,
            StoreError::Full => BackendError::Full,
            StoreError::Media => BackendError::Media,
            StoreError::Stopped | StoreError::Deleted => BackendError::Stopped,
        }
    }
}

impl From<VolumeError> for BackendError {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::NotLeader | VolumeError::Unavailable => BackendError::Unavailable,
            VolumeError::OutOfRange => BackendError::OutOfRange,
            VolumeError::Full => BackendError::Full,
            VolumeError::Media => BackendError::Media,
        }
    }
}

/// A volume of this node, from which each reactor makes its [`Backend`]. Clones are the same volume.
#[derive(Clone)]
pub struct BackendSource {
    volume: Uuid,
    place: Place,
    ranges: Arc<RangeLocks>,
}

#[derive(Clone)]
enum Place {
    Null { blocks: Arc<AtomicU64> },
    Store { disk: Arc<StoreDisk>, replica: ReplicaId },
    Cluster { cluster: Arc<Cluster>, blocks: u64, leads: bool },
}

impl BackendSource {
    /// A volume that keeps nothing. Later changes of `blocks` are seen by all backends made from it.
    pub fn null(volume: Uuid, blocks: Arc<AtomicU64>) -> BackendSource {
        BackendSource { volume, place: Place::Null { blocks }, ranges: Arc::default() }
    }

    /// The volume that `replica` on `disk` holds.
    pub(crate) fn store(volume: Uuid, disk: Arc<StoreDisk>, replica: ReplicaId) -> BackendSource {
        BackendSource { volume, place: Place::Store { disk, replica }, ranges: Arc::default() }
    }

    /// A volume of `blocks` blocks that is led by this node (`leads`) or another one.
    pub fn cluster(volume: Uuid, cluster: &Arc<Cluster>, blocks: u64, leads: bool) -> Self {
        let cluster = Arc::clone(cluster);
        let place = Place::Cluster { cluster, blocks, leads };
        BackendSource { volume, place, ranges: Arc::default() }
    }

    /// The same with the order of `ranges`, which must outlive every change of the export.
    #[must_use]
    pub fn ordered_by(self, ranges: Arc<RangeLocks>) -> BackendSource {
        BackendSource { ranges, ..self }
    }

    /// The order of overlapping reads and writes.
    pub fn ranges(&self) -> &Arc<RangeLocks> {
        &self.ranges
    }

    /// Whether this node is the short way to the volume.
    pub fn optimized(&self) -> bool {
        !matches!(&self.place, Place::Cluster { leads: false, .. })
    }

    /// The volume's backend on this reactor; `None` if its disk is stopped or does not hold it any more.
    pub fn open(&self, local: &Local) -> Option<Backend> {
        match &self.place {
            Place::Null { blocks } => {
                Some(Backend::Null(NullBackend { blocks: Arc::clone(blocks) }))
            }
            Place::Store { disk, replica } => {
                let attached = disk.attach(local)?;
                let replica = attached.store().replica(*replica)?;
                Some(Backend::Store(StoreBackend { replica, _attached: attached }))
            }
            Place::Cluster { cluster, blocks, .. } => {
                let client = VolumeClient::new(LocalHost::of(cluster, local), self.volume);
                Some(Backend::Cluster(ClusterBackend { client, blocks: *blocks }))
            }
        }
    }

    /// Whether its disk serves; once it does not, it never will again in this process.
    pub fn serving(&self) -> bool {
        match &self.place {
            Place::Null { .. } | Place::Cluster { .. } => true,
            Place::Store { disk, .. } => !disk.stats().stopped,
        }
    }

    /// Bytes that the volume takes on its disk.
    pub fn allocated_bytes(&self) -> u64 {
        match &self.place {
            Place::Null { .. } | Place::Cluster { .. } => 0,
            Place::Store { disk, replica } => disk.allocated_bytes(*replica),
        }
    }

    /// Which volume it is.
    pub fn volume(&self) -> Uuid {
        self.volume
    }
}

/// A volume that keeps nothing, on one reactor.
#[derive(Clone)]
pub struct NullBackend {
    blocks: Arc<AtomicU64>,
}

impl NullBackend {
    fn check(&self, lba: u64, blocks: u64) -> Result<(), BackendError> {
        match lba.checked_add(blocks) {
            Some(end) if end <= self.blocks.load(Relaxed) => Ok(()),
            _ => Err(BackendError::OutOfRange),
        }
    }
}

/// A replica in a store, on one reactor.
#[derive(Clone)]
pub struct StoreBackend {
    replica: Replica<RingDisk>,
    /// Keeps this reactor's handle to the disk, so that the next queue pair finds it made.
    _attached: Attached,
}

/// A volume with a leader, on one reactor.
#[derive(Clone)]
pub struct ClusterBackend {
    client: VolumeClient,
    blocks: u64,
}

/// The data of one namespace on one reactor.
///
/// A write, write-zeroes or deallocate that was begun must be polled to its end, see `afs_store`.
#[derive(Clone)]
pub enum Backend {
    /// Keeps nothing and reads as zeroes; for measuring the fabric alone.
    Null(NullBackend),
    /// A replica on a disk.
    Store(StoreBackend),
    /// A volume that a leader serves, here or on another node. It orders overlapping I/O itself.
    Cluster(ClusterBackend),
}

thread_local! {
    /// As many zeroes as one command can read, for all null volumes of this thread; `None` if there is no memory for them.
    static ZEROES: Option<Buffer> = zeroes();
}

fn zeroes() -> Option<Buffer> {
    let pool = BufferPool::new(TRANSFER_BYTES_MAX as usize).ok()?;
    let mut buffer = pool.try_alloc(TRANSFER_BYTES_MAX as usize)?;
    buffer.fill(0);
    Some(buffer.freeze())
}

fn blocks_of(bytes: usize) -> u64 {
    bytes as u64 / u64::from(afs_env::BLOCK_BYTES)
}

impl Backend {
    /// Size in blocks of 4096 bytes.
    pub fn blocks(&self) -> u64 {
        match self {
            Backend::Null(null) => null.blocks.load(Relaxed),
            Backend::Store(store) => store.replica.blocks(),
            Backend::Cluster(volume) => volume.blocks,
        }
    }

    /// Whether the caller must keep overlapping I/O apart.
    #[inline]
    pub fn wants_order(&self) -> bool {
        !matches!(self, Backend::Cluster(_))
    }

    /// What a read of `bytes` bytes from block `lba` on would give, when that takes neither a buffer nor a wait.
    ///
    /// A null volume measures the fabric alone, so its reads share zeroes instead of making them anew.
    #[inline]
    pub fn read_at_once(&self, lba: u64, bytes: usize) -> Option<Result<Buffer, BackendError>> {
        match self {
            Backend::Null(null) => {
                let zeroes = ZEROES.with(|zeroes| {
                    zeroes.as_ref().filter(|all| bytes <= all.len()).map(|all| all.slice(0..bytes))
                })?;
                Some(null.check(lba, blocks_of(bytes)).map(|()| zeroes))
            }
            Backend::Store(_) | Backend::Cluster(_) => None,
        }
    }

    /// Fills the whole buffer from block `lba` on. On an error its contents are unspecified.
    #[inline]
    pub async fn read(
        &self,
        lba: u64,
        mut buffer: BufferMut,
    ) -> (BufferMut, Result<(), BackendError>) {
        match self {
            Backend::Null(null) => {
                // The buffer may hold what another host wrote: it must not leave as it came.
                buffer.fill(0);
                let result = null.check(lba, blocks_of(buffer.len()));
                (buffer, result)
            }
            Backend::Store(store) => {
                let (buffer, result) = store.replica.read(lba, buffer).await;
                (buffer, result.map_err(BackendError::from))
            }
            Backend::Cluster(volume) => {
                let (buffer, result) = volume.client.read(lba, buffer).await;
                (buffer, result.map_err(BackendError::from))
            }
        }
    }

    /// Writes whole blocks; durable when it returns. Once `gone` says that the host's connection is lost, nothing more begins
    /// (CONFORMANCE M-45).
    #[inline]
    pub async fn write(&self, lba: u64, data: Buffer, gone: Gone<'_>) -> Result<(), BackendError> {
        match self {
            Backend::Null(null) => null.check(lba, blocks_of(data.len())),
            Backend::Store(store) => Ok(store.replica.write(lba, data).await?),
            Backend::Cluster(volume) => Ok(volume.client.write(lba, data, gone).await?),
        }
    }

    /// Makes blocks read as zeroes; with `deallocate`, also gives their space back. Durable when it returns.
    pub async fn write_zeroes(
        &self,
        lba: u64,
        blocks: u64,
        deallocate: bool,
        gone: Gone<'_>,
    ) -> Result<(), BackendError> {
        match self {
            Backend::Null(null) => null.check(lba, blocks),
            Backend::Cluster(volume) => {
                Ok(volume.client.write_zeroes(lba, blocks, deallocate, gone).await?)
            }
            Backend::Store(store) => {
                let blocks = u32::try_from(blocks).map_err(|_| BackendError::OutOfRange)?;
                Ok(store.replica.write_zeroes(lba, blocks, deallocate).await?)
            }
        }
    }

    /// Gives the space of blocks back; they read as zeroes afterwards.
    pub async fn deallocate(
        &self,
        lba: u64,
        blocks: u64,
        gone: Gone<'_>,
    ) -> Result<(), BackendError> {
        match self {
            Backend::Cluster(volume) => {
                Ok(volume.client.write_zeroes(lba, blocks, true, gone).await?)
            }
            Backend::Null(null) => null.check(lba, blocks),
            Backend::Store(store) => Ok(store.replica.deallocate(lba, blocks).await?),
        }
    }

    /// Reads blocks and checks that they can be read.
    pub async fn verify(&self, lba: u64, blocks: u64) -> Result<(), BackendError> {
        match self {
            Backend::Null(null) => null.check(lba, blocks),
            Backend::Store(store) => Ok(store.replica.verify(lba, blocks).await?),
            Backend::Cluster(volume) => Ok(volume.client.verify(lba, blocks).await?),
        }
    }

    /// Everything that was acknowledged is durable already (CONFORMANCE 5.1, Flush).
    pub async fn flush(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn null(blocks: u64) -> (Backend, Arc<AtomicU64>) {
        let blocks = Arc::new(AtomicU64::new(blocks));
        (Backend::Null(NullBackend { blocks: Arc::clone(&blocks) }), blocks)
    }

    #[tokio::test]
    async fn a_null_volume_never_shows_what_was_in_the_buffer_before() {
        let pool = BufferPool::new(1 << 20).unwrap();
        let mut buffer = pool.try_alloc(8192).unwrap();
        buffer.fill(7);
        let (buffer, result) = null(2).0.read(0, buffer).await;
        assert_eq!(result, Ok(()));
        assert!(buffer.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_null_volume_reads_shared_zeroes_within_its_end() {
        let (backend, _) = null(2);
        let data = backend.read_at_once(1, 4096).unwrap().unwrap();
        assert_eq!(*data, [0; 4096]);
        assert_eq!(backend.read_at_once(1, 8192).unwrap().err(), Some(BackendError::OutOfRange));
        assert!(backend.read_at_once(0, TRANSFER_BYTES_MAX as usize + 1).is_none());
    }

    #[tokio::test]
    async fn a_null_volume_has_an_end_that_moves_when_it_grows() {
        let pool = BufferPool::new(1 << 20).unwrap();
        let (backend, blocks) = null(2);
        let data = || pool.try_alloc(8192).unwrap().freeze();
        assert_eq!(backend.write(1, data(), &|| false).await, Err(BackendError::OutOfRange));
        assert_eq!(backend.deallocate(u64::MAX, 2, &|| false).await, Err(BackendError::OutOfRange));
        blocks.store(3, Relaxed);
        assert_eq!(backend.write(1, data(), &|| false).await, Ok(()));
        assert_eq!(backend.blocks(), 3);
    }
}
