//! One decision: one transaction, one revision, at least one event.

use std::sync::Arc;
use std::time::Instant;

use metrics::Histogram;
use tokio::sync::watch;

use super::DbError;
use super::backend::Transaction;
use super::numbers::{narrow, now_ms, sql};
use super::query::{query, query_as};
use crate::api::Severity;
use crate::refusal::Refusal;

/// Events kept; older ones are dropped as new ones come.
const EVENTS_KEPT: i64 = 100_000;

/// A decision that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided<T> {
    /// What was decided.
    pub value: T,
    /// The revision after it.
    pub revision: u64,
}

/// What was committed, for those who wait for it.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) revision: Arc<watch::Sender<u64>>,
    pub(super) last_event: Arc<watch::Sender<u64>>,
}

impl Published {
    pub(super) fn new(revision: u64, last_event: u64) -> Self {
        Self {
            revision: Arc::new(watch::Sender::new(revision)),
            last_event: Arc::new(watch::Sender::new(last_event)),
        }
    }

    /// Two commits may publish in the wrong order; a value never goes back.
    fn publish(&self, revision: u64, last_event: u64) {
        raise(&self.revision, revision);
        raise(&self.last_event, last_event);
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
    published: Published,
    base: Base,
    timing: Timing,
    changed: bool,
    drafts: Vec<Draft>,
    /// The moment of the decision: milliseconds since 1970.
    pub(super) now_ms: i64,
}

#[derive(sqlx::FromRow)]
struct Base {
    revision: i64,
    fencing_token: i64,
    last_event: i64,
}

impl Decision {
    /// Reads what the decision will be based on.
    pub(super) async fn begin(
        mut transaction: Transaction,
        fencing_token: i64,
        published: Published,
        timing: Timing,
    ) -> Result<Self, DbError> {
        let base: Base =
            query_as("SELECT revision, fencing_token, last_event FROM settings WHERE id = 1")
                .fetch_one(&mut transaction)
                .await?;
        if base.fencing_token != fencing_token {
            return Err(DbError::Fenced);
        }
        Ok(Self {
            transaction,
            published,
            base,
            timing,
            changed: false,
            drafts: Vec::new(),
            now_ms: now_ms(),
        })
    }

    /// To read and write within the decision.
    pub(super) fn connection(&mut self) -> &mut Transaction {
        &mut self.transaction
    }

    /// Records a change that nodes must learn of.
    pub(super) fn changed(&mut self, kind: &'static str, subject: &str, message: String) {
        self.changed = true;
        self.note(Severity::Info, kind, subject, message);
    }

    /// The same, when somebody should look at it.
    pub(super) fn warn(&mut self, kind: &'static str, subject: &str, message: String) {
        self.changed = true;
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
            return Ok(Decided { value, revision });
        }
        let revision = self.base.revision + i64::from(self.changed);
        let last_event = self.base.last_event.saturating_add(sql(self.drafts.len()));
        self.swap(revision, last_event).await?;
        self.write_events(revision).await?;
        let (revision, last_event) =
            (narrow(revision, "revision")?, narrow(last_event, "event id")?);
        let Self { transaction, published, timing, .. } = self;
        // On its own task: a caller that goes away must not leave a commit without its news.
        let commit = tokio::spawn(async move {
            transaction.commit().await?;
            published.publish(revision, last_event);
            drop(timing);
            Ok::<(), DbError>(())
        });
        commit.await.map_err(|_| DbError::Interrupted)??;
        Ok(Decided { value, revision })
    }

    async fn swap(&mut self, revision: i64, last_event: i64) -> Result<(), DbError> {
        let swapped = query(
            "UPDATE settings SET revision = $1, last_event = $2 \
             WHERE id = 1 AND revision = $3 AND last_event = $4 AND fencing_token = $5",
        )
        .bind(revision)
        .bind(last_event)
        .bind(self.base.revision)
        .bind(self.base.last_event)
        .bind(self.base.fencing_token)
        .execute(&mut self.transaction)
        .await?;
        if swapped == 1 { Ok(()) } else { Err(Refusal::Collision.into()) }
    }

    async fn write_events(&mut self, revision: i64) -> Result<(), DbError> {
        let mut id = self.base.last_event;
        for draft in std::mem::take(&mut self.drafts) {
            id = id.saturating_add(1);
            query(
                "INSERT INTO events (id, at_ms, revision, severity, kind, subject, message) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(id)
            .bind(self.now_ms)
            .bind(revision)
            .bind(super::events::severity_word(draft.severity))
            .bind(draft.kind)
            .bind(draft.subject)
            .bind(draft.message)
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
