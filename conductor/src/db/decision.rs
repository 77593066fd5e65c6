//! One decision: one transaction, one revision, at least one event.
//!
//! - **Fencing.** A conductor takes the next token when it opens MetaDB. A decision that finds a
//!   higher one is not made, and from then on the conductor neither decides nor reads.
//! - **A lost answer to COMMIT** is read back, never guessed: every event carries the id of its
//!   decision. Reading back takes the lock that the decision held, so it waits for the end of the
//!   lost transaction, and what it finds then is final.
//! - **An older copy.** A database that is behind what this conductor or a node has seen of it was
//!   restored, or a standby lost something. Numbers then go on above what was seen, so that none
//!   is given twice, and an event says so. Nothing is decided about a volume of which a replica
//!   promised a higher epoch than MetaDB knows: who is in sync was decided anew in what is lost.
//!   Only the operator's explicit word (`volume force`) goes on from there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use afs_decisions::{Denied, VolumeConfig};
use metrics::Histogram;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::DbError;
use super::backend::{Pool, Transaction};
use super::news::{Changes, News, Touch};
use super::numbers::{narrow, now_ms, sql};
use super::query::{query, query_as, query_scalar};
use super::turns::{Turn, Turns};
use crate::api::Severity;
use crate::refusal::Refusal;

/// Events kept; older ones are dropped as new ones come.
const EVENTS_KEPT: i64 = 100_000;

/// For reading back. A lost transaction may still be open; PostgreSQL ends it within half of this.
const READ_BACK_WAIT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 20 });
const READ_BACK_PAUSE: Duration = Duration::from_millis(200);

/// A decision that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided<T> {
    /// What was decided.
    pub value: T,
    /// The revision after it.
    pub revision: u64,
}

/// What is known of MetaDB without asking it, for those who wait for news.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) revision: Arc<watch::Sender<u64>>,
    pub(super) last_event: Arc<watch::Sender<u64>>,
    /// Another conductor has taken over.
    pub(super) fenced: Arc<watch::Sender<bool>>,
    /// MetaDB was found to be an older copy: what the last such event said.
    pub(super) went_back: Arc<watch::Sender<Option<String>>>,
    /// How often.
    pub(super) times_back: Arc<AtomicU64>,
    /// By node, the highest epochs of volumes that its replicas promised, as it last said.
    pub(super) promised: Arc<Mutex<HashMap<String, HashMap<Uuid, u64>>>>,
    pub(super) news: Arc<Mutex<News>>,
}

impl Published {
    pub(super) fn new(base: &Base) -> Result<Self, DbError> {
        let (revision, last_event) =
            (narrow(base.revision, "revision")?, narrow(base.last_event, "event id")?);
        let published = Self {
            news: Arc::new(Mutex::new(News::new(revision, last_event))),
            revision: Arc::default(),
            last_event: Arc::default(),
            fenced: Arc::default(),
            went_back: Arc::default(),
            times_back: Arc::default(),
            promised: Arc::default(),
        };
        published.publish(base.revision, base.last_event)?;
        Ok(published)
    }

    /// The highest epoch of a volume that a replica is known to have promised.
    pub(super) fn promised(&self, volume: Uuid) -> u64 {
        let promised = self.promised.lock();
        promised.values().filter_map(|node| node.get(&volume)).copied().max().unwrap_or(0)
    }

    /// A node said what its replicas promised, of all volumes.
    pub(super) fn node_promised(&self, node: &str, promises: HashMap<Uuid, u64>) {
        self.promised.lock().insert(node.to_owned(), promises);
    }

    pub(super) fn refuse_if_fenced(&self) -> Result<(), DbError> {
        if *self.fenced.borrow() { Err(DbError::Fenced) } else { Ok(()) }
    }

    /// Two commits may publish in the wrong order; a value never goes back.
    fn publish(&self, revision: i64, last_event: i64) -> Result<(), DbError> {
        raise(&self.revision, narrow(revision, "revision")?);
        raise(&self.last_event, narrow(last_event, "event id")?);
        Ok(())
    }

    /// Takes in what MetaDB says of itself to the conductor that has this token.
    pub(super) fn take_in(&self, base: &Base, fencing_token: i64) -> Result<(), DbError> {
        if base.fencing_token > fencing_token {
            if !self.fenced.send_replace(true) {
                tracing::error!("another conductor has taken over MetaDB; this one steps down");
            }
            return Err(DbError::Fenced);
        }
        self.publish(base.revision, base.last_event)
    }
}

fn raise(value: &watch::Sender<u64>, to: u64) {
    value.send_if_modified(|value| {
        let higher = to > *value;
        *value = to.max(*value);
        higher
    });
}

/// Records how long a decision took, whatever became of it.
pub(super) struct Timing {
    pub(super) started: Instant,
    pub(super) seconds: Histogram,
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.seconds.record(self.started.elapsed().as_secs_f64());
    }
}

struct Draft {
    severity: Severity,
    kind: &'static str,
    subject: String,
    message: String,
}

