//! Opening one disk: the file or device, what is on it, the store, and the store's background work at its home.

use std::sync::Arc;
use std::time::{Duration, Instant};

use afs_env::{OsRandom, Random};
use afs_reactor::{DiskFile, DiskOptions, Local, OpenError, ReactorHandle, RingDisk};
use afs_store::{Contents, FormatOptions, OpenDisks, OpenOptions, Progress, Store, inspect};
use conductor::size::human;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::known::KnownDisks;
use super::null::NullDisk;
use super::{Body, DiskFailure, NodeDisk, StoreDisk};
use crate::config::DiskSpec;

/// How often a person is told how far a long recovery has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// How long a disk may be in use by a process that was killed.
const RELEASE: Duration = Duration::from_secs(3);
const RELEASE_POLL: Duration = Duration::from_millis(20);

/// What all disks of the process are opened with.
#[derive(Clone)]
pub(super) struct Common {
    identities: Arc<OpenDisks>,
    assume_whole_blocks: bool,
}

impl Common {
    pub(super) fn new(assume_whole_blocks: bool) -> Common {
        Common { identities: Arc::new(OpenDisks::default()), assume_whole_blocks }
    }
}

type Opened = Result<(Uuid, StoreDisk), DiskFailure>;

/// A disk on its way.
pub(super) enum Opening {
    Null(Uuid, NullDisk),
    Store(oneshot::Receiver<Opened>),
}

/// Starts opening a file or device, with its home on the reactor of `home`.
pub(super) fn begin(
    spec: &DiskSpec,
    home: ReactorHandle,
    common: &Common,
) -> oneshot::Receiver<Opened> {
    let (sender, receiver) = oneshot::channel();
    let (spec, common) = (spec.clone(), common.clone());
    let at_home = home.clone();
    home.spawn(move |local| async move {
        let opened = open_at_home(&spec, &local, at_home, common).await;
        // A start that was given up waits for nothing.
        let _ = sender.send(opened);
    });
    receiver
}

/// Waits for it. A broken disk of which the identity is known is a disk too, a failed one.
pub(super) async fn finish(
    spec: &DiskSpec,
    opening: Opening,
    known: &mut KnownDisks,
) -> Result<NodeDisk, DiskFailure> {
    let name = spec.to_string();
    let (uuid, body) = match opening {
        Opening::Null(uuid, null) => (uuid, Body::Null(null)),
        Opening::Store(opened) => {
            let gone = || DiskFailure::ReactorGone { disk: name.clone() };
            match opened.await.map_err(|_| gone())? {
                Ok((uuid, store)) => {
                    known.note(&name, uuid);
                    (uuid, Body::Store(Arc::new(store)))
                }
                Err(failure) if failure.is_damage() => {
                    tracing::error!(disk = %name, %failure, "the disk does not serve; `afs disk check` says more");
                    (known.find(&name).ok_or_else(|| failure.clone())?, Body::Failed(failure))
                }
                Err(failure) => return Err(failure),
            }
        }
    };
    Ok(NodeDisk { uuid, spec: spec.clone(), body })
}

async fn open_at_home(
    spec: &DiskSpec,
    local: &Local,
    home: ReactorHandle,
    common: Common,
) -> Opened {
    let file = open_file(spec).await?;
    let cannot_use = |error: std::io::Error| DiskFailure::Open {
        disk: spec.to_string(),
        error: Arc::new(afs_store::OpenError::Disk(afs_reactor::DiskError::Io {
            errno: error.raw_os_error().unwrap_or(0),
        })),
    };
    let disk = RingDisk::new(local, &file).map_err(cannot_use)?;
    format_if_new(spec, &file, &disk).await?;
    let options = OpenOptions {
        progress: Some(progress_log(spec)),
        identities: Some(common.identities),
        assume_whole_blocks: common.assume_whole_blocks,
    };
    let store = Store::open(disk, options)
        .await
        .map_err(|error| DiskFailure::Open { disk: spec.to_string(), error: Arc::new(error) })?;
    let info = store.info();
    tracing::info!(
        disk = %spec, uuid = %info.disk_id, clean = store.was_clean(), replicas = store.replicas().len(),
        "disk open"
    );
    let (ended, background_ended) = watch::channel(false);
    let background = store.background();
    local.spawn_local(async move {
        background.await;
        ended.send_replace(true);
    });
    Ok((info.disk_id, StoreDisk::new(file, store.shared(), home, background_ended)))
}

