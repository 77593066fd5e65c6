//! Why MetaDB could not do something.

use std::path::PathBuf;

use thiserror::Error;

use super::Place;
use crate::refusal::Refusal;

/// Why a call of MetaDB failed.
#[derive(Debug, Error)]
pub enum DbError {
    /// Understood and refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another conductor has taken over; this one must stop deciding.
    #[error("another conductor has taken over MetaDB")]
    Fenced,
    /// The process is ending; whether the decision became durable is not known.
    #[error("the conductor stopped in the middle of the decision")]
    Interrupted,
    /// The database does not answer, or not for now; nothing was decided.
    #[error("MetaDB cannot be reached: {0}")]
    Unavailable(sqlx::Error),
    /// The database stopped answering at the end of a decision and could not be asked again.
    #[error("it is not known whether this was decided: {0}")]
    Unknown(String),
    /// The database failed.
    #[error("MetaDB failed: {0}")]
    Database(sqlx::Error),
    /// MetaDB holds what cannot be.
    #[error("MetaDB holds something that cannot be: {0}")]
    Damaged(String),
}

impl DbError {
    /// What cannot be written as JSON, which everything in MetaDB can be.
    pub(super) fn unwritable(error: &serde_json::Error) -> Self {
        Self::Damaged(format!("what cannot be written as JSON: {error}"))
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match fault(&error) {
            Fault::Passing => Self::Unavailable(error),
            Fault::Collision => Refusal::Collision.into(),
            Fault::Lasting => Self::Database(error),
        }
    }
}

/// What an error of a database means for whoever sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It passes by itself when the database or the way to it is back.
    Passing,
    /// Somebody else was first; the same may be tried again.
    Collision,
    /// Somebody has to do something.
    Lasting,
}

/// Tells them apart. The codes are PostgreSQL's; SQLite's are short numbers.
pub(super) fn fault(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Fault::Passing,
        sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Fault::Passing
        }
        sqlx::Error::Database(error) => error.code().map_or(Fault::Lasting, |code| by_code(&code)),
        _ => Fault::Lasting,
    }
}

fn by_code(code: &str) -> Fault {
    match code {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Fault::Collision,
        // read_only_sql_transaction (a standby), too_many_connections, lock_not_available,
        // query_canceled (statement_timeout), idle_in_transaction_session_timeout
        "25006" | "53300" | "55P03" | "57014" | "25P03" => Fault::Passing,
        // connection_exception; admin_shutdown, crash_shutdown, cannot_connect_now
        _ if code.starts_with("08") || code.starts_with("57P") => Fault::Passing,
        _ => Fault::Lasting,
    }
}

impl OpenError {
    /// Whether it passes by itself, so that one may wait and try again.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// Why MetaDB could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The folder cannot be made, or not be written.
    #[error("cannot use the data folder {}: {source}. Check its path and who owns it", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "the data folder {} is in use by another conductor or afs process{}. Stop that one, or choose another folder",
        path.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process that has it, if it said.
        pid: Option<u32>,
    },
    /// A newer version wrote the database, or a migration was changed.
    #[error(
        "the database in {place} does not fit this version: {source}. Use the version that last wrote it, or a newer one"
    )]
    Migrate {
        /// Where it is.
        place: Place,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
    /// It is no database, or it is damaged.
    #[error("cannot open the database {}: {source}. If the file is damaged, restore it from a backup", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DbError,
    },
    /// PostgreSQL does not answer, or not yet.
    #[error("cannot reach {place}: {source}")]
    Unreachable {
        /// Where it should be.
        place: Place,
        /// Why not.
        source: DbError,
    },
    /// PostgreSQL answers, and says no.
    #[error("cannot use {place}: {source}. {hint}")]
    NotUsable {
        /// Where it is.
        place: Place,
        /// Why not.
        source: DbError,
        /// What to do about it.
        hint: &'static str,
    },
}
