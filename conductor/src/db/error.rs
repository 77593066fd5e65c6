//! Why MetaDB could not do something.

use std::path::PathBuf;

use thiserror::Error;

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
    /// The database failed.
    #[error("MetaDB failed: {0}")]
    Database(#[from] sqlx::Error),
    /// MetaDB holds what cannot be.
    #[error("MetaDB holds something that cannot be: {0}")]
    Damaged(String),
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
    #[error("the database in {} does not fit this version: {source}. Use the version that last wrote it, or a newer one", path.display())]
    Migrate {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
    /// It is no database, or it is damaged.
    #[error("cannot open the database {}: {source}. If the file is damaged, restore it from a backup", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
}
