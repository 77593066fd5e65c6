//! Why a disk could not be opened, and why it did not do what it was asked. Everybody else sees
//! the latter as `afs_env::DiskError`.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::BLOCK_BYTES;

/// The outcome of a failed disk operation. After a failed write or sync the affected blocks hold
/// the old bytes, the new ones or a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DiskError {
    /// The system refused or failed the operation.
    #[error("disk operation failed: {}", io::Error::from_raw_os_error(*errno))]
    Io {
        /// As in errno(3), positive: `EIO`, `ENOSPC`, … `ENODATA` for a file that was cut short.
        errno: i32,
    },
    /// The range reaches past the end of the disk, or is no multiple of its block.
    #[error("the range is not on the disk or not aligned to its blocks")]
    OutOfRange,
    /// The disk was stopped or taken away; it will not answer again.
    #[error("the disk is gone")]
    Gone,
}

impl DiskError {
    /// From a positive errno.
    pub(crate) fn from_errno(errno: i32) -> DiskError {
        match errno {
            libc::ENODEV | libc::ENXIO => DiskError::Gone,
            errno => DiskError::Io { errno },
        }
    }
}

/// Why a disk could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is nothing at this path, and no size to create a file with was given.
    #[error("{}: there is no such file or device", path.display())]
    NotFound {
        /// As given.
        path: PathBuf,
    },
    /// Somebody else has it.
    #[error(
        "{}: already in use; stop the process that has it open, or unmount it (see `fuser -v` and `lsblk`)",
        path.display()
    )]
    InUse {
        /// As given.
        path: PathBuf,
    },
    /// A directory, a socket, …
    #[error("{}: neither a block device nor a regular file", path.display())]
    NotADisk {
        /// As given.
        path: PathBuf,
    },
    /// Not even one block long.
    #[error("{}: {bytes} bytes are too few for a disk", path.display())]
    TooSmall {
        /// As given.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file system has not enough room for a file of the size that was asked for.
    #[error("{}: no space left for a file of {bytes} bytes; free some, or choose a smaller size", path.display())]
    NoSpace {
        /// As given.
        path: PathBuf,
        /// The size that was asked for.
        bytes: u64,
    },
    /// The device cannot write a single 4 KiB block.
    #[error("{}: its sectors of {sector} bytes are larger than a block of {BLOCK_BYTES} bytes", path.display())]
    SectorTooLarge {
        /// As given.
        path: PathBuf,
        /// Logical sector of the device in bytes.
        sector: u32,
    },
    /// The system refused it.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// As given.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    /// For `map_err`: what was tried with which path.
    pub(super) fn io<E: Into<io::Error>>(
        path: &Path,
        action: &'static str,
    ) -> impl FnOnce(E) -> OpenError {
        let path = path.to_owned();
        move |error| OpenError::Io { path, action, source: error.into() }
    }
}
