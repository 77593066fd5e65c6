//! An open disk: a block device or a regular file, locked against double use. It belongs to no
//! reactor; each reactor that works on it makes a [`RingDisk`](crate::RingDisk) of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;

use super::durability::DeviceTraits;
use super::{BLOCK_BYTES, Durability, OpenError, SyncGroup, create};
use crate::memory::{ZEROS_BYTES, zeros};

/// How to open a disk.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// Go around the page cache (`O_DIRECT`) where the file system allows it. Without, durable
    /// writes cost a sync each round and every read a copy.
    pub direct: bool,
    /// Size in bytes (rounded down to whole blocks) of the file to create when there is none, or an
    /// empty one. Files that hold something, and devices, are left as they are.
    pub create_size: Option<u64>,
    /// Writes fail.
    pub read_only: bool,
    /// Refuse a disk that another process uses, and keep it from others.
    pub exclusive: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions { direct: true, create_size: None, read_only: false, exclusive: true }
    }
}

struct Inner {
    file: File,
    path: PathBuf,
    size: u64,
    logical_block: u32,
    atomic_unit: u32,
    memory_alignment: u32,
    durability: Durability,
    is_device: bool,
    direct: bool,
    read_only: bool,
    created: bool,
    device: u64,
    inode: u64,
    syncs: Arc<SyncGroup>,
}

/// An open disk. Clones are handles to the same one; it is closed, and its lock released, when the
/// last handle and the last operation on it are gone.
#[derive(Clone)]
pub struct DiskFile {
    inner: Arc<Inner>,
}

impl DiskFile {
    /// Opens the block device or file at `path`, or creates a file with all its space reserved.
    ///
    /// The space of a new file is reserved but not written: its first writes make the file system
    /// note that they happened, which makes them slower until all of it was written once. Who wants
    /// even speed from the start calls [`preallocate_zeroed`](DiskFile::preallocate_zeroed).
    ///
    /// # Errors
    /// See [`OpenError`]. A file that was created here is removed again on an error.
    pub fn open(path: impl AsRef<Path>, options: &DiskOptions) -> Result<DiskFile, OpenError> {
        let path = path.as_ref();
        let (fd, created) = open(path, options)?;
        DiskFile::from_fd(path, fd, created, options).inspect_err(|_| {
            if created {
                // The first error is the one to report.
                let _ = std::fs::remove_file(path);
            }
        })
    }

    fn from_fd(
        path: &Path,
        fd: OwnedFd,
        created: bool,
        options: &DiskOptions,
    ) -> Result<DiskFile, OpenError> {
        let stat = rustix::fs::fstat(&fd).map_err(OpenError::io(path, "examine it"))?;
        let is_device = is_device(path, &stat)?;
        if options.exclusive && !is_device {
            lock(path, &fd)?;
        }
        let empty = stat.st_size == 0 && !is_device && !options.read_only;
        let created = match options.create_size {
            Some(bytes) if empty => create::reserve(path, &fd, bytes, created)?,
            _ => false,
        };
        let direct = options.direct && set_direct(&fd);
        let geometry = Geometry::of(path, &fd, &stat, is_device, direct)?;
        let inner = Inner {
            file: File::from(fd),
            path: path.to_owned(),
            size: geometry.size,
            logical_block: geometry.logical_block,
            atomic_unit: geometry.atomic_unit,
            memory_alignment: geometry.memory_alignment,
            durability: geometry.durability,
            is_device,
            direct,
            read_only: options.read_only,
            created,
            device: if is_device { stat.st_rdev } else { stat.st_dev },
            inode: if is_device { 0 } else { stat.st_ino },
            syncs: Arc::new(SyncGroup::new()),
        };
        Ok(DiskFile { inner: Arc::new(inner) })
    }

    /// Usable size in bytes: whole blocks of 4096.
    pub fn size(&self) -> u64 {
        self.inner.size
    }

    /// The device's addressing unit in bytes, at most 4096.
    pub fn logical_block(&self) -> u32 {
        self.inner.logical_block
    }

    /// What a power cut leaves whole, in bytes: a power of two from 512 to 4096 that the device
    /// claims as its physical block.
    pub fn atomic_unit(&self) -> u32 {
        self.inner.atomic_unit
    }

    /// Alignment in bytes that the memory of reads and writes needs; 1 when any will do.
    pub fn memory_alignment(&self) -> u32 {
        self.inner.memory_alignment
    }

    /// Can completed writes still be lost until a sync?
    pub fn needs_flush(&self) -> bool {
        self.inner.durability != Durability::WriteThrough
    }

    /// How durable writes are done.
    pub fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// Is it a block device (and not a file)?
    pub fn is_device(&self) -> bool {
        self.inner.is_device
    }

    /// Does it go around the page cache?
    pub fn is_direct(&self) -> bool {
        self.inner.direct
    }

