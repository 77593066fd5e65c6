//! Statements that both databases understand: `$1`, `RETURNING`, `ON CONFLICT`.
//!
//! [`query`], [`query_as`] and [`query_scalar`] are used like those of sqlx, which cannot leave
//! the choice of the database to run time.

use std::marker::PhantomData;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Postgres, Sqlite};
use uuid::Uuid;

use super::DbError;
use super::backend::Transaction;

/// A value in a statement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(Option<bool>),
    Int(Option<i64>),
    Text(Option<String>),
    Uuid(Option<Uuid>),
}

macro_rules! value_from {
    ($($type:ty => $variant:ident),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(Some(value))
            }
        }

        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value)
            }
        }
    )*};
}

value_from!(bool => Bool, i64 => Int, Uuid => Uuid);

impl From<&str> for Value {
    /// PostgreSQL's texts cannot hold NUL, so on neither database do ours.
    fn from(value: &str) -> Self {
        Self::Text(Some(value.replace('\0', "\u{fffd}")))
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        value.as_str().into()
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        value.as_str().into()
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        value.map_or(Self::Text(None), Self::from)
    }
}

impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        value.as_deref().into()
    }
}

/// Hands the values of a statement to sqlx's statement of either kind.
macro_rules! bind_all {
    ($query:expr, $values:expr) => {
        $values.into_iter().fold($query, |query, value| match value {
            Value::Bool(value) => query.bind(value),
            Value::Int(value) => query.bind(value),
            Value::Text(value) => query.bind(value),
            Value::Uuid(value) => query.bind(value),
        })
    };
}

/// Runs the same on a transaction of either database: `$db` is the database, `$connection` the
/// connection.
macro_rules! on_each {
    ($transaction:expr, |$connection:ident: $db:ident| $run:expr) => {
        match $transaction {
            Transaction::Sqlite(transaction) => {
                type $db = Sqlite;
                let $connection = &mut **transaction;
                Ok($run.await?)
            }
            Transaction::Postgres(transaction) => {
                type $db = Postgres;
                let ($connection, patience) = transaction.parts()?;
                patience.wait($run).await
            }
        }
    };
}

/// A row of either database.
pub(super) trait Record:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Record for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

/// A statement.
#[must_use = "a statement does nothing until it is executed"]
pub(super) struct Query {
    sql: &'static str,
    values: Vec<Value>,
}

/// A statement that returns rows.
#[must_use = "a statement does nothing until its rows are fetched"]
pub(super) struct QueryAs<T> {
    query: Query,
    row: PhantomData<fn() -> T>,
}

/// A statement that returns rows of one column.
#[must_use = "a statement does nothing until its rows are fetched"]
pub(super) struct QueryScalar<T> {
    query: QueryAs<(T,)>,
}

/// A statement that returns no rows.
pub(super) fn query(sql: &'static str) -> Query {
    Query { sql, values: Vec::new() }
}

/// A statement whose rows become values of this type, column by column's name.
pub(super) fn query_as<T>(sql: &'static str) -> QueryAs<T> {
    QueryAs { query: query(sql), row: PhantomData }
}

/// A statement that returns one column.
pub(super) fn query_scalar<T>(sql: &'static str) -> QueryScalar<T> {
    QueryScalar { query: query_as(sql) }
}

impl Query {
    /// The next value: `$1` first.
    pub(super) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it and returns how many rows it changed.
    pub(super) async fn execute(self, on: &mut Transaction) -> Result<u64, DbError> {
        let Self { sql, values } = self;
        on_each!(on, |connection: Db| async {
            let query = bind_all!(sqlx::query::<Db>(sql), values);
            query.execute(connection).await.map(|done| done.rows_affected())
        })
    }
}

impl<T: Record> QueryAs<T> {
    /// The next value: `$1` first.
    pub(super) fn bind(self, value: impl Into<Value>) -> Self {
        Self { query: self.query.bind(value), row: PhantomData }
    }

    /// All rows.
    pub(super) async fn fetch_all(self, on: &mut Transaction) -> Result<Vec<T>, DbError> {
        let Query { sql, values } = self.query;
        on_each!(on, |connection: Db| async {
            bind_all!(sqlx::query_as::<Db, T>(sql), values).fetch_all(connection).await
        })
    }

    /// The row, if there is one.
    pub(super) async fn fetch_optional(self, on: &mut Transaction) -> Result<Option<T>, DbError> {
        let Query { sql, values } = self.query;
        on_each!(on, |connection: Db| async {
            bind_all!(sqlx::query_as::<Db, T>(sql), values).fetch_optional(connection).await
        })
    }

    /// The row, which must be there.
    pub(super) async fn fetch_one(self, on: &mut Transaction) -> Result<T, DbError> {
        let row = self.fetch_optional(on).await?;
        row.ok_or_else(|| DbError::Database(sqlx::Error::RowNotFound))
    }
}

impl<T> QueryScalar<T>
where
    (T,): Record,
{
    /// The next value: `$1` first.
    pub(super) fn bind(self, value: impl Into<Value>) -> Self {
        Self { query: self.query.bind(value) }
    }

    /// The column of all rows.
    pub(super) async fn fetch_all(self, on: &mut Transaction) -> Result<Vec<T>, DbError> {
        Ok(self.query.fetch_all(on).await?.into_iter().map(|(value,)| value).collect())
    }

    /// The column of the row, if there is one.
    pub(super) async fn fetch_optional(self, on: &mut Transaction) -> Result<Option<T>, DbError> {
        Ok(self.query.fetch_optional(on).await?.map(|(value,)| value))
    }

    /// The column of the row, which must be there.
    pub(super) async fn fetch_one(self, on: &mut Transaction) -> Result<T, DbError> {
        Ok(self.query.fetch_one(on).await?.0)
    }
}
