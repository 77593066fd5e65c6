//! Opening a disk: superblocks, catalog, chunk table, journal, and what a crash left to set right.
//!
//! The newest whole superblock counts. If the other one is not whole, that is either a torn update
//! or damage; then the journal is read even if the superblock says that it need not be, because the
//! lost one may have said otherwise.

use afs_env::{BufferMut, Disk, DiskError};

use crate::error::{Damage, OpenError};
use crate::format::{BLOCK, Geometry, Root, SUPERBLOCK_OFFSETS, Superblock, VERSION};
use crate::inspect::{Contents, inspect};
use crate::load::load;
use crate::state::Shared;

/// How far an open is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being read.
    pub phase: Phase,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// The parts of an open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The chunk table.
    Table,
    /// The journal.
    Journal,
    /// Data of the last writes.
    Data,
}

pub(crate) type OnProgress<'a> = &'a mut dyn FnMut(Progress);

/// What the superblocks say.
pub(crate) struct Head {
    pub geometry: Geometry,
    pub root: Root,
    /// Both superblocks are whole.
    pub both: bool,
}

/// Reads and checks the superblocks.
pub(crate) async fn read_head<D: Disk>(disk: &D) -> Result<Head, OpenError> {
    let mut buffer = disk.pool().try_alloc(BLOCK).ok_or(OpenError::NoMemory)?;
    let mut whole: Vec<Superblock> = Vec::new();
    let mut failed = None;
    for offset in SUPERBLOCK_OFFSETS {
        if offset + BLOCK as u64 > disk.size() {
            break;
        }
        let (back, result) = disk.read(offset, buffer).await;
        buffer = back;
        // One unreadable superblock is what the other one is for.
        match result {
            Ok(()) => whole.extend(Superblock::read(&buffer)),
            Err(error) => failed = Some(error),
        }
    }
    let both = whole.len() == 2;
    let Some(newest) = whole.iter().max_by_key(|block| block.revision.get()) else {
        // What could not be read may be whole: nobody shall be told to format it.
        if let Some(error) = failed {
            return Err(error.into());
        }
        return Err(match inspect(disk).await? {
            Contents::AfsDamaged => Damage::Superblocks.into(),
            other => OpenError::NotAfs(other),
        });
    };
    if newest.version.get() != VERSION {
        return Err(OpenError::Version { found: newest.version.get(), supported: VERSION });
    }
    let geometry = newest.geometry()?;
    for other in &whole {
        if other.geometry()? != geometry {
            return Err(Damage::Geometry("the superblocks belong to different disks").into());
        }
    }
    if disk.size() < geometry.disk_bytes {
        let (formatted, actual) = (geometry.disk_bytes, disk.size());
        return Err(OpenError::CutShort { formatted, actual });
    }
    if !both {
        tracing::warn!(disk = %geometry.disk_id, "one superblock is damaged; using the other");
    }
    Ok(Head { geometry, root: newest.root()?, both })
}

/// Opens: loads, then writes what a crash left to set right, then counts as in use.
pub(crate) async fn open<D: Disk>(
    disk: &D,
    head: &Head,
    spare: &mut Option<BufferMut>,
    progress: OnProgress<'_>,
) -> Result<Shared, OpenError> {
    let mut loaded = load(disk, head, progress).await?;
    let replayed = !(head.root.clean && head.both);
    crate::recover::recover(disk, &mut loaded, spare, replayed).await?;
    let shared = loaded.shared;
    let root = {
        let mut meta = shared.meta.lock();
        meta.root.revision += 1;
        meta.root.incarnation += 1;
        meta.root.clean = false;
        meta.root
    };
    crate::checkpoint::write_superblock(&shared, disk, &root, spare).await?;
    Ok(shared)
}

/// For [`crate::recover`]: reads one block.
pub(crate) async fn read_block<D: Disk>(disk: &D, offset: u64) -> Result<BufferMut, OpenError> {
    let buffer = disk.pool().try_alloc(BLOCK).ok_or(OpenError::NoMemory)?;
    let (buffer, result): (BufferMut, Result<(), DiskError>) = disk.read(offset, buffer).await;
    result?;
    Ok(buffer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use afs_env::{BufferPool, MemDisk};

    use super::*;
    use crate::{FormatOptions, Store};

    #[test]
    fn a_disk_that_fails_while_it_is_opened_is_not_called_something_else() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let disk = MemDisk::new(8 << 20, &BufferPool::new(4 << 20).unwrap());
            let options = FormatOptions::new(uuid::Uuid::from_u128(1), 7);
            Store::format(&disk, &options).await.unwrap();
            let failed = |result| matches!(result, Err(OpenError::Disk(DiskError::Io { .. })));
            disk.fail_reads(2);
            assert!(failed(read_head(&disk).await), "neither superblock could be read");
            disk.fail_reads(1);
            assert!(read_head(&disk).await.is_ok(), "one is enough");

            let unformatted = MemDisk::new(8 << 20, disk.pool());
            unformatted.fail_reads(1);
            assert!(failed(read_head(&unformatted).await), "the first may have been whole");
            assert!(matches!(read_head(&unformatted).await, Err(OpenError::NotAfs(_))));
        });
    }
}
