//! Where MetaDB is, and what is wrong when it cannot be opened there.

use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateError;

use super::backend::Pool;
use super::lock::FolderLock;
use super::postgres::{PostgresPool, PostgresUrl};
use super::{DbError, OpenError, sqlite};

/// Where MetaDB is. Shown without a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file of SQLite in this folder, which only one process uses at a time.
    Folder(PathBuf),
    /// A database of PostgreSQL.
    Postgres(PostgresUrl),
}

impl From<&Path> for Place {
    fn from(folder: &Path) -> Self {
        Self::Folder(folder.to_owned())
    }
}

impl From<PathBuf> for Place {
    fn from(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }
}

impl From<PostgresUrl> for Place {
    fn from(url: PostgresUrl) -> Self {
        Self::Postgres(url)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl Place {
    pub(super) async fn connect(&self) -> Result<(Pool, Option<FolderLock>), OpenError> {
        match self {
            Self::Folder(folder) => {
                let lock = FolderLock::take(folder)?;
                let pool = sqlite::connect(&folder.join(sqlite::FILE)).await;
                let pool = pool.map_err(|error| self.error(error.into()))?;
                Ok((Pool::Sqlite(pool), Some(lock)))
            }
            Self::Postgres(url) => {
                let pool = PostgresPool::connect(url).await;
                Ok((Pool::Postgres(pool.map_err(|error| self.error(error.into()))?), None))
            }
        }
    }

    pub(super) fn error(&self, source: DbError) -> OpenError {
        let place = self.clone();
        match (self, source) {
            (Self::Folder(folder), source) => {
                OpenError::Database { path: folder.join(sqlite::FILE), source }
            }
            (_, source @ DbError::Unavailable(_)) => OpenError::Unreachable { place, source },
            (_, source) => OpenError::NotUsable { place, hint: hint(&source), source },
        }
    }

    pub(super) fn migrate_error(&self, error: MigrateError) -> OpenError {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)
                if matches!(self, Self::Postgres(_)) =>
            {
                self.error(error.into())
            }
            source => OpenError::Migrate { place: self.clone(), source },
        }
    }
}

/// What helps, by PostgreSQL's error code.
fn hint(error: &DbError) -> &'static str {
    let code = match error {
        DbError::Database(sqlx::Error::Database(error)) => error.code().unwrap_or_default(),
        _ => Default::default(),
    };
    match &*code {
        "28P01" | "28000" => {
            "Check user and password (in the URL, in PGPASSWORD or in ~/.pgpass) and the server's \
             pg_hba.conf"
        }
        "3D000" => {
            "Make it first, such as: createdb --encoding=UTF8 --locale=C --template=template0 NAME"
        }
        "42501" => "Its user must be allowed to make tables: let it own the database",
        _ => "The server's log may say more",
    }
}
