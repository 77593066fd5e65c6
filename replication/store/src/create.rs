//! Formatting a disk. The superblocks come last, so a cut leaves a disk that nobody takes for a
//! store.

use afs_env::{BufferMut, Disk, DiskError};
use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::error::FormatError;
use crate::format::{
    BLOCK, Geometry, Root, SUPERBLOCK_OFFSETS, Superblock, valid_chunk_bytes, valid_journal_bytes,
};
use crate::inspect::{Contents, DiskInfo, inspect};

/// How to format a disk.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    /// The disk's identity; never give two disks the same.
    pub disk_id: Uuid,
    /// Any random number; it seeds all checksums.
    pub seed: u64,
    /// Bytes of a chunk: a power of two from 16 KiB to 256 KiB.
    pub chunk_bytes: u32,
    /// Bytes of the journal: whole blocks, 64 KiB to 4 GiB. `None` chooses by the disk's size.
    pub journal_bytes: Option<u64>,
    /// Overwrite what the disk holds.
    pub force: bool,
}

impl FormatOptions {
    /// 256 KiB chunks, a journal by the disk's size, nothing overwritten.
    pub fn new(disk_id: Uuid, seed: u64) -> Self {
        Self { disk_id, seed, chunk_bytes: 256 << 10, journal_bytes: None, force: false }
    }
}

/// 1/256 of the disk, 256 KiB to 256 MiB.
fn default_journal(disk_bytes: u64) -> u64 {
    (disk_bytes / 256).clamp(256 << 10, 256 << 20).next_multiple_of(BLOCK as u64)
}

/// Makes an empty store on a disk. Writes only the superblocks: tables count as empty until the
/// first checkpoint.
///
/// # Errors
/// [`FormatError`]; with `InUse` and all errors of the options nothing was written.
pub async fn format<D: Disk>(disk: &D, options: &FormatOptions) -> Result<DiskInfo, FormatError> {
    let geometry = plan(disk, options)?;
    if !options.force {
        let contents = inspect(disk).await?;
        if contents != Contents::Empty {
            return Err(FormatError::InUse(contents));
        }
    }
    let mut spare = Some(disk.pool().try_alloc(64 << 10).ok_or(FormatError::NoMemory)?);
    // Neither an old superblock nor somebody else's label may outlive the new format.
    for at in 0..(128 << 10) / (64 << 10) {
        fill_zero(disk, at * (64 << 10), &mut spare).await?;
    }
    disk.sync().await?;
    let mut block = None;
    for revision in [1, 2] {
        let root = Root {
            revision,
            checkpoint: 0,
            journal_start: 1,
            next_layer: 1,
            incarnation: 0,
            copy: 0,
            clean: true,
        };
        let superblock = Superblock::new(&geometry, &root);
        let offset = SUPERBLOCK_OFFSETS.get(usize::from(revision == 1)).copied();
        write(disk, offset.unwrap_or_default(), superblock.as_bytes(), &mut spare).await?;
        disk.sync().await?;
        block = Some(superblock);
    }
    block.map(|block| DiskInfo::new(&block)).ok_or(FormatError::NoMemory)
}

fn plan<D: Disk>(disk: &D, options: &FormatOptions) -> Result<Geometry, FormatError> {
    if !valid_chunk_bytes(options.chunk_bytes) {
        return Err(FormatError::ChunkBytes);
    }
    let size = disk.size() / BLOCK as u64 * BLOCK as u64;
    let journal = options.journal_bytes.unwrap_or_else(|| default_journal(size));
    if !valid_journal_bytes(journal) {
        return Err(FormatError::JournalBytes);
    }
    if size / u64::from(options.chunk_bytes) >= u64::from(u32::MAX - 1) {
        return Err(FormatError::TooLarge);
    }
    Geometry::plan(options.disk_id, size, options.chunk_bytes, journal, options.seed).ok_or(
        FormatError::TooSmall {
            actual: size,
            needed: journal + (256 << 10) + 2 * u64::from(options.chunk_bytes),
        },
    )
}

async fn fill_zero<D: Disk>(
    disk: &D,
    offset: u64,
    spare: &mut Option<BufferMut>,
) -> Result<(), FormatError> {
    write(disk, offset, &[0; 64 << 10], spare).await
}

async fn write<D: Disk>(
    disk: &D,
    offset: u64,
    bytes: &[u8],
    spare: &mut Option<BufferMut>,
) -> Result<(), FormatError> {
    let mut buffer = spare.take().ok_or(FormatError::NoMemory)?;
    buffer.set_len(bytes.len());
    buffer.copy_from_slice(bytes);
    let data = buffer.freeze();
    let result: Result<(), DiskError> = disk.write(offset, data.slice(0..bytes.len())).await;
    *spare = data.try_into_mut().ok();
    Ok(result?)
}