/// A decision being made. Dropped without a commit, it leaves no trace.
pub(super) struct Decision {
    transaction: Transaction,
    /// Dropped after the transaction.
    turn: Turn,
    maker: Maker,
    id: Uuid,
    base: Base,
    /// Numbers after this decision are above these.
    seen: Base,
    timing: Timing,
    changes: Changes,
    went_back: Option<String>,
    drafts: Vec<Draft>,
    /// The moment of the decision: milliseconds since 1970.
    pub(super) now_ms: i64,
}

/// Who makes decisions.
#[derive(Clone, Debug)]
pub(super) struct Maker {
    pub(super) pool: Pool,
    pub(super) turns: Turns,
    pub(super) fencing_token: i64,
    pub(super) published: Published,
}

/// The numbers that decisions are based on.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(super) struct Base {
    pub(super) revision: i64,
    pub(super) fencing_token: i64,
    pub(super) last_event: i64,
}

impl Base {
    pub(super) async fn read(transaction: &mut Transaction) -> Result<Self, DbError> {
        query_as("SELECT revision, fencing_token, last_event FROM settings WHERE id = 1")
            .fetch_one(transaction)
            .await
    }
}

impl Decision {
    /// Waits for decisions before it, and reads what this one will be based on.
    pub(super) async fn begin(maker: Maker, timing: Timing) -> Result<Self, DbError> {
        maker.published.refuse_if_fenced()?;
        let turn = maker.turns.next().await?;
        let mut transaction = maker.pool.begin_decision().await?;
        let base = Base::read(&mut transaction).await?;
        let seen = Base {
            revision: sql(*maker.published.revision.borrow()),
            last_event: sql(*maker.published.last_event.borrow()),
            fencing_token: maker.fencing_token,
        };
        maker.published.take_in(&base, maker.fencing_token)?;
        let mut decision = Self {
            transaction,
            turn,
            maker,
            id: Uuid::new_v4(),
            base,
            seen: base,
            timing,
            changes: Changes::default(),
            went_back: None,
            drafts: Vec::new(),
            now_ms: now_ms(),
        };
        if seen.last_event > base.last_event || seen.fencing_token > base.fencing_token {
            decision.seen.last_event = seen.last_event.max(base.last_event);
            decision.went_back(seen.revision, "this conductor");
        } else {
            decision.seen_elsewhere(seen.revision, "this conductor");
        }
        Ok(decision)
    }

    /// Somebody has seen this revision. If MetaDB is not that far, it is an older copy.
    pub(super) fn seen_elsewhere(&mut self, revision: i64, by: &str) {
        if revision > self.seen.revision {
            self.went_back(revision, by);
        }
    }

    /// Whether a volume has moved on since MetaDB was like this. A replica promises an epoch only after that was durable here, so
    /// one that promised a higher one knows of decisions that are lost.
    pub(super) fn older_than_replicas(&self, config: &VolumeConfig) -> Option<Denied> {
        let promised = self.promised(config.volume);
        let known = config.epoch;
        (promised > known).then_some(Denied::OlderCopy { promised, known })
    }

    /// The highest epoch of a volume that a replica is known to have promised.
    pub(super) fn promised(&self, volume: Uuid) -> u64 {
        self.maker.published.promised(volume)
    }

    /// Whether this is what the node said before.
    pub(super) fn has_promised(&self, node: &str, volume: Uuid, promised: u64) -> bool {
        let known = self.maker.published.promised.lock();
        known.get(node).and_then(|known| known.get(&volume)) == Some(&promised)
    }

    /// The same, found in the report of a node: said once, and shown in the status.
    pub(super) fn volume_went_back(&mut self, name: &str, message: String) {
        tracing::error!("{message}");
        self.went_back = Some(message.clone());
        self.warn("volume_went_back", name, message);
    }

    fn went_back(&mut self, seen_revision: i64, by: &str) {
        let revision = self.base.revision;
        self.seen.revision = self.seen.revision.max(seen_revision);
        let message = format!(
            "MetaDB is at revision {revision}, but {by} has seen revision {seen_revision}: it is an \
             older copy, and what was decided in between is lost. Look through volumes, \
             subsystems and hosts; no replica is deleted because of this"
        );
        tracing::error!("{message}");
        self.went_back = Some(message.clone());
        self.changes.moved = true;
        self.note(Severity::Warning, "metadb_went_back", "metadb", message);
    }

    /// To read and write within the decision.
    pub(super) fn connection(&mut self) -> &mut Transaction {
        &mut self.transaction
    }

    /// A volume changes. Whoever writes to its rows says so.
    pub(super) fn touch(&mut self, touch: Touch) {
        self.changes.touches.push(touch);
    }

    /// Something about nodes or their disks changes, be it something that they need not be told.
    pub(super) fn nodes_changed(&mut self) {
        self.changes.commons = true;
    }

    /// Records a change that nodes must learn of.
    pub(super) fn changed(&mut self, kind: &'static str, subject: &str, message: String) {
        self.changes.commons = true;
        self.volume_changed(kind, subject, message);
    }

