//! Reading and writing events.

use super::numbers::sql;
use super::query::query_as;
use super::{DbError, MetaDb};
use crate::api::{Event, Severity};

/// Events returned by one call at most.
pub const EVENTS_MAX: u32 = 1000;

#[derive(sqlx::FromRow)]
struct EventRow {
    #[sqlx(try_from = "i64")]
    id: u64,
    #[sqlx(try_from = "i64")]
    at_ms: u64,
    #[sqlx(try_from = "i64")]
    revision: u64,
    severity: String,
    kind: String,
    subject: String,
    message: String,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        let severity = match row.severity.as_str() {
            "info" => Severity::Info,
            _ => Severity::Warning,
        };
        Self {
            id: row.id,
            at_ms: row.at_ms,
            revision: row.revision,
            severity,
            kind: row.kind,
            subject: row.subject,
            message: row.message,
        }
    }
}

pub(super) fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
    }
}

impl MetaDb {
    /// Up to `limit` events above `after`, oldest first; without `after` the newest ones.
    pub async fn events(&self, after: Option<u64>, limit: u32) -> Result<Vec<Event>, DbError> {
        let limit = i64::from(limit.clamp(1, EVENTS_MAX));
        let mut view = self.read().await?;
        let rows: Vec<EventRow> = query_as(match after {
            Some(_) => "SELECT * FROM events WHERE id > $1 ORDER BY id LIMIT $2",
            None => {
                "SELECT * FROM (SELECT * FROM events WHERE id > $1 ORDER BY id DESC LIMIT $2) \
                 AS newest ORDER BY id"
            }
        })
        .bind(sql(after.unwrap_or(0)))
        .bind(limit)
        .fetch_all(&mut view)
        .await?;
        Ok(rows.into_iter().map(Event::from).collect())
    }

    /// Records something that happened and that changes no node's duties.
    pub async fn note(
        &self,
        severity: Severity,
        kind: &'static str,
        subject: &str,
        message: String,
    ) -> Result<(), DbError> {
        self.note_all([(severity, kind, subject, message)]).await
    }

    /// Records several such things.
    pub async fn note_all<'a>(
        &self,
        notes: impl IntoIterator<Item = (Severity, &'static str, &'a str, String)>,
    ) -> Result<(), DbError> {
        let mut decision = self.begin().await?;
        for (severity, kind, subject, message) in notes {
            decision.note(severity, kind, subject, message);
        }
        decision.commit(()).await?;
        Ok(())
    }
}
