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

mod asks;
mod backend;
mod configs;
mod decision;
mod error;
mod events;
mod fleet;
mod lock;
mod namespaces;
mod news;
mod nodes;
mod numbers;
mod place;
mod plan;
mod postgres;
#[cfg(test)]
mod postgres_tests;
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
mod turns;
mod volumes;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use metrics::Histogram;
use tokio::sync::watch;
use uuid::Uuid;

pub use asks::Asked;
use asks::Asks;
use backend::{Pool, Transaction};
pub use decision::Decided;
use decision::{Base, Decision, Maker, Published, Timing};
pub use error::{DbError, OpenError};
use lock::FolderLock;
pub use place::Place;
use plan::Keeper;
pub use plan::{Concern, Known};
pub use postgres::{BadUrl, PostgresUrl};
use query::{query, query_as, query_scalar};
pub use rows::{
    AccessRow, DiskRow, NamespaceRow, NodeRow, PeerPortalRow, PortalRow, ReplicaRow, Snapshot,
    SubsystemRow, VolumeRow,
};
use turns::Turns;
pub use volumes::NewVolume;
pub(crate) use volumes::{check_replication, no_place};

/// An open MetaDB. One per data folder and machine, where it is a file.
#[derive(Debug)]
pub struct MetaDb {
    cluster: Uuid,
    /// Who tells nodes what is new: this one knows what it told before.
    source: Uuid,
    maker: Maker,
    transaction_seconds: Histogram,
    plan: tokio::sync::RwLock<Keeper>,
    /// When it was last made sure that this conductor decides.
    checked: tokio::sync::Mutex<Option<Instant>>,
    asks: Arc<Asks>,
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
        let (cluster, maker) = take_over(pool).await.map_err(|error| place.error(error))?;
        let (plan, checked, asks) = Default::default();
        let source = Uuid::new_v4();
        Ok(Self { cluster, source, maker, transaction_seconds, plan, checked, asks, _lock: lock })
    }

    /// Identity of the cluster.
    pub fn cluster(&self) -> Uuid {
        self.cluster
    }

    /// The token under which this conductor decides.
    pub fn fencing_token(&self) -> i64 {
        self.maker.fencing_token
    }

    /// The newest revision, now and whenever it rises.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.maker.published.revision.subscribe()
    }

    /// The newest revision now.
    ///
    /// # Errors
    /// [`DbError::Fenced`] when another conductor decides.
    pub fn known_revision(&self) -> Result<u64, DbError> {
        self.maker.published.refuse_if_fenced()?;
        Ok(*self.maker.published.revision.borrow())
    }

    /// Id of the newest event, now and whenever it rises.
    pub fn last_event(&self) -> watch::Receiver<u64> {
        self.maker.published.last_event.subscribe()
    }

    /// Writes back what is in the log and closes all connections.
    pub async fn close(&self) {
        self.maker.pool.close().await;
    }

    /// What was found if MetaDB turned out to be an older copy since it was opened.
    pub fn went_back(&self) -> Option<String> {
        self.maker.published.went_back.borrow().clone()
    }

    /// How often that was found. What was registered before may be lost.
    pub fn times_back(&self) -> u64 {
        self.maker.published.times_back.load(Ordering::Relaxed)
    }

    /// Whether the database answers and this conductor is still the one that decides. Also learns
    /// of a decision whose fate was unknown.
    pub async fn check(&self) -> Result<(), DbError> {
        let base = Base::read(&mut self.read().await?).await?;
        self.maker.published.take_in(&base, self.maker.fencing_token)
    }

    /// The same at any time since this one: of many who ask at a time one looks.
    async fn checked_since(&self, asked: Instant) -> Result<(), DbError> {
        let mut checked = self.checked.lock().await;
        if checked.is_none_or(|begun| begun < asked) {
            let begun = Instant::now();
            self.check().await?;
            *checked = Some(begun);
        }
        Ok(())
    }

    /// Compares MetaDB with what this conductor has seen of it, as every decision does; that it is an older copy is noted.
    pub async fn look(&self) -> Result<(), DbError> {
        self.begin().await?.commit(()).await?;
        Ok(())
    }

    /// A view of one moment.
    async fn read(&self) -> Result<Transaction, DbError> {
        self.maker.published.refuse_if_fenced()?;
        self.maker.pool.begin_view().await
    }

    /// Begins a decision, when those before it have ended.
    async fn begin(&self) -> Result<Decision, DbError> {
        let timing = Timing { started: Instant::now(), seconds: self.transaction_seconds.clone() };
        Decision::begin(self.maker.clone(), timing).await
    }
}

/// Takes the next fencing token, after which decisions of an earlier conductor fail.
async fn take_over(pool: Pool) -> Result<(Uuid, Maker), DbError> {
    let mut transaction = pool.begin_decision().await?;
    query(
        "INSERT INTO settings (id, cluster, revision, fencing_token, last_event, last_portal) \
         VALUES (1, $1, 1, 0, 0, 0) ON CONFLICT (id) DO NOTHING",
    )
    .bind(Uuid::new_v4())
    .execute(&mut transaction)
    .await?;
    let base: Base = query_as(
        "UPDATE settings SET fencing_token = fencing_token + 1 WHERE id = 1 \
         RETURNING revision, fencing_token, last_event",
    )
    .fetch_one(&mut transaction)
    .await?;
    let cluster = query_scalar("SELECT cluster FROM settings WHERE id = 1")
        .fetch_one(&mut transaction)
        .await?;
    transaction.commit().await?;
    let published = Published::new(&base)?;
    let turns = Turns::default();
    Ok((cluster, Maker { pool, turns, fencing_token: base.fencing_token, published }))
}
