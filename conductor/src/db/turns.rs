//! Who decides next: one decision of a conductor at a time goes to MetaDB, first come first served. Were they all to wait there,
//! they would take every connection from those who only read, and SQLite lets whoever happens to ask at the right moment go first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use super::DbError;

/// For those who come before; longer than MetaDB may take to answer one of them.
const WAIT: Duration = Duration::from_secs(10);

/// Hands out turns.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<()>>);

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits for earlier decisions to end.
    pub(super) async fn next(&self) -> Result<Turn, DbError> {
        match timeout(WAIT, self.0.clone().lock_owned()).await {
            Ok(guard) => Ok(Turn { _guard: guard }),
            Err(_) => Err(DbError::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }
}
