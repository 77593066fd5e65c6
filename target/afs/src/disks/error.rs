//! Why a disk or a replica cannot be used, in words for the person who runs the node.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use afs_store::ReplicaError;

/// Why a disk cannot be used. Cloned into reports.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskFailure {
    /// It cannot be opened or made at all.
    #[error("{0}")]
    File(Arc<afs_reactor::OpenError>),
    /// It is not as large as asked for.
    #[error(
        "disk {disk} has {found} but {asked} was asked for; leave the size out to use it as it is"
    )]
    Size {
        /// How it was given.
        disk: String,
        /// Its size, for people.
        found: String,
        /// The size asked for, for people.
        asked: String,
    },
    /// It holds something that must not be overwritten unasked.
    #[error(
        "disk {disk} is not an afs disk: it holds {found}; if that may be destroyed, run `afs disk format --force {disk}`"
    )]
    HoldsOther {
        /// How it was given.
        disk: String,
        /// What is on it.
        found: String,
    },
    /// A device that was never formatted: a mistyped name must not cost a disk.
    #[error("disk {disk} is empty; run `afs disk format {disk}` once to make it an afs disk")]
    Unformatted {
        /// How it was given.
        disk: String,
    },
    /// It cannot be formatted.
    #[error("disk {disk} cannot be formatted: {error}")]
    Format {
        /// How it was given.
        disk: String,
        /// Why.
        error: Arc<afs_store::FormatError>,
    },
    /// The store on it cannot be opened.
    #[error("disk {disk}: {error}")]
    Open {
        /// How it was given.
        disk: String,
        /// Why.
        error: Arc<afs_store::OpenError>,
    },
    /// The reactor that should serve it is gone.
    #[error("disk {disk}: its reactor ended")]
    ReactorGone {
        /// How it was given.
        disk: String,
    },
    /// The list of known disks cannot be used.
    #[error("{path}: {problem}; {hint}")]
    Known {
        /// The list.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
}

impl DiskFailure {
    pub(super) fn known(path: PathBuf, problem: &dyn Display, hint: &'static str) -> DiskFailure {
        DiskFailure::Known { path, problem: problem.to_string(), hint }
    }

    /// Whether the disk broke, as opposed to being the wrong disk: then the node goes on without it.
    pub fn is_damage(&self) -> bool {
        use afs_store::OpenError as Open;
        match self {
            DiskFailure::Open { error, .. } => {
                matches!(**error, Open::CutShort { .. } | Open::Damaged(_) | Open::Disk(_))
            }
            _ => false,
        }
    }
}

/// Why a replica is not there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReplicaFailure {
    /// Its disk does not work.
    #[error("{0}")]
    Disk(DiskFailure),
    /// The node has no such disk.
    #[error("this node has no disk {0}")]
    NoDisk(uuid::Uuid),
    /// A disk that keeps nothing cannot hold a copy of anything.
    #[error(
        "a null disk keeps nothing, so it holds no replica of a shard; give the node another disk"
    )]
    KeepsNothing,
    /// The store refused.
    #[error("{0}")]
    Store(#[from] ReplicaError),
    /// The reactor of the disk is gone.
    #[error("the disk's reactor ended")]
    ReactorGone,
}