    /// Do writes fail?
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// Was the file made, or given its space, by this very opening?
    pub fn was_created(&self) -> bool {
        self.inner.created
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What it is, whatever the path: the device number, and the inode of a file (0 for a device).
    /// Equal for two openings of one disk.
    pub fn identity(&self) -> (u64, u64) {
        (self.inner.device, self.inner.inode)
    }

    /// Overwrites the whole disk with zeros, **and all that it holds**, and syncs it. After this,
    /// writes to a file touch no metadata of its file system. Blocks the calling thread; after
    /// each MiB, `progress` gets the bytes written so far and the bytes in all.
    ///
    /// # Errors
    /// What the system says; the disk is then partly zero.
    pub fn preallocate_zeroed(&self, mut progress: impl FnMut(u64, u64)) -> io::Result<()> {
        let zeros = zeros()?;
        let mut done = 0;
        while done < self.inner.size {
            let step = (ZEROS_BYTES as u64).min(self.inner.size - done);
            let length = usize::try_from(step).unwrap_or(ZEROS_BYTES);
            self.inner.file.write_all_at(&zeros[..length], done)?;
            done += step;
            progress(done, self.inner.size);
        }
        self.inner.file.sync_all()
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.inner.file.as_fd()
    }

    pub(crate) fn syncs(&self) -> &Arc<SyncGroup> {
        &self.inner.syncs
    }
}

impl std::fmt::Debug for DiskFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskFile({}, {} bytes)", self.inner.path.display(), self.inner.size)
    }
}

/// The open file, and whether it is new.
fn open(path: &Path, options: &DiskOptions) -> Result<(OwnedFd, bool), OpenError> {
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK;
    flags |= if options.read_only { OFlags::RDONLY } else { OFlags::RDWR };
    // For a device, and only there, exclusive opening means: not mounted and not opened so elsewhere.
    let is_device = rustix::fs::stat(path)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice);
    if options.exclusive && is_device {
        flags |= OFlags::EXCL;
    }
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok((fd, false)),
        Err(Errno::BUSY) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(Errno::NOENT) if options.create_size.is_some() && !options.read_only => {
            let new = flags | OFlags::CREATE | OFlags::EXCL;
            let fd = rustix::fs::open(path, new, Mode::RUSR | Mode::WUSR)
                .map_err(OpenError::io(path, "create it"))?;
            Ok((fd, true))
        }
        Err(Errno::NOENT) => Err(OpenError::NotFound { path: path.to_owned() }),
        Err(Errno::ISDIR) => Err(OpenError::NotADisk { path: path.to_owned() }),
        Err(error) => Err(OpenError::io(path, "open it")(error)),
    }
}

fn is_device(path: &Path, stat: &Stat) -> Result<bool, OpenError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => Ok(true),
        FileType::RegularFile => Ok(false),
        _ => Err(OpenError::NotADisk { path: path.to_owned() }),
    }
}

fn lock(path: &Path, fd: &OwnedFd) -> Result<(), OpenError> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(error) => Err(OpenError::io(path, "lock it")(error)),
    }
}

/// Goes around the page cache if the file system can; false if not (some kinds of tmpfs, FUSE).
fn set_direct(fd: &OwnedFd) -> bool {
    rustix::fs::fcntl_getfl(fd)
        .and_then(|flags| rustix::fs::fcntl_setfl(fd, flags | OFlags::DIRECT))
        .is_ok()
}

struct Geometry {
    size: u64,
    logical_block: u32,
    atomic_unit: u32,
    memory_alignment: u32,
    durability: Durability,
}

impl Geometry {
    fn of(
        path: &Path,
        fd: &OwnedFd,
        stat: &Stat,
        is_device: bool,
        direct: bool,
    ) -> Result<Geometry, OpenError> {
        let number = if is_device { stat.st_rdev } else { stat.st_dev };
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let traits = DeviceTraits::read(Path::new("/sys"), major, minor);
        let bytes = rustix::fs::seek(fd, rustix::fs::SeekFrom::End(0))
            .map_err(OpenError::io(path, "find out its size"))?;
        let size = bytes - bytes % BLOCK_BYTES;
        if size == 0 {
            return Err(OpenError::TooSmall { path: path.to_owned(), bytes });
        }
        let (memory_alignment, offset_alignment) = direct_alignment(fd, direct);
        let logical_block = match is_device {
            true => rustix::fs::ioctl_blksszget(fd)
                .map_err(OpenError::io(path, "find out its sector size"))?,
            false => offset_alignment,
        };
        if u64::from(logical_block) > BLOCK_BYTES {
            return Err(OpenError::SectorTooLarge { path: path.to_owned(), sector: logical_block });
        }
        let file_system_block =
            if is_device { BLOCK_BYTES } else { u64::try_from(stat.st_blksize).unwrap_or(512) };
        let durability = if is_device { traits.of_device() } else { traits.of_file(direct) };
        let durability = match (is_device, direct) {
            // A device's page cache is volatile, whatever the device says of its own.
            (true, false) => Durability::SharedSync,
            _ => durability,
        };
        let atomic_unit = traits.atomic_unit_of_file(file_system_block);
        Ok(Geometry { size, logical_block, atomic_unit, memory_alignment, durability })
    }
}

/// Alignment of memory and of offsets that direct I/O needs, in bytes.
fn direct_alignment(fd: &OwnedFd, direct: bool) -> (u32, u32) {
    if !direct {
        return (1, 1);
    }
    let known = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .ok()
        .filter(|statx| statx.stx_dio_mem_align > 0 && statx.stx_dio_offset_align > 0);
    // Kernels before 6.1 do not tell; a sector is what every device accepts that has sectors of 512.
    known.map_or((512, 512), |statx| (statx.stx_dio_mem_align, statx.stx_dio_offset_align))
}
