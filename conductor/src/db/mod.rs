//! MetaDB: every durable decision of the conductor.
//!
//! The server calls the methods of [`MetaDb`]; each change is one [`Decision`], that is one
//! transaction which compares and swaps the revision it was based on. It lives in a file of
//! SQLite, for a conductor on one machine, or in PostgreSQL; statements and migrations are the
//! same for both.
//!
//! Invariants, kept by the schema or by one statement in one place:
//! 1. The revision rises by one with each decision; so does the event id with each event.
//! 2. The ids of nodes, volumes, replicas, portals and controllers are never given twice.
//! 3. A volume is at most one namespace of at most one subsystem.
//! 4. An NSID that hosts may still know as one volume never means another.
//! 5. A replica is deleted only after it was retired by name.
//! 6. Leader, in-sync sets and epoch of a volume change only together, as `afs-decisions` says, and
//!    only out of the epoch that the decision was based on.

mod backend;
mod configs;
mod decision;
mod error;
mod events;
mod fleet;
mod lock;
mod namespaces;
mod nodes;
mod numbers;
mod place;
mod postgres;
mod query;
mod replication;
#[cfg(test)]
mod replication_tests;
mod rows;
mod sqlite;
mod state;
mod subsystems;
#[cfg(test)]
mod tests;
mod volumes;

use std::time::Instant;

use metrics::Histogram;
use tokio::sync::watch;
use uuid::Uuid;

use backend::{Pool, Transaction};
pub use decision::Decided;
use decision::{Decision, Published, Timing};
pub use error::{DbError, OpenError};
use lock::FolderLock;
pub use place::Place;
pub use postgres::{BadUrl, PostgresUrl};
use query::{query, query_as};
pub use replication::Asked;
pub use rows::{
    AccessRow, DiskRow, LoadRow, NamespaceRow, NodeRow, PeerPortalRow, PortalRow, ReplicaRow,
    Snapshot, SubsystemRow, VolumeRow,
};
pub use volumes::NewVolume;
pub(crate) use volumes::{check_replication, no_place};

/// An open MetaDB. One per data folder and machine, where it is a file.
#[derive(Debug)]
pub struct MetaDb {
    pool: Pool,
    cluster: Uuid,
    fencing_token: i64,
    published: Published,
    transaction_seconds: Histogram,
    _lock: Option<FolderLock>,
}

impl MetaDb {
    /// Opens the database; makes its tables when they are not there, and a folder with its file.
    pub async fn open(place: &Place) -> Result<Self, OpenError> {
        Self::open_measured(place, Histogram::noop()).await
    }

    /// The same, recording how long each decision takes.
    pub async fn open_measured(
        place: &Place,
        transaction_seconds: Histogram,
    ) -> Result<Self, OpenError> {
        let (pool, lock) = place.connect().await?;
        pool.migrate().await.map_err(|error| place.migrate_error(error))?;
        let taken = take_over(&pool).await.map_err(|error| place.error(error))?;
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

    /// The token under which this conductor decides.
    pub fn fencing_token(&self) -> i64 {
        self.fencing_token
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
        rows::revision(&mut self.read().await?).await?;
        Ok(())
    }

    /// A view of one moment.
    async fn read(&self) -> Result<Transaction, DbError> {
        self.pool.begin_view().await
    }

    /// Begins a decision, when those before it have ended.
    async fn begin(&self) -> Result<Decision, DbError> {
        let started = Instant::now();
        let transaction = self.pool.begin_decision().await?;
        let timing = Timing { started, seconds: self.transaction_seconds.clone() };
        Decision::begin(transaction, self.fencing_token, self.published.clone(), timing).await
    }
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
async fn take_over(pool: &Pool) -> Result<TakenOver, DbError> {
    let mut transaction = pool.begin_decision().await?;
    query(
        "INSERT INTO settings (id, cluster, revision, fencing_token, last_event, last_portal) \
         VALUES (1, $1, 1, 0, 0, 0) ON CONFLICT (id) DO NOTHING",
    )
    .bind(Uuid::new_v4())
    .execute(&mut transaction)
    .await?;
    let taken = query_as(
        "UPDATE settings SET fencing_token = fencing_token + 1 WHERE id = 1 \
         RETURNING cluster, fencing_token, revision, last_event",
    )
    .fetch_one(&mut transaction)
    .await?;
    transaction.commit().await?;
    Ok(taken)
}
