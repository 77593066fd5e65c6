//! A PostgreSQL that lives as long as the test process: one for all its tests, with a database
//! for each, or one of its own for a test that stops it.
#![allow(dead_code, unused_macros, unused_imports, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, Executor, PgConnection};

/// Where Debian puts the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Who owns everything.
const USER: &str = "afs";

/// A user that needs a password. Everyone else is let in without.
pub const GUARDED: &str = "guarded";

const START_WAIT: Duration = Duration::from_secs(60);

/// Makes the data if need be and runs PostgreSQL until standard input ends, which it does with the
/// test process, however that ends. Then nothing is left, unless the last word was to keep it.
const KEEPER: &str = r#"
[ -d data ] || {
    "$PROGRAMS/initdb" --auth=trust --locale=C --encoding=UTF8 --no-sync --username=afs -D data
    printf 'local all guarded password\nlocal all all trust\n' > data/pg_hba.conf
}
"$PROGRAMS/postgres" -D data -k "$PWD" -F -c listen_addresses= -c max_connections=200 \
    -c shared_buffers=16MB -c full_page_writes=off & server=$!
read -r word
# While it starts it does not listen to this signal.
while kill -QUIT "$server"; do sleep 0.05; done
wait "$server"
[ "$word" = keep ] || rm -rf "$PWD"
"#;

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
                if let Some(home) = super::Home::postgres(stringify!($test)).await {
                    super::$test(home).await;
                }
            })*
        }
    };
}
pub(crate) use on_both;

/// A running PostgreSQL.
pub struct Server {
    folder: PathBuf,
    programs: PathBuf,
    keeper: Option<Child>,
}

/// Whether a test on PostgreSQL may run here; says by name why not.
pub fn may_run(test: &str) -> bool {
    if programs().is_some() {
        return true;
    }
    let reason = format!("no PostgreSQL in {VERSIONS}/*/bin: apt-get install postgresql");
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!must, "{test} cannot run: {reason}");
    // Not by a macro, whose output the harness keeps to itself when a test succeeds.
    let _ = writeln!(std::io::stderr(), "skipped {test} on PostgreSQL: {reason}");
    false
}

/// A database of its own for a test, on the server that all tests share; its URL.
pub async fn database() -> String {
    shared().database().await
}

/// The server that all tests of a process share.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}

impl Server {
    pub fn start() -> Self {
        let programs = programs().unwrap();
        let folder = tempfile::Builder::new().prefix("afs-pg-").tempdir_in("/tmp").unwrap().keep();
        if let Some((user, group)) = other_user() {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let mut server = Self { folder, programs, keeper: None };
        server.go_on();
        server
    }

    /// Starts it again, on the data that it had.
    pub fn go_on(&mut self) {
        let log = File::create(self.folder.join("log")).unwrap();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER]).current_dir(&self.folder).env("PROGRAMS", &self.programs);
        // A terminal's interrupt is for the test process alone.
        keeper.process_group(0).stdin(Stdio::piped());
        keeper.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some((user, group)) = other_user() {
            keeper.uid(user).gid(group);
        }
        self.keeper = Some(keeper.spawn().unwrap());
    }

    /// Stops it at once, as a crash would; its data stays.
    pub fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.stdin.take().unwrap().write_all(b"keep\n").unwrap();
            keeper.wait().unwrap();
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    pub fn url(&self, database: &str) -> String {
        self.url_as(USER, database)
    }

    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@localhost/{database}?host={}", self.folder.display())
    }

    /// Makes a database and returns its name.
    pub async fn new_database(&self) -> String {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", LAST.fetch_add(1, Ordering::Relaxed));
        let mut connection = self.connect("postgres").await;
        let statement = format!("CREATE DATABASE {name} TEMPLATE template0");
        connection.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        connection.close().await.unwrap();
        name
    }

    pub async fn database(&self) -> String {
        self.url(&self.new_database().await)
    }

    /// A connection of the test's own, as soon as there can be one.
    pub async fn connect(&self, database: &str) -> PgConnection {
        let options: sqlx::postgres::PgConnectOptions = self.url(database).parse().unwrap();
        let started = Instant::now();
        loop {
            match options.connect().await {
                Ok(connection) => return connection,
                Err(error) if started.elapsed() > START_WAIT => {
                    let log = std::fs::read_to_string(self.folder.join("log"));
                    panic!("PostgreSQL does not start: {error}\n{}", log.unwrap_or_default());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// The newest version's programs.
fn programs() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = std::fs::read_dir(VERSIONS).ok()?.flatten().map(|entry| entry.path());
    let newest = versions
        .filter(|path| path.join("bin/initdb").is_file())
        .max_by_key(|path| version(path))?;
    Some(newest.join("bin"))
}

/// Root may not run PostgreSQL; the package has a user for that.
fn other_user() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse::<u32>().unwrap());
        Some((ids.next()?, ids.next()?))
    };
    user("postgres").or_else(|| user("nobody"))
}
