//! Disks: opening a block device or a file (`file`), knowing what makes its writes durable
//! (`durability`), sharing syncs (`sync`), and reading and writing it on a reactor
//! (`ring_disk`). The daemon opens disks, the store reads and writes them through `afs_env`.

mod attached;
mod create;
mod durability;
mod error;
mod file;
mod ring_disk;
mod sync;

pub(crate) use attached::AttachedFile;
pub use durability::Durability;
pub use error::{DiskError, OpenError};
pub use file::{DiskFile, DiskOptions};
pub use ring_disk::RingDisk;
pub(crate) use sync::{RunningSync, SyncGroup};

/// The unit of every offset and length, in bytes.
pub(crate) const BLOCK_BYTES: u64 = 4096;
