//! MetaDB: every durable decision of the conductor.
//!
//! The server calls the methods of [`MetaDb`]; each change is one [`Decision`], that is one
//! transaction which compares and swaps the revision it was based on. SQLite is the backend of a
//! conductor on one machine. The statements and migrations keep to what PostgreSQL understands
//! too; what is SQLite's own is in this file.
//!
//! Invariants, kept by the schema or by one statement in one place:
//! 1. The revision rises by one with each decision; so does the event id with each event.
//! 2. The ids of volumes, replicas, portals and controllers are never given twice.
//! 3. A volume is at most one namespace of at most one subsystem.
//! 4. An NSID that hosts may still know as one volume never means another.
//! 5. A replica is deleted only after it was retired by name.

mod decision;
mod error;
mod events;
mod lock;
mod namespaces;
mod nodes;
mod numbers;
mod rows;
mod state;
mod subsystems;
#[cfg(test)]
mod tests;
mod volumes;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use metrics::Histogram;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::watch;
use uuid::Uuid;

pub use decision::Decided;
use decision::{Decision, Published, Timing};
pub use error::{DbError, OpenError};
use lock::FolderLock;
pub use rows::{
    AccessRow, DiskRow, NamespaceRow, NodeRow, PortalRow, ReplicaRow, Snapshot, SubsystemRow,
    VolumeRow,
};

/// The database's file within the data folder.
const FILE: &str = "conductor.sqlite";

/// A reader never waits for a writer (WAL), so few connections go a long way.
const CONNECTIONS_MAX: u32 = 8;

/// An open MetaDB. One per data folder and machine.
#[derive(Debug)]
pub struct MetaDb {
    pool: SqlitePool,
    cluster: Uuid,
    fencing_token: i64,
    published: Published,
    transaction_seconds: Histogram,
    _lock: FolderLock,
}

impl MetaDb {
    /// Opens the database in this folder; makes both when they are not there.
    pub async fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_measured(folder, Histogram::noop()).await
    }

    /// The same, recording how long each decision takes.
    pub async fn open_measured(
        folder: &Path,
        transaction_seconds: Histogram,
    ) -> Result<Self, OpenError> {
        let lock = FolderLock::take(folder)?;
        let file = folder.join(FILE);
        let database = |source| OpenError::Database { path: file.clone(), source };
        let pool = connect(&file).await.map_err(database)?;
        sqlx::migrate!()
            .run(&pool)
            .await
            .map_err(|source| OpenError::Migrate { path: folder.to_owned(), source })?;
        let taken = take_over(&pool).await.map_err(database)?;
        Ok(Self {
            pool,
            cluster: taken.cluster,
            fencing_token: taken.fencing_token,
            published: Published::new(taken.revision, taken.last_event),
            transaction_seconds,
            _lock: lock,
        })
    }

    /// Identity of the cluster.
    pub fn cluster(&self) -> Uuid {
        self.cluster
    }

    /// The newest revision, now and whenever it rises.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.published.revision.subscribe()
    }

    /// Id of the newest event, now and whenever it rises.
    pub fn last_event(&self) -> watch::Receiver<u64> {
        self.published.last_event.subscribe()
    }

    /// Writes back what is in the log and closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Whether the database answers.
    pub async fn check(&self) -> Result<(), DbError> {
        sqlx::query("SELECT revision FROM settings WHERE id = 1").fetch_one(&self.pool).await?;
        Ok(())
    }

    /// A view of one moment.
    async fn read(&self) -> Result<Transaction<'static, Sqlite>, DbError> {
        Ok(self.pool.begin().await?)
    }

    /// Begins a decision. SQLite takes the write lock here, so that no decision has to be repeated
    /// because another one came between its reads and its writes.
    async fn begin(&self) -> Result<Decision, DbError> {
        let started = Instant::now();
        let transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let timing = Timing { started, seconds: self.transaction_seconds.clone() };
        Decision::begin(transaction, self.fencing_token, self.published.clone(), timing).await
    }
}

async fn connect(file: &PathBuf) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5));
    SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await
}

#[derive(sqlx::FromRow)]
struct TakenOver {
    cluster: Uuid,
    fencing_token: i64,
    #[sqlx(try_from = "i64")]
    revision: u64,
    #[sqlx(try_from = "i64")]
    last_event: u64,
}

/// Takes the next fencing token, after which decisions of an earlier conductor fail.
async fn take_over(pool: &SqlitePool) -> Result<TakenOver, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let connection: &mut SqliteConnection = &mut connection;
    sqlx::query(
        "INSERT INTO settings (id, cluster, revision, fencing_token, last_event, last_portal) \
         VALUES (1, $1, 1, 0, 0, 0) ON CONFLICT (id) DO NOTHING",
    )
    .bind(Uuid::new_v4())
    .execute(&mut *connection)
    .await?;
    sqlx::query_as(
        "UPDATE settings SET fencing_token = fencing_token + 1 WHERE id = 1 \
         RETURNING cluster, fencing_token, revision, last_event",
    )
    .fetch_one(connection)
    .await
}
