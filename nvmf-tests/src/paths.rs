//! Where the lab finds and keeps things: the cache with kernels, one folder per run, and the programs built beside it.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// The folder that outlives a run: unpacked kernels and initrds. `AFS_LAB_CACHE` moves it.
pub fn cache() -> Result<PathBuf> {
    let path = match (env::var_os("AFS_LAB_CACHE"), env::var_os("HOME")) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(home)) => Path::new(&home).join(".cache/afs-lab"),
        (None, None) => bail!(
            "neither AFS_LAB_CACHE nor HOME is set: set AFS_LAB_CACHE to a folder for kernels"
        ),
    };
    fs::create_dir_all(&path)
        .with_context(|| format!("create the lab's cache {}", path.display()))?;
    path.canonicalize().with_context(|| format!("resolve {}", path.display()))
}

/// A folder of one guest or one node, removed when dropped. A killed process leaves its folder behind; the next run
/// sees that nobody holds the lock in it and removes it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

static NEXT_RUN: AtomicU32 = AtomicU32::new(0);

impl RunDir {
    /// Makes an empty folder under the cache, on a real file system, so that disk images in it can use `O_DIRECT`.
    pub fn new(what: &str) -> Result<Self> {
        let runs = cache()?.join("runs");
        fs::create_dir_all(&runs)?;
        remove_abandoned(&runs);
        let number = NEXT_RUN.fetch_add(1, Ordering::Relaxed);
        let path = runs.join(format!("{what}-{}-{number}", std::process::id()));
        // Created under another name and locked before the rename, so that nobody takes it for an abandoned one.
        let hidden = runs.join(format!(".{what}-{}-{number}", std::process::id()));
        fs::create_dir_all(&hidden)?;
        let lock = File::create(hidden.join("lock"))?;
        lock.lock()?;
        fs::rename(&hidden, &path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if env::var_os("AFS_LAB_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn remove_abandoned(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let abandoned = match File::open(path.join("lock")) {
            Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
            Err(_) => false,
        };
        if abandoned {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// The top of the workspace that this lab was built from.
pub fn workspace() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir).to_path_buf()
}

/// A program built by this workspace, beside the running one (`build/debug` when called from a test or `cargo lab`).
pub fn built(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("find the running program")?;
    let beside = own.parent().into_iter().chain(own.parent().and_then(Path::parent));
    for folder in beside {
        let candidate = folder.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!(
        "no program `{name}` beside {}: build it first, or run `cargo lab test`, which does",
        own.display()
    )
}

/// The release build of a program, for measurements.
pub fn built_release(name: &str) -> Result<PathBuf> {
    let debug = built("lab")?;
    let candidate =
        debug.parent().and_then(Path::parent).map(|build| build.join("release").join(name));
    match candidate.filter(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("no release build of `{name}`: run `cargo build --release --bin {name}`"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn run_folder_of_a_dead_process_is_removed_and_a_live_one_kept() {
        let live = RunDir::new("unit").unwrap();
        let dead = live.path().with_file_name(format!("unit-dead-{}", std::process::id()));
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        remove_abandoned(live.path().parent().unwrap());
        assert!(!dead.exists());
        assert!(live.path().exists());
    }
}