    /// The same, of volumes alone, which are touched.
    pub(super) fn volume_changed(&mut self, kind: &'static str, subject: &str, message: String) {
        self.changes.moved = true;
        self.note(Severity::Info, kind, subject, message);
    }

    /// As [`volume_changed`](Self::volume_changed), when somebody should look at it.
    pub(super) fn warn(&mut self, kind: &'static str, subject: &str, message: String) {
        self.changes.moved = true;
        self.note(Severity::Warning, kind, subject, message);
    }

    /// Records something that happened and that changes no node's duties.
    pub(super) fn note(
        &mut self,
        severity: Severity,
        kind: &'static str,
        subject: &str,
        message: String,
    ) {
        self.drafts.push(Draft { severity, kind, subject: subject.to_owned(), message });
    }

    /// Makes the decision durable and tells those who wait. A decision without an event changed
    /// nothing and is dropped.
    pub(super) async fn commit<T>(mut self, value: T) -> Result<Decided<T>, DbError> {
        if self.drafts.is_empty() {
            let revision = narrow(self.base.revision, "revision")?;
            self.transaction.rollback().await?;
            drop(self.turn);
            return Ok(Decided { value, revision });
        }
        let revision = self.seen.revision.saturating_add(i64::from(self.changes.moved));
        let first_event = self.seen.last_event.saturating_add(1);
        let last_event = self.seen.last_event.saturating_add(sql(self.drafts.len()));
        self.swap(revision, last_event).await?;
        self.write_events(revision).await?;
        let Self { transaction, turn, maker, id, went_back, timing, changes, .. } = self;
        let base_event = narrow(self.base.last_event, "event id")?;
        let numbers = (narrow(revision, "revision")?, narrow(last_event, "event id")?);
        // On its own task: a caller that goes away must not leave a commit without its news.
        let commit = tokio::spawn(async move {
            if let Err(error) = transaction.commit().await {
                read_back(&maker.pool, first_event, id, error).await?;
            }
            if went_back.is_some() {
                maker.published.went_back.send_replace(went_back);
                maker.published.times_back.fetch_add(1, Ordering::Relaxed);
            }
            drop(timing);
            maker.published.news.lock().add(base_event, numbers, changes);
            let published = maker.published.publish(revision, last_event);
            drop(turn);
            published
        });
        commit.await.map_err(|_| DbError::Interrupted)??;
        Ok(Decided { value, revision: narrow(revision, "revision")? })
    }

    async fn swap(&mut self, revision: i64, last_event: i64) -> Result<(), DbError> {
        let swapped = query(
            "UPDATE settings SET revision = $1, last_event = $2, fencing_token = $3 \
             WHERE id = 1 AND revision = $4 AND last_event = $5 AND fencing_token = $6",
        )
        .bind(revision)
        .bind(last_event)
        .bind(self.maker.fencing_token)
        .bind(self.base.revision)
        .bind(self.base.last_event)
        .bind(self.base.fencing_token)
        .execute(&mut self.transaction)
        .await?;
        if swapped == 1 { Ok(()) } else { Err(Refusal::Collision.into()) }
    }

    async fn write_events(&mut self, revision: i64) -> Result<(), DbError> {
        let mut id = self.seen.last_event;
        for draft in std::mem::take(&mut self.drafts) {
            id = id.saturating_add(1);
            query(
                "INSERT INTO events (id, at_ms, revision, severity, kind, subject, message, decision) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(id)
            .bind(self.now_ms)
            .bind(revision)
            .bind(super::events::severity_word(draft.severity))
            .bind(draft.kind)
            .bind(draft.subject)
            .bind(draft.message)
            .bind(self.id)
            .execute(&mut self.transaction)
            .await?;
        }
        query("DELETE FROM events WHERE id <= $1")
            .bind(id.saturating_sub(EVENTS_KEPT))
            .execute(&mut self.transaction)
            .await?;
        Ok(())
    }
}

/// Finds out what became of a decision whose COMMIT was not answered, or answered by an error.
async fn read_back(pool: &Pool, event: i64, decision: Uuid, error: DbError) -> Result<(), DbError> {
    tracing::warn!(%error, "COMMIT was not answered; reading back what became of the decision");
    let deadline = Instant::now() + READ_BACK_WAIT;
    loop {
        match is_durable(pool, event, decision).await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(error),
            Err(_) if Instant::now() < deadline => tokio::time::sleep(READ_BACK_PAUSE).await,
            Err(_) => return Err(DbError::Unknown(error.to_string())),
        }
    }
}

async fn is_durable(pool: &Pool, event: i64, decision: Uuid) -> Result<bool, DbError> {
    let mut transaction = pool.begin_decision().await?;
    let found: Option<Option<Uuid>> = query_scalar("SELECT decision FROM events WHERE id = $1")
        .bind(event)
        .fetch_optional(&mut transaction)
        .await?;
    Ok(found.flatten() == Some(decision))
}
