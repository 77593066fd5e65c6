//! The names of things on a disk: replicas, layers, generations, chunks. Used by every module of
//! this crate and by its callers.

use std::fmt;

use uuid::Uuid;

/// A replica's identity (a UUID), given by whoever creates it and unique in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(pub [u8; 16]);

impl ReplicaId {
    /// The same identity as a [`Uuid`], for people and for APIs.
    pub fn uuid(self) -> Uuid {
        Uuid::from_bytes(self.0)
    }
}

impl From<Uuid> for ReplicaId {
    fn from(id: Uuid) -> Self {
        Self(id.into_bytes())
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uuid().fmt(f)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicaId({self})")
    }
}

/// A layer's identity on one disk. The first one is 1, none is ever used twice; 0 on disk means "no
/// layer".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LayerId(pub u64);

/// When a chunk was last written, in the terms of the volume's epochs (DESIGN 5 rule 8). Ordered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Generation {
    /// The volume's epoch.
    pub epoch: u64,
    /// Counts the generations of one epoch.
    pub number: u64,
}
