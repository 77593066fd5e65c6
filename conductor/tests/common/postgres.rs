//! PostgreSQL for tests (`nvmf_tests::postgres`), and what only these tests do with it.
#![allow(dead_code, unused_macros, unused_imports, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used)]

pub use nvmf_tests::postgres::{GUARDED, Server, may_run, shared};
use sqlx::{ConnectOptions, PgConnection};

/// A test's part on SQLite and on PostgreSQL: each function takes a `Home`.
macro_rules! on_both {
    ($($test:ident,)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Home::sqlite()).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                if let Some(home) = super::Home::postgres(stringify!($test)) {
                    super::$test(home).await;
                }
            })*
        }
    };
}
pub(crate) use on_both;

/// A database of its own for a test, on the server that all tests share; its URL.
pub fn database() -> String {
    database_on(shared())
}

/// The same on a server of the test's own.
pub fn database_on(server: &Server) -> String {
    server.url(&server.new_database().unwrap())
}

/// A connection of the test's own.
pub async fn connect(server: &Server, database: &str) -> PgConnection {
    let options: sqlx::postgres::PgConnectOptions = server.url(database).parse().unwrap();
    options.connect().await.unwrap()
}
