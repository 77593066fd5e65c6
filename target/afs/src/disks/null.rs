//! A disk that keeps nothing: only the sizes of its volumes are remembered, and these only while the process lives.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use uuid::Uuid;

/// One `null:SIZE`.
pub(super) struct NullDisk {
    bytes: u64,
    replicas: Mutex<HashMap<Uuid, Arc<AtomicU64>>>,
}

impl NullDisk {
    pub(super) fn new(bytes: u64) -> NullDisk {
        NullDisk { bytes, replicas: Mutex::new(HashMap::new()) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The size of the replica, in blocks, which backends read: made or grown to `blocks`.
    pub(super) fn provide(&self, replica: Uuid, blocks: u64) -> Arc<AtomicU64> {
        let mut replicas = self.replicas.lock();
        let size = replicas.entry(replica).or_default();
        size.fetch_max(blocks, Relaxed);
        Arc::clone(size)
    }

    /// Tells whether it was there.
    pub(super) fn delete(&self, replica: Uuid) -> bool {
        self.replicas.lock().remove(&replica).is_some()
    }
}
