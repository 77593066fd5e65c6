//! MetaDB in PostgreSQL: for conductors on several machines.
//!
//! Nothing here waits for ever. The server ends a statement, a wait for a lock and an idle
//! transaction by itself; if it does not even answer, we stop waiting, and the connection is
//! given up. The pool makes a new one when it is next needed.

use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool, Postgres};
use thiserror::Error;
use tokio::time::timeout;

use super::DbError;
use super::backend::MIGRATIONS;

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// PostgreSQL's default allows 100 in all; conductors are few.
const CONNECTIONS_MAX: u32 = 8;

/// For a connection out of the pool, or a new one.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// What the server is told, in milliseconds. It ends a decision that is left open (its conductor
/// froze, or its machine is gone) before those who wait for it have waited too long.
const SESSION: [(&str, &str); 3] = [
    ("idle_in_transaction_session_timeout", "4000"),
    ("lock_timeout", "6000"),
    ("statement_timeout", "6500"),
];

/// For any answer; longer than what the server itself enforces.
const ANSWER_WAIT: Duration = Duration::from_secs(7);

/// For migrations, which may have much to do.
const MIGRATE_WAIT: Duration = Duration::from_secs(600);

/// For the end of a transaction that nobody waits for.
const ROLLBACK_WAIT: Duration = Duration::from_secs(5);

const BEGIN_VIEW: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Each statement sees all that was committed before it, and after [`LOCK`] nobody else commits.
const BEGIN_DECISION: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

const LOCK: &str = "SELECT id FROM settings WHERE id = 1 FOR UPDATE";

/// Where a database of PostgreSQL is. Shown without its password.
#[derive(Clone)]
pub struct PostgresUrl(Arc<Parsed>);

struct Parsed {
    text: String,
    options: PgConnectOptions,
}

impl PartialEq for PostgresUrl {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for PostgresUrl {}

/// A text that does not say where a database is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadUrl {
    /// Another scheme, or none.
    #[error("a database URL begins with postgres://, such as postgres://afs@db.example/afs")]
    Scheme,
    /// Something else is wrong with it.
    #[error("this is not a database URL such as postgres://afs@db.example/afs: {0}")]
    Malformed(String),
    /// It names no database.
    #[error("the URL names no database; append it, such as postgres://afs@db.example/afs")]
    NoDatabase,
}

impl FromStr for PostgresUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        if !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(BadUrl::Scheme);
        }
        let options: PgConnectOptions = text.parse().map_err(|error| match error {
            sqlx::Error::Configuration(error) => BadUrl::Malformed(error.to_string()),
            error => BadUrl::Malformed(error.to_string()),
        })?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(BadUrl::NoDatabase);
        }
        Ok(Self(Arc::new(Parsed { text: text.to_owned(), options })))
    }
}

impl std::fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let options = &self.0.options;
        let (user, database) = (options.get_username(), options.get_database().unwrap_or_default());
        match options.get_socket() {
            Some(socket) => write!(f, "postgres://{user}@/{database}?host={}", socket.display()),
            None => {
                write!(f, "postgres://{user}@{}:{}/", options.get_host(), options.get_port())?;
                f.write_str(database)
            }
        }
    }
}

impl std::fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// A bounded number of connections.
#[derive(Clone, Debug)]
pub(super) struct PostgresPool {
    pool: PgPool,
}

impl PostgresPool {
    /// Connects once, so that what is wrong is known, and leaves the rest to the pool.
    pub(super) async fn connect(url: &PostgresUrl) -> Result<Self, sqlx::Error> {
        let options = url.0.options.clone().application_name("conductor").options(SESSION);
        let first = timeout(CONNECT_WAIT, options.connect()).await;
        first.map_err(|_| no_answer())??.close().await?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(CONNECT_WAIT)
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    pub(super) async fn begin_view(&self) -> Result<PostgresTransaction, DbError> {
        let mut transaction = PostgresTransaction::new(self.pool.acquire().await?);
        transaction.command(BEGIN_VIEW).await?;
        Ok(transaction)
    }

    pub(super) async fn begin_decision(&self) -> Result<PostgresTransaction, DbError> {
        let mut transaction = PostgresTransaction::new(self.pool.acquire().await?);
        transaction.command(BEGIN_DECISION).await?;
        transaction.command(LOCK).await?;
        Ok(transaction)
    }

    pub(super) async fn migrate(&self) -> Result<(), sqlx::migrate::MigrateError> {
        let migrate = async {
            let mut connection = self.pool.acquire().await?;
            // Of conductors that start together one migrates; the others wait for its lock.
            connection.execute("SET statement_timeout = 0; SET lock_timeout = 0").await?;
            // Such a connection is not to be used for anything else.
            connection.close_on_drop();
            MIGRATIONS.run(&mut *connection).await
        };
        timeout(MIGRATE_WAIT, migrate).await.unwrap_or_else(|_| Err(no_answer().into()))
    }

    pub(super) async fn close(&self) {
        // It waits for connections in use; those of hanging calls are not worth it.
        let _ = timeout(ROLLBACK_WAIT, self.pool.close()).await;
    }
}

fn no_answer() -> sqlx::Error {
    let text = "the database does not answer";
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

/// A transaction whose connection is given up when it stops answering.
pub(super) struct PostgresTransaction {
    /// Taken at the end.
    connection: Option<PoolConnection<Postgres>>,
    /// It did not answer in time, so it is not to be used again.
    hangs: bool,
}

/// Waits for an answer, not for ever.
pub(super) struct Patience<'a> {
    hangs: &'a mut bool,
}

impl Patience<'_> {
    pub(super) async fn wait<T>(
        self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, DbError> {
        match timeout(ANSWER_WAIT, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                *self.hangs = true;
                Err(no_answer().into())
            }
        }
    }
}

impl PostgresTransaction {
    fn new(connection: PoolConnection<Postgres>) -> Self {
        Self { connection: Some(connection), hangs: false }
    }

    /// The connection, and what limits the wait for its answers.
    pub(super) fn parts(&mut self) -> Result<(&mut PgConnection, Patience<'_>), DbError> {
        match &mut self.connection {
            Some(connection) => Ok((connection, Patience { hangs: &mut self.hangs })),
            None => Err(sqlx::Error::PoolClosed.into()),
        }
    }

    async fn command(&mut self, sql: &'static str) -> Result<(), DbError> {
        let (connection, patience) = self.parts()?;
        patience.wait(connection.execute(sql)).await?;
        Ok(())
    }

    pub(super) async fn commit(self) -> Result<(), DbError> {
        self.end("COMMIT").await
    }

    pub(super) async fn rollback(self) -> Result<(), DbError> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> Result<(), DbError> {
        self.command(how).await?;
        self.connection = None;
        Ok(())
    }
}

impl Drop for PostgresTransaction {
    /// Ends it behind the caller's back: the next user of the connection must not be in it.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if self.hangs {
            connection.close_on_drop();
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let ended = timeout(ROLLBACK_WAIT, connection.execute("ROLLBACK")).await;
                if !matches!(ended, Ok(Ok(_))) {
                    connection.close_on_drop();
                }
            });
        }
    }
}
