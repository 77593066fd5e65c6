//! An open disk with a store on it, reachable from every thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use afs_reactor::{DiskFile, ReactorHandle};
use afs_store::{Label, ReplicaError, ReplicaId, StoreError, StoreShared, StoreStats};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::{Attached, ReplicaFailure};

/// Tells apart disks of one process, also when one is opened twice in a row.
static INSTANCES: AtomicU64 = AtomicU64::new(0);

/// A store's disk. Its background work runs on `home`.
pub struct StoreDisk {
    instance: u64,
    file: DiskFile,
    shared: StoreShared,
    home: ReactorHandle,
    background_ended: watch::Receiver<bool>,
}

impl StoreDisk {
    pub(super) fn new(
        file: DiskFile,
        shared: StoreShared,
        home: ReactorHandle,
        background_ended: watch::Receiver<bool>,
    ) -> StoreDisk {
        let instance = INSTANCES.fetch_add(1, Relaxed);
        StoreDisk { instance, file, shared, home, background_ended }
    }

    pub(super) fn instance(&self) -> u64 {
        self.instance
    }

    pub(super) fn file(&self) -> &DiskFile {
        &self.file
    }

    pub(super) fn shared(&self) -> &StoreShared {
        &self.shared
    }

    /// The store's figures now.
    pub fn stats(&self) -> StoreStats {
        self.shared.stats()
    }

    /// Bytes that a replica takes; 0 if it is not there.
    pub fn allocated_bytes(&self, replica: ReplicaId) -> u64 {
        let replicas = self.shared.replicas();
        replicas.iter().find(|info| info.id == replica).map_or(0, |info| info.allocated_bytes)
    }

    /// Runs `work` at home and waits for it.
    async fn at_home<T, F>(
        self: &Arc<Self>,
        work: impl FnOnce(Attached) -> F + Send + 'static,
    ) -> Result<T, ReplicaFailure>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let disk = Arc::clone(self);
        self.home.spawn(move |local| async move {
            if let Some(attached) = disk.attach(&local) {
                // The caller waits below unless it was dropped, and then nobody needs the answer.
                let _ = sender.send(work(attached).await);
            }
        });
        receiver.await.map_err(|_| ReplicaFailure::ReactorGone)
    }

    pub(super) async fn provide(
        self: &Arc<Self>,
        replica: Uuid,
        blocks: u64,
    ) -> Result<(), ReplicaFailure> {
        let id = ReplicaId::from(replica);
        Ok(self.at_home(move |attached| provide(attached, id, blocks)).await??)
    }

    /// The durable label of a replica.
    ///
    /// # Errors
    /// When the disk does not have the replica.
    pub async fn label(self: &Arc<Self>, replica: ReplicaId) -> Result<Label, ReplicaFailure> {
        let label = self.at_home(move |attached| async move {
            attached.store().replica(replica).map(|replica| replica.label())
        });
        Ok(label.await?.ok_or(ReplicaError::NotFound)?)
    }

    pub(super) async fn delete(self: &Arc<Self>, replica: Uuid) -> Result<bool, ReplicaFailure> {
        let id = ReplicaId::from(replica);
        let deleted =
            self.at_home(move |attached| async move { attached.store().delete_replica(id).await });
        match deleted.await? {
            Ok(()) => Ok(true),
            Err(ReplicaError::NotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Checkpoints, marks the disk as cleanly closed and waits for the background work to end.
    pub(super) async fn close(self: &Arc<Self>) -> Result<(), ReplicaFailure> {
        let closed: Result<(), StoreError> =
            self.at_home(|attached| async move { attached.store().close().await }).await?;
        closed.map_err(ReplicaError::Store)?;
        let mut ended = self.background_ended.clone();
        ended.wait_for(|ended| *ended).await.map_err(|_| ReplicaFailure::ReactorGone)?;
        Ok(())
    }
}

async fn provide(attached: Attached, id: ReplicaId, blocks: u64) -> Result<(), ReplicaError> {
    let store = attached.store();
    match store.replica(id) {
        None => store.create_replica(id, blocks).await,
        Some(replica) if replica.blocks() < blocks => store.resize_replica(id, blocks).await,
        // A size below the present one is an old state that was overtaken: volumes only grow.
        Some(_) => Ok(()),
    }
}
