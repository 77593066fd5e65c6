//! Which connection an event of the connection manager is for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use afs_reactor::verbs::CmKey;

use super::super::close::{CloseReason, QueueCloser};

/// The live connections of one listener.
#[derive(Clone, Default)]
pub(super) struct ConnectionTable(Arc<Mutex<HashMap<CmKey, QueueCloser>>>);

impl ConnectionTable {
    /// From now on events for `key` reach `closer`, until the result is dropped.
    pub(super) fn enter(&self, key: CmKey, closer: QueueCloser) -> Registration {
        self.lock().insert(key, closer);
        Registration { table: self.clone(), key }
    }

    /// Ends the connection of `key`, if there still is one.
    pub(super) fn close(&self, key: CmKey, reason: CloseReason) {
        let closer = self.lock().get(&key).cloned();
        if let Some(closer) = closer {
            closer.close(reason);
        }
    }

    /// The host of `key` has confirmed the connection.
    pub(super) fn established(&self, key: CmKey) {
        if let Some(closer) = self.lock().get(&key) {
            closer.established();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CmKey, QueueCloser>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place in the table.
pub(super) struct Registration {
    table: ConnectionTable,
    key: CmKey,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.table.lock().remove(&self.key);
    }
}
