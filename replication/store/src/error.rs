//! What can go wrong, by who asks: the data path ([`StoreError`]), replica management
//! ([`ReplicaError`]), opening ([`OpenError`]) and formatting ([`FormatError`]).

use afs_env::DiskError;
use uuid::Uuid;

use crate::inspect::Contents;

/// Why a read, write, trim or zero failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The range is empty, not whole blocks, or ends after the replica's last block.
    #[error("the range is outside the replica")]
    OutOfRange,
    /// No free chunk is left; reads, overwrites and trim still work.
    #[error("the disk has no free chunk left; trim or delete something, or add a disk")]
    Full,
    /// The disk could not read or write these blocks.
    #[error("the disk reported an error for these blocks")]
    Media,
    /// The disk was stopped after errors that leave its state unsure, or was closed.
    #[error("the disk is stopped; see its statistics for the reason")]
    Stopped,
    /// The replica was deleted while the command was on its way.
    #[error("the replica was deleted")]
    Deleted,
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::OutOfRange => Self::OutOfRange,
            DiskError::Gone => Self::Stopped,
            DiskError::Io { .. } => Self::Media,
        }
    }
}

/// Why a replica could not be created, resized or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// A replica with this identity is already there.
    #[error("a replica with this identity exists on the disk already")]
    Exists,
    /// No replica has this identity.
    #[error("the disk has no replica with this identity")]
    NotFound,
    /// Zero blocks, or more than [`crate::MAX_REPLICA_BLOCKS`] at this chunk size.
    #[error("a replica must have at least one block and at most 2^30 chunks")]
    BadSize,
    /// The disk's tables hold no further replica.
    #[error("the disk's replica table is full; delete a replica or use another disk")]
    TableFull,
    /// The identity is all zeroes.
    #[error("a replica's identity must not be the nil UUID")]
    NilIdentity,
    /// The data path's reason.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with a structure on disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Neither superblock is whole.
    #[error("both superblocks are damaged")]
    Superblocks,
    /// A field of the superblock contradicts another or the disk.
    #[error("the superblock's geometry is impossible: {0}")]
    Geometry(&'static str),
    /// A page of the chunk table fails its check.
    #[error("page {page} of the chunk table (copy {copy}) is damaged")]
    Table {
        /// Which copy.
        copy: u32,
        /// Page number in the copy.
        page: u32,
    },
    /// A page of the layer or replica table fails its check.
    #[error("page {page} of the layer and replica table (copy {copy}) is damaged")]
    Catalog {
        /// Which copy.
        copy: u32,
        /// Page number in the copy.
        page: u32,
    },
    /// A journal block fails its check although later writes prove that it was durable.
    #[error("journal block {sequence} is damaged, and later blocks prove that it was once whole")]
    Journal {
        /// The damaged block's sequence number.
        sequence: u64,
    },
    /// The journal block that replay starts with was overwritten.
    #[error("the journal no longer reaches back to the last checkpoint (wanted block {sequence})")]
    JournalCut {
        /// The wanted block's sequence number.
        sequence: u64,
    },
    /// A record makes no sense although its checksum is good.
    #[error("a record in journal block {sequence} is malformed")]
    Record {
        /// The block's sequence number.
        sequence: u64,
    },
    /// Two structures contradict each other.
    #[error("chunk {chunk}: {what}")]
    Chunk {
        /// The physical chunk.
        chunk: u32,
        /// The contradiction.
        what: &'static str,
    },
    /// A layer or replica entry contradicts another.
    #[error("layer {layer}: {what}")]
    Layer {
        /// The layer's id.
        layer: u64,
        /// The contradiction.
        what: &'static str,
    },
}

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not an afs disk.
    #[error("this is not an afs disk (found: {0}); format it with `afs disk format`")]
    NotAfs(Contents),
    /// Written by another version of the program.
    #[error(
        "the disk has format version {found}, this program reads version {supported}; use a program of that version"
    )]
    Version {
        /// On the disk.
        found: u32,
        /// What this program reads.
        supported: u32,
    },
    /// The device or file became smaller.
    #[error(
        "the disk was cut short: formatted with {formatted} bytes, now {actual}; restore its size"
    )]
    CutShort {
        /// Bytes at format time.
        formatted: u64,
        /// Bytes now.
        actual: u64,
    },
    /// Another disk with this identity is open already.
    #[error("disk {0} is open already: two disks carry one identity; detach the copy")]
    DuplicateIdentity(Uuid),
    /// The store is lost: it must be formatted and its replicas rebuilt from others.
    #[error("the store is damaged and must be rebuilt: {0}")]
    Damaged(#[from] Damage),
    /// The disk failed while it was read.
    #[error("the disk failed while it was opened: {0}")]
    Disk(#[from] DiskError),
    /// The buffer pool is too small.
    #[error("the buffer pool has too little free memory to open a disk (2 MiB are needed)")]
    NoMemory,
}

/// Why a disk was not formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It holds something that would be lost.
    #[error("the disk holds {0}; nothing was written (force overwrites it)")]
    InUse(Contents),
    /// Too few bytes for the tables and one chunk.
    #[error("the disk has {actual} bytes, at least {needed} are needed")]
    TooSmall {
        /// Bytes there.
        actual: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// More than 2^32 - 2 chunks.
    #[error("the disk is too large for this chunk size")]
    TooLarge,
    /// Not a power of two from 16 KiB to 256 KiB.
    #[error("the chunk size must be a power of two from 16 KiB to 256 KiB")]
    ChunkBytes,
    /// The journal is smaller than 64 KiB or not a multiple of 4096.
    #[error("the journal must be a multiple of 4096 bytes, at least 64 KiB, at most 4 GiB")]
    JournalBytes,
    /// The disk failed.
    #[error("the disk failed while it was formatted: {0}")]
    Disk(#[from] DiskError),
    /// The buffer pool is too small.
    #[error("the buffer pool has too little free memory to format a disk (1 MiB is needed)")]
    NoMemory,
}
