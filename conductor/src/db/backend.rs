//! The two databases that MetaDB runs on, behind one face: a pool of each, and transactions of
//! either. What differs between them is here, in `sqlite.rs` and in `postgres.rs`; statements are
//! the same (`query.rs`).
//!
//! - A view sees one moment, however long it lasts.
//! - Decisions come one after the other: each takes the write lock before it reads anything, so
//!   none is ever based on what another one is about to change, and none has to be repeated. On
//!   SQLite that is the lock of the file, on PostgreSQL the lock of the row in `settings`, which
//!   conductors on different machines share.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Sqlite, SqlitePool};

use super::DbError;
use super::postgres::{PostgresPool, PostgresTransaction};

/// The tables; one set for both.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!();

/// An open database.
#[derive(Clone, Debug)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PostgresPool),
}

/// A view or a decision in progress. Dropped without a commit, it leaves no trace.
pub(super) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(PostgresTransaction),
}

impl Pool {
    /// Begins a view of one moment.
    pub(super) async fn begin_view(&self) -> Result<Transaction, DbError> {
        Ok(match self {
            Self::Sqlite(pool) => Transaction::Sqlite(pool.begin().await?),
            Self::Postgres(pool) => Transaction::Postgres(pool.begin_view().await?),
        })
    }

    /// Waits for earlier decisions to end, and begins one.
    pub(super) async fn begin_decision(&self) -> Result<Transaction, DbError> {
        Ok(match self {
            Self::Sqlite(pool) => Transaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Transaction::Postgres(pool.begin_decision().await?),
        })
    }

    /// Makes or brings up to date the tables.
    pub(super) async fn migrate(&self) -> Result<(), MigrateError> {
        match self {
            Self::Sqlite(pool) => MIGRATIONS.run(pool).await,
            Self::Postgres(pool) => pool.migrate().await,
        }
    }

    /// Closes all connections; SQLite writes back what is in its log.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Transaction {
    /// Makes it durable. After an error nobody knows whether it is.
    pub(super) async fn commit(self) -> Result<(), DbError> {
        match self {
            Self::Sqlite(transaction) => Ok(transaction.commit().await?),
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }

    /// Ends it without a trace, before the caller goes on.
    pub(super) async fn rollback(self) -> Result<(), DbError> {
        match self {
            Self::Sqlite(transaction) => Ok(transaction.rollback().await?),
            Self::Postgres(transaction) => transaction.rollback().await,
        }
    }
}
