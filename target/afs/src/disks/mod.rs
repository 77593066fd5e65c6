//! The node's disks: opened at start, closed at its end, and between that the place where replicas are made and deleted.
//!
//! `daemon` opens a [`DiskSet`]; `volumes` asks it for replicas; `backend` attaches to a [`StoreDisk`] from the reactor of
//! a queue pair. A store's own background work lives on one reactor, its home; all the others attach when first needed.

mod attach;
mod error;
mod figures;
mod known;
mod null;
mod open;
mod store;

use std::collections::HashMap;
use std::sync::Arc;

use afs_reactor::Reactors;
use conductor::api::{DiskKind, DiskReport, DiskState};
use uuid::Uuid;

use crate::backend::BackendSource;
use crate::config::{DiskSpec, NodeConfig};
use crate::data_folder::DataFolder;

pub use attach::Attached;
pub use error::{DiskFailure, ReplicaFailure};
use null::NullDisk;
pub use store::StoreDisk;

enum Body {
    Null(NullDisk),
    Store(Arc<StoreDisk>),
    Failed(DiskFailure),
}

/// One disk of the node.
pub struct NodeDisk {
    uuid: Uuid,
    spec: DiskSpec,
    body: Body,
}

/// All disks of the node.
pub struct DiskSet {
    disks: Vec<NodeDisk>,
}

impl DiskSet {
    /// Opens every disk, all at the same time; makes and formats those that are not there.
    ///
    /// # Errors
    /// When the person must decide: a disk holds something else, is in use or cannot be made, two are the same. Damage to
    /// one disk of several is not: that disk is reported as failed and the others serve.
    pub async fn open(
        config: &NodeConfig,
        reactors: &Reactors,
        data: &DataFolder,
    ) -> Result<Arc<DiskSet>, DiskFailure> {
        let specs = &config.disks;
        let mut known = known::KnownDisks::load(data.path())?;
        let mut opening = Vec::new();
        let common = open::Common::new(config.assume_whole_blocks);
        let mut null_disks = 0;
        for (index, spec) in specs.iter().enumerate() {
            opening.push(match spec {
                DiskSpec::Null { bytes } => {
                    null_disks += 1;
                    let uuid = known.uuid_of(&format!("{spec}#{null_disks}"));
                    open::Opening::Null(uuid, NullDisk::new(*bytes))
                }
                _ => open::Opening::Store(open::begin(spec, reactors.handle(index), &common)),
            });
        }
        let mut disks = Vec::with_capacity(specs.len());
        for (spec, opening) in specs.iter().zip(opening) {
            disks.push(open::finish(spec, opening, &mut known).await?);
        }
        known.save(data.path())?;
        refuse_if_all_failed(&disks)?;
        Ok(Arc::new(DiskSet { disks }))
    }

    /// The disk with this identity.
    pub fn get(&self, uuid: Uuid) -> Option<&NodeDisk> {
        self.disks.iter().find(|disk| disk.uuid == uuid)
    }

    /// All disks, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &NodeDisk> {
        self.disks.iter()
    }

    /// Bytes that each replica takes, whichever disk it is on.
    pub fn allocated(&self) -> HashMap<Uuid, u64> {
        let stores = self.disks.iter().filter_map(|disk| match &disk.body {
            Body::Store(store) => Some(store),
            _ => None,
        });
        let replicas = stores.flat_map(|store| store.shared().replicas());
        replicas.map(|replica| (replica.id.uuid(), replica.allocated_bytes)).collect()
    }

    /// Closes every store in good order. The reactors must still run, and no I/O may be under way.
    pub async fn close(&self) {
        for disk in &self.disks {
            if let Body::Store(store) = &disk.body {
                match store.close().await {
                    Ok(()) => tracing::info!(disk = %disk.spec, "closed"),
                    Err(error) => {
                        tracing::error!(disk = %disk.spec, %error, "not closed in good order; the next start replays its journal")
                    }
                }
            }
        }
    }
}

/// A node of which nothing works should not look as if it did.
fn refuse_if_all_failed(disks: &[NodeDisk]) -> Result<(), DiskFailure> {
    let failure = |disk: &NodeDisk| match &disk.body {
        Body::Failed(failure) => Some(failure.clone()),
        _ => None,
    };
    let failures: Vec<_> = disks.iter().filter_map(failure).collect();
    match failures.first() {
        Some(first) if failures.len() == disks.len() => Err(first.clone()),
        _ => Ok(()),
    }
}

impl NodeDisk {
    /// Its identity.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// How it was given.
    pub fn spec(&self) -> &DiskSpec {
        &self.spec
    }

    /// What the conductor and people are told about it.
    pub fn report(&self) -> DiskReport {
        let report = |kind, total_bytes, free_bytes, error: Option<String>| DiskReport {
            uuid: self.uuid,
            kind,
            path: self.spec.to_string(),
            total_bytes,
            free_bytes,
            state: if error.is_some() { DiskState::Failed } else { DiskState::Online },
            error,
        };
        match &self.body {
            Body::Null(null) => report(DiskKind::Null, null.bytes(), null.bytes(), None),
            Body::Failed(failure) => report(DiskKind::Store, 0, 0, Some(failure.to_string())),
            Body::Store(store) => {
                let stats = store.stats();
                let why = || {
                    stats
                        .stop_reason
                        .map_or_else(|| "stopped".to_owned(), |reason| reason.to_string())
                };
                report(
                    DiskKind::Store,
                    stats.bytes_total,
                    stats.bytes_free,
                    stats.stopped.then(why),
                )
            }
        }
    }

    /// Makes the replica if it is missing, grows it if it is smaller; returns the volume's data.
    pub async fn provide(
        &self,
        volume: Uuid,
        replica: Uuid,
        bytes: u64,
    ) -> Result<BackendSource, ReplicaFailure> {
        let blocks = bytes / u64::from(afs_env::BLOCK_BYTES);
        match &self.body {
            Body::Null(null) => Ok(BackendSource::null(volume, null.provide(replica, blocks))),
            Body::Failed(failure) => Err(ReplicaFailure::Disk(failure.clone())),
            Body::Store(store) => {
                store.provide(replica, blocks).await?;
                Ok(BackendSource::store(volume, Arc::clone(store), replica.into()))
            }
        }
    }

    /// Makes the replica of a shard if it is missing, grows it if it is smaller; returns its disk.
    pub async fn provide_shard(
        &self,
        replica: Uuid,
        bytes: u64,
    ) -> Result<Arc<StoreDisk>, ReplicaFailure> {
        match &self.body {
            Body::Null(_) => Err(ReplicaFailure::KeepsNothing),
            Body::Failed(failure) => Err(ReplicaFailure::Disk(failure.clone())),
            Body::Store(store) => {
                store.provide(replica, bytes / u64::from(afs_env::BLOCK_BYTES)).await?;
                Ok(Arc::clone(store))
            }
        }
    }

    /// Deletes the replica and its data; tells whether it was there.
    pub async fn delete(&self, replica: Uuid) -> Result<bool, ReplicaFailure> {
        match &self.body {
            Body::Null(null) => Ok(null.delete(replica)),
            Body::Failed(failure) => Err(ReplicaFailure::Disk(failure.clone())),
            Body::Store(store) => store.delete(replica).await,
        }
    }
}
