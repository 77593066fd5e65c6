//! What is on a disk: recognised by the magic numbers that file systems, volume managers and
//! partition tables leave. Used before formatting, so that nothing is overwritten by mistake, and
//! for people who ask.

use std::fmt;

use afs_env::{Disk, DiskError};
use uuid::Uuid;

use crate::format::{BLOCK, MAGIC, SUPERBLOCK_OFFSETS, Superblock};

/// Identity and size of an afs disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    /// The disk's identity.
    pub disk_id: Uuid,
    /// The format's version.
    pub version: u32,
    /// Bytes that the format covers.
    pub disk_bytes: u64,
    /// Bytes of one chunk.
    pub chunk_bytes: u32,
    /// Chunks for data.
    pub chunks: u32,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Whether it was closed in good order.
    pub clean: bool,
    /// How often it was opened.
    pub incarnation: u64,
}

impl DiskInfo {
    pub(crate) fn new(block: &Superblock) -> Self {
        Self {
            disk_id: Uuid::from_bytes(block.disk_id),
            version: block.version.get(),
            disk_bytes: block.disk_bytes.get(),
            chunk_bytes: block.chunk_bytes.get(),
            chunks: block.chunks.get(),
            journal_bytes: block.journal_blocks.get() * BLOCK as u64,
            clean: block.clean.get() == 1,
            incarnation: block.incarnation.get(),
        }
    }
}

/// What a disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Only zeroes where anything would leave its mark.
    Empty,
    /// An afs disk.
    Afs(DiskInfo),
    /// An afs disk whose superblocks are both damaged.
    AfsDamaged,
    /// Something with a known signature, named for people.
    Known(&'static str),
    /// Bytes that are not zero and have no known signature.
    Unknown,
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing"),
            Self::Afs(info) => write!(f, "afs disk {}", info.disk_id),
            Self::AfsDamaged => f.write_str("an afs disk with damaged superblocks"),
            Self::Known(name) => f.write_str(name),
            Self::Unknown => f.write_str("unknown data"),
        }
    }
}

/// (offset, magic, name). Offsets below 128 KiB + 4 KiB; earlier rows win.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"LUKS\xba\xbe", "a LUKS encrypted volume"),
    (0, b"XFSB", "an XFS file system"),
    (1080, &[0x53, 0xef], "an ext2, ext3 or ext4 file system"),
    (65536 + 64, b"_BHRfS_M", "a btrfs file system"),
    (512, b"LABELONE", "an LVM physical volume"),
    (0, b"LABELONE", "an LVM physical volume"),
    (1024, b"LABELONE", "an LVM physical volume"),
    (1536, b"LABELONE", "an LVM physical volume"),
    (4096 - 10, b"SWAPSPACE2", "a swap area"),
    (4096 - 10, b"SWAP-SPACE", "a swap area"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a Linux RAID (md) member"),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], "a Linux RAID (md) member"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "an F2FS file system"),
    (24, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca], "a bcache device"),
    (0, b"bcachefs", "a bcachefs file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (54, b"FAT1", "a FAT file system"),
    (82, b"FAT32", "a FAT file system"),
    (32769, b"CD001", "an ISO 9660 file system"),
    (65536 + 52, b"ReIsEr", "a ReiserFS file system"),
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (510, &[0x55, 0xaa], "an MBR partition table"),
];

const HEAD_BYTES: usize = 256 << 10;
const TAIL_BYTES: u64 = 1 << 20;

/// Looks at the places where superblocks, labels and tables lie; reads 256 KiB at the front and up
/// to 1 MiB at the end.
///
/// # Errors
/// The disk's own. A pool with no 256 KiB free waits.
pub async fn inspect<D: Disk>(disk: &D) -> Result<Contents, DiskError> {
    let head_bytes = (disk.size()).min(HEAD_BYTES as u64);
    let head = read(disk, 0, head_bytes).await?;
    if let Some(contents) = afs(&head) {
        return Ok(contents);
    }
    if let Some(name) = known(&head) {
        return Ok(Contents::Known(name));
    }
    let mut empty = head.iter().all(|byte| *byte == 0);
    let mut at = disk.size().saturating_sub(TAIL_BYTES).max(head_bytes);
    while at < disk.size() {
        let length = (disk.size() - at).min(HEAD_BYTES as u64);
        let tail = read(disk, at, length).await?;
        if let Some(name) = known_at_end(&tail) {
            return Ok(Contents::Known(name));
        }
        empty &= tail.iter().all(|byte| *byte == 0);
        at += length;
    }
    Ok(if empty { Contents::Empty } else { Contents::Unknown })
}

async fn read<D: Disk>(disk: &D, at: u64, length: u64) -> Result<afs_env::BufferMut, DiskError> {
    let length = usize::try_from(length).map_err(|_| DiskError::OutOfRange)?;
    let buffer = disk.pool().alloc(length.max(BLOCK)).await;
    let (buffer, result) = disk.read(at, buffer).await;
    result.map(|()| buffer)
}

fn afs(head: &[u8]) -> Option<Contents> {
    let mut marked = false;
    let mut newest: Option<Superblock> = None;
    for offset in SUPERBLOCK_OFFSETS {
        let at = usize::try_from(offset).ok()?;
        let Some(bytes) = head.get(at..at + BLOCK) else { continue };
        marked |= bytes.starts_with(&MAGIC);
        let Some(block) = Superblock::read(bytes) else { continue };
        if newest.is_none_or(|other| other.revision.get() < block.revision.get()) {
            newest = Some(block);
        }
    }
    match newest {
        Some(block) => Some(Contents::Afs(DiskInfo::new(&block))),
        None => marked.then_some(Contents::AfsDamaged),
    }
}

fn known(head: &[u8]) -> Option<&'static str> {
    let found = |&&(offset, magic, _): &&(usize, &[u8], &str)| {
        head.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    };
    SIGNATURES.iter().find(found).map(|(_, _, name)| *name).or_else(|| zfs(head).then_some(ZFS))
}

const ZFS: &str = "a ZFS pool member";

/// ZFS keeps an array of uberblocks, 1 KiB to 8 KiB apart, in the second half of each 256 KiB
/// label.
fn zfs(label: &[u8]) -> bool {
    let magic = 0x00ba_b10c_u64;
    (128 << 10..label.len()).step_by(1024).any(|at| {
        label.get(at..at + 8).is_some_and(|b| b == magic.to_le_bytes() || b == magic.to_be_bytes())
    })
}

/// What leaves its mark at the end: the backup GPT, md 0.90 and 1.0, ZFS.
fn known_at_end(tail: &[u8]) -> Option<&'static str> {
    let md = [0xfc, 0x4e, 0x2b, 0xa9];
    for block in tail.chunks(512) {
        if block.starts_with(b"EFI PART") {
            return Some("a GPT partition table (its backup)");
        }
        if block.starts_with(&md) {
            return Some("a Linux RAID (md) member");
        }
    }
    zfs(tail).then_some(ZFS)
}
