//! MetaDB as a file: for a conductor on one machine.

use std::path::Path;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// The database's file within the data folder.
pub(super) const FILE: &str = "conductor.sqlite";

/// A reader never waits for a writer (WAL), so few connections go a long way.
const CONNECTIONS_MAX: u32 = 8;

pub(super) async fn connect(file: &Path) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await
}