/// Opens the file or device; makes the file, with its space reserved, where there is none.
///
/// After a process was killed, the kernel lets go of its disks only when their last I/O has ended, a moment after the
/// process is gone; a restart that is quick must not fail for that.
async fn open_file(spec: &DiskSpec) -> Result<DiskFile, DiskFailure> {
    let begun = Instant::now();
    loop {
        match try_open_file(spec).await {
            Err(DiskFailure::File(error))
                if matches!(*error, OpenError::InUse { .. }) && begun.elapsed() < RELEASE =>
            {
                tracing::debug!(disk = %spec, "in use, perhaps by a process that just ended");
                tokio::time::sleep(RELEASE_POLL).await;
            }
            result => return result,
        }
    }
}

async fn try_open_file(spec: &DiskSpec) -> Result<DiskFile, DiskFailure> {
    let create_size = match spec {
        DiskSpec::File { bytes, .. } => *bytes,
        _ => None,
    };
    let path = spec.path().unwrap_or_else(|| std::path::Path::new("")).to_owned();
    let options = DiskOptions { create_size, ..DiskOptions::default() };
    // Reserving space can take seconds on some file systems, and the reactor may serve other disks already.
    let opened = tokio::task::spawn_blocking(move || DiskFile::open(path, &options)).await;
    opened
        .map_err(|_| DiskFailure::ReactorGone { disk: spec.to_string() })?
        .map_err(|error| DiskFailure::File(Arc::new(error)))
}

/// A file that holds nothing becomes an afs disk; anything else must be one already.
async fn format_if_new(
    spec: &DiskSpec,
    file: &DiskFile,
    disk: &RingDisk,
) -> Result<(), DiskFailure> {
    let name = || spec.to_string();
    let unreadable = |error| DiskFailure::Open {
        disk: name(),
        error: Arc::new(afs_store::OpenError::Disk(error)),
    };
    match inspect(disk).await.map_err(unreadable)? {
        Contents::Afs(info) => refuse_other_size(spec, file, info.disk_bytes),
        // Opening it says what is damaged.
        Contents::AfsDamaged => Ok(()),
        Contents::Empty if file.is_device() => Err(DiskFailure::Unformatted { disk: name() }),
        Contents::Empty => {
            refuse_other_size(spec, file, file.size())?;
            let options = FormatOptions::new(Uuid::new_v4(), OsRandom.next_u64());
            let formatted = afs_store::format(disk, &options).await;
            formatted
                .map_err(|error| DiskFailure::Format { disk: name(), error: Arc::new(error) })?;
            tracing::info!(disk = %spec, size = human(file.size()), "formatted a new disk");
            Ok(())
        }
        other => Err(DiskFailure::HoldsOther { disk: name(), found: other.to_string() }),
    }
}

/// A file that is shorter than it was formatted with is left to the store, which calls that by its name.
fn refuse_other_size(spec: &DiskSpec, file: &DiskFile, formatted: u64) -> Result<(), DiskFailure> {
    match spec {
        DiskSpec::File { bytes: Some(bytes), .. }
            if *bytes != file.size() && *bytes != formatted =>
        {
            Err(DiskFailure::Size {
                disk: spec.to_string(),
                found: human(file.size()),
                asked: human(*bytes),
            })
        }
        _ => Ok(()),
    }
}

fn progress_log(spec: &DiskSpec) -> Box<dyn FnMut(Progress)> {
    let disk = spec.to_string();
    let mut last = Instant::now();
    Box::new(move |progress| {
        if last.elapsed() >= PROGRESS_EVERY {
            last = Instant::now();
            let percent = progress.done * 100 / progress.total.max(1);
            tracing::info!(%disk, part = ?progress.phase, percent, "opening");
        }
    })
}
