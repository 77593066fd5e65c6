//! Giving a new disk file its space, so that it is there when a write needs it: a host must never
//! see ENOSPC because somebody else filled the file system.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{BLOCK_BYTES, OpenError};

/// Reserves `bytes` (rounded down to whole blocks) for an empty file and makes its existence
/// durable.
pub(super) fn reserve(
    path: &Path,
    fd: &OwnedFd,
    bytes: u64,
    created: bool,
) -> Result<bool, OpenError> {
    let bytes = bytes - bytes % BLOCK_BYTES;
    if bytes == 0 {
        return Err(OpenError::TooSmall { path: path.to_owned(), bytes });
    }
    match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        Err(Errno::NOSPC | Errno::FBIG | Errno::DQUOT) => {
            // Partly reserved space of a file that was there before goes back; it was empty.
            let _ = rustix::fs::ftruncate(fd, 0);
            return Err(OpenError::NoSpace { path: path.to_owned(), bytes });
        }
        Err(Errno::OPNOTSUPP) => {
            tracing::warn!(
                path = %path.display(),
                "this file system cannot reserve space: when it fills up, writes to the disk fail"
            );
            rustix::fs::ftruncate(fd, bytes).map_err(OpenError::io(path, "set its size"))?;
        }
        Err(error) => return Err(OpenError::io(path, "reserve its space")(error)),
    }
    rustix::fs::fsync(fd).map_err(OpenError::io(path, "sync it"))?;
    if created {
        sync_directory_of(path)?;
    }
    Ok(true)
}

fn sync_directory_of(path: &Path) -> Result<(), OpenError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty())
        .and_then(rustix::fs::fsync)
        .map_err(OpenError::io(path, "sync its directory"))
}
