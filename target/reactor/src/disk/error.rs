//! Why a disk did not do what it was asked. Lives here because the ring reports it; everybody
//! else sees it as `afs_env::DiskError`.

use thiserror::Error;

/// The outcome of a failed disk operation. After a failed write or sync the affected blocks hold
/// the old bytes, the new ones or a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DiskError {
    /// The system refused or failed the operation.
    #[error("disk operation failed: {}", std::io::Error::from_raw_os_error(*errno))]
    Io {
        /// As in errno(3), positive: `EIO`, `ENOSPC`, …
        errno: i32,
    },
    /// The range reaches past the end of the disk, or is no multiple of its block.
    #[error("the range is not on the disk or not aligned to its blocks")]
    OutOfRange,
    /// The disk was stopped or taken away; it will not answer again.
    #[error("the disk is gone")]
    Gone,
}
