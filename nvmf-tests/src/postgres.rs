//! A PostgreSQL of a test's own, gone when the test or its process is: one for all tests of a process, with a database for
//! each, or one for a test that stops it.
//!
//! Tests of other crates use it, too. Where PostgreSQL is not installed they are skipped by name; with `CI=true` that is a
//! failure.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{tail, wait_until};

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

/// A running PostgreSQL, or one that was stopped for a while.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    programs: PathBuf,
    keeper: Option<Child>,
}

/// What keeps a PostgreSQL from being started here, if anything.
pub fn obstacle() -> Option<String> {
    programs()
        .is_none()
        .then(|| format!("no PostgreSQL in {VERSIONS}/*/bin: apt-get install postgresql"))
}

/// Whether a test on PostgreSQL may run here; says by name why not.
#[allow(clippy::panic, reason = "called by tests only, where a panic is the way to fail")]
pub fn may_run(test: &str) -> bool {
    let Some(reason) = obstacle() else { return true };
    let must = env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!must, "{test} cannot run: {reason}");
    // Not by a macro, whose output the harness keeps to itself when a test succeeds.
    let _ = writeln!(std::io::stderr(), "lab: skipped {test} on PostgreSQL: {reason}");
    false
}

/// The server that all tests of a process share.
#[allow(clippy::panic, reason = "called by tests only, where a panic is the way to fail")]
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| match Server::start() {
        Ok(server) => server,
        Err(error) => panic!("PostgreSQL: {error:#}"),
    })
}

impl Server {
    /// An empty server; [`new_database`](Self::new_database) waits until it answers.
    pub fn start() -> Result<Self> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let programs = programs().with_context(|| obstacle().unwrap_or_default())?;
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        // Not in the lab's own folder: PostgreSQL's user may not be able to enter that.
        let name = format!("afs-pg-{}-{number}", std::process::id());
        let folder = env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&folder).context("a folder for PostgreSQL")?;
        if let Some((user, group)) = other_user()? {
            chown(&folder, Some(user), Some(group))?;
        }
        let mut server = Self { folder, programs, keeper: None };
        server.go_on()?;
        Ok(server)
    }

    /// Starts it again, on the data that it had.
    pub fn go_on(&mut self) -> Result<()> {
        let log = File::create(self.folder.join("log"))?;
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER]).current_dir(&self.folder).env("PROGRAMS", &self.programs);
        // A terminal's interrupt is for the test process alone.
        keeper.process_group(0).stdin(Stdio::piped());
        keeper.stdout(log.try_clone()?).stderr(log);
        if let Some((user, group)) = other_user()? {
            keeper.uid(user).gid(group);
        }
        self.keeper = Some(keeper.spawn().context("start PostgreSQL")?);
        Ok(())
    }

    /// Stops it at once, as a crash would; its data stays.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut keeper) = self.keeper.take() else { return Ok(()) };
        keeper.stdin.take().context("the keeper's input")?.write_all(b"keep\n")?;
        keeper.wait()?;
        Ok(())
    }

    /// `kill -9` of the server and of all that it has started; its data stays.
    pub fn kill(&mut self) -> Result<()> {
        let known = fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        let first = known.lines().next().context("PostgreSQL's process id")?;
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"))?;
        let all: Vec<&str> = std::iter::once(first).chain(children.split_whitespace()).collect();
        for id in &all {
            let id = Pid::from_raw(id.parse()?).context("process id")?;
            // A worker may have ended by itself meanwhile.
            let _ = kill_process(id, Signal::KILL);
        }
        self.stop()?;
        // A start beside the rest of an old one would be refused.
        wait_until("the end of PostgreSQL", START_WAIT, || {
            let left = all.iter().any(|id| Path::new("/proc").join(id).join("exe").exists());
            Ok((!left).then_some(()))
        })
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// The URL of a database for its owner.
    pub fn url(&self, database: &str) -> String {
        self.url_as(USER, database)
    }

    /// The same for another user.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@localhost/{database}?host={}", self.folder.display())
    }

    /// Makes a database, as soon as the server answers, and returns its name.
    pub fn new_database(&self) -> Result<String> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", LAST.fetch_add(1, Ordering::Relaxed));
        let mut last = String::new();
        let made = wait_until("PostgreSQL to make a database", START_WAIT, || {
            let mut createdb = Command::new(self.programs.join("createdb"));
            createdb.arg("--host").arg(&self.folder).args(["--username", USER]);
            createdb.args(["--maintenance-db=postgres", "--template=template0", &name]);
            let output = createdb.stdin(Stdio::null()).output().context("start createdb")?;
            last = String::from_utf8_lossy(&output.stderr).into_owned();
            Ok(output.status.success().then_some(()))
        });
        let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        made.with_context(|| format!("{last}\n{}", tail(&log(), 10)))?;
        Ok(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// The newest version's programs.
fn programs() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir(VERSIONS).ok()?.flatten().map(|entry| entry.path());
    let newest = versions
        .filter(|path| path.join("bin/initdb").is_file())
        .max_by_key(|path| version(path))?;
    Some(newest.join("bin"))
}

/// Root may not run PostgreSQL; the package has a user for that.
fn other_user() -> Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let user = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map_while(|id| id.parse::<u32>().ok());
        Some((ids.next()?, ids.next()?))
    };
    match user("postgres").or_else(|| user("nobody")) {
        Some(found) => Ok(Some(found)),
        None => bail!("root may not run PostgreSQL, and there is neither `postgres` nor `nobody`"),
    }
}
