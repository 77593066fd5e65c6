//! The superblock: identity and geometry, fixed at format time, and the root of the metadata, new
//! with each checkpoint, open and clean close.

use std::mem::offset_of;

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    BLOCK, BLOCK_BYTES, ENTRIES_PER_CATALOG_PAGE, ENTRIES_PER_TABLE_PAGE, JOURNAL_OFFSET, page_crc,
};
use crate::error::Damage;

/// First bytes of an afs disk.
pub(crate) const MAGIC: [u8; 8] = *b"AFS-DISK";
/// The format version that this program writes and reads.
pub(crate) const VERSION: u32 = 2;
/// The superblock's own checksum cannot use the disk's seed, which it holds.
const SUPERBLOCK_SEED: u64 = 0x6166_735f_7375_7062;

/// 4096 bytes, at each of [`super::SUPERBLOCK_OFFSETS`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Superblock {
    pub magic: [u8; 8],
    pub version: U32,
    pub checksum: U32,
    pub disk_id: [u8; 16],
    /// Grows with each superblock written; the higher one counts.
    pub revision: U64,
    pub disk_bytes: U64,
    pub block_bytes: U32,
    pub chunk_bytes: U32,
    pub chunks: U32,
    pub table_pages: U32,
    pub layer_pages: U32,
    pub replica_pages: U32,
    pub journal_offset: U64,
    pub journal_blocks: U64,
    pub catalog_offset: [U64; 2],
    pub table_offset: [U64; 2],
    pub data_offset: U64,
    /// Random, drawn at format time: seeds every other checksum.
    pub seed: U64,
    /// Revision of the newest complete checkpoint; 0 is none, then both tables count as empty.
    pub checkpoint: U64,
    /// Sequence number of the first journal block that replay reads.
    pub journal_start: U64,
    /// The next layer's id.
    pub next_layer: U64,
    /// How often the disk was opened.
    pub incarnation: U64,
    /// Which copy of catalog and chunk table is current.
    pub copy: U32,
    /// 1 after a clean close: nothing to replay.
    pub clean: U32,
    pub reserved: [[u8; 16]; 245],
}

const _: () = {
    assert!(size_of::<Superblock>() == BLOCK);
    assert!(offset_of!(Superblock, checksum) == 12);
    assert!(offset_of!(Superblock, disk_id) == 16);
    assert!(offset_of!(Superblock, revision) == 32);
    assert!(offset_of!(Superblock, journal_offset) == 72);
    assert!(offset_of!(Superblock, seed) == 128);
    assert!(offset_of!(Superblock, checkpoint) == 136);
    assert!(offset_of!(Superblock, copy) == 168);
    assert!(offset_of!(Superblock, reserved) == 176);
};

/// Where everything lies on one disk; fixed at format time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub disk_id: Uuid,
    pub disk_bytes: u64,
    pub chunk_bytes: u32,
    pub chunks: u32,
    pub table_pages: u32,
    pub layer_pages: u32,
    pub replica_pages: u32,
    pub journal_offset: u64,
    pub journal_blocks: u64,
    pub catalog_offset: [u64; 2],
    pub table_offset: [u64; 2],
    pub data_offset: u64,
    pub seed: u64,
}

/// The part of a superblock that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub revision: u64,
    pub checkpoint: u64,
    pub journal_start: u64,
    pub next_layer: u64,
    pub incarnation: u64,
    pub copy: u32,
    pub clean: bool,
}

impl Geometry {
    /// Lays out a disk. `None` if it has no room for one chunk or has too many.
    pub(crate) fn plan(
        disk_id: Uuid,
        disk_bytes: u64,
        chunk_bytes: u32,
        journal_bytes: u64,
        seed: u64,
    ) -> Option<Self> {
        let chunk = u64::from(chunk_bytes);
        let block = u64::from(BLOCK_BYTES);
        // Chunks that would fit with no metadata at all bound the tables; the rest follows.
        let most = u32::try_from(disk_bytes / chunk).ok().filter(|n| *n < u32::MAX - 1)?;
        let table_pages = most.div_ceil(ENTRIES_PER_TABLE_PAGE).max(1);
        let catalog_pages = most.div_ceil(ENTRIES_PER_CATALOG_PAGE).clamp(1, 64);
        let catalog = JOURNAL_OFFSET + journal_bytes;
        // Layers, replicas, labels.
        let catalog_bytes = u64::from(catalog_pages) * 3 * block;
        let table = catalog + 2 * catalog_bytes;
        let table_bytes = u64::from(table_pages) * block;
        let data_offset = (table + 2 * table_bytes).next_multiple_of(chunk);
        let chunks = u32::try_from(disk_bytes.checked_sub(data_offset)? / chunk).ok()?;
        (chunks > 0).then_some(Self {
            disk_id,
            disk_bytes,
            chunk_bytes,
            chunks,
            table_pages,
            layer_pages: catalog_pages,
            replica_pages: catalog_pages,
            journal_offset: JOURNAL_OFFSET,
            journal_blocks: journal_bytes / block,
            catalog_offset: [catalog, catalog + catalog_bytes],
            table_offset: [table, table + table_bytes],
            data_offset,
            seed,
        })
    }

    /// Blocks in one chunk, 4 to 64.
    pub(crate) fn chunk_blocks(&self) -> u32 {
        self.chunk_bytes / BLOCK_BYTES
    }

    /// The states mask of a whole chunk.
    pub(crate) fn full_mask(&self) -> u64 {
        u64::MAX >> (64 - self.chunk_blocks())
    }

    /// Byte offset of a physical chunk.
    pub(crate) fn chunk_offset(&self, chunk: u32) -> u64 {
        self.data_offset + u64::from(chunk) * u64::from(self.chunk_bytes)
    }

    /// Byte offset of the journal block with this sequence number.
    pub(crate) fn journal_position(&self, sequence: u64) -> u64 {
        self.journal_offset + (sequence % self.journal_blocks) * u64::from(BLOCK_BYTES)
    }

    /// Layers (and replicas) that the catalog can hold.
    pub(crate) fn catalog_entries(&self) -> usize {
        (self.layer_pages.min(self.replica_pages) * ENTRIES_PER_CATALOG_PAGE) as usize
    }

    /// Every offset and count agrees with what [`Geometry::plan`] would have made.
    fn validate(&self) -> Result<(), Damage> {
        if !valid_chunk_bytes(self.chunk_bytes) {
            return Err(Damage::Geometry("chunk size"));
        }
        if !valid_journal_bytes(self.journal_blocks.saturating_mul(u64::from(BLOCK_BYTES))) {
            return Err(Damage::Geometry("journal size"));
        }
        let journal_bytes = self.journal_blocks * u64::from(BLOCK_BYTES);
        let planned =
            Self::plan(self.disk_id, self.disk_bytes, self.chunk_bytes, journal_bytes, self.seed);
        match planned {
            Some(planned) if planned == *self => Ok(()),
            _ => Err(Damage::Geometry("offsets")),
        }
    }
}

/// A power of two from 16 KiB to 256 KiB.
pub(crate) fn valid_chunk_bytes(bytes: u32) -> bool {
    bytes.is_power_of_two() && (16 << 10..=256 << 10).contains(&bytes)
}

/// Whole blocks, 64 KiB to 4 GiB.
pub(crate) fn valid_journal_bytes(bytes: u64) -> bool {
    bytes.is_multiple_of(u64::from(BLOCK_BYTES)) && (64 << 10..=4 << 30).contains(&bytes)
}

impl Superblock {
    pub(crate) fn new(g: &Geometry, root: &Root) -> Self {
        let mut block = Self {
            magic: MAGIC,
            version: VERSION.into(),
            checksum: 0.into(),
            disk_id: g.disk_id.into_bytes(),
            revision: root.revision.into(),
            disk_bytes: g.disk_bytes.into(),
            block_bytes: BLOCK_BYTES.into(),
            chunk_bytes: g.chunk_bytes.into(),
            chunks: g.chunks.into(),
            table_pages: g.table_pages.into(),
            layer_pages: g.layer_pages.into(),
            replica_pages: g.replica_pages.into(),
            journal_offset: g.journal_offset.into(),
            journal_blocks: g.journal_blocks.into(),
            catalog_offset: g.catalog_offset.map(U64::new),
            table_offset: g.table_offset.map(U64::new),
            data_offset: g.data_offset.into(),
            seed: g.seed.into(),
            checkpoint: root.checkpoint.into(),
            journal_start: root.journal_start.into(),
            next_layer: root.next_layer.into(),
            incarnation: root.incarnation.into(),
            copy: root.copy.into(),
            clean: u32::from(root.clean).into(),
            reserved: [[0; 16]; 245],
        };
        block.checksum = block.compute_checksum().into();
        block
    }

    fn compute_checksum(&self) -> u32 {
        page_crc(SUPERBLOCK_SEED, self.as_bytes(), offset_of!(Self, checksum))
    }

    /// Whether magic and checksum are good (the version may still be foreign).
    pub(crate) fn is_whole(&self) -> bool {
        self.magic == MAGIC && self.checksum.get() == self.compute_checksum()
    }

    /// Reads a superblock out of its 4096 bytes, if it is whole.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Self::read_from_bytes(bytes).ok().filter(Self::is_whole)
    }

    /// The checked geometry.
    pub(crate) fn geometry(&self) -> Result<Geometry, Damage> {
        if self.block_bytes.get() != BLOCK_BYTES {
            return Err(Damage::Geometry("block size"));
        }
        let geometry = Geometry {
            disk_id: Uuid::from_bytes(self.disk_id),
            disk_bytes: self.disk_bytes.get(),
            chunk_bytes: self.chunk_bytes.get(),
            chunks: self.chunks.get(),
            table_pages: self.table_pages.get(),
            layer_pages: self.layer_pages.get(),
            replica_pages: self.replica_pages.get(),
            journal_offset: self.journal_offset.get(),
            journal_blocks: self.journal_blocks.get(),
            catalog_offset: self.catalog_offset.map(U64::get),
            table_offset: self.table_offset.map(U64::get),
            data_offset: self.data_offset.get(),
            seed: self.seed.get(),
        };
        geometry.validate()?;
        Ok(geometry)
    }

    /// The checked root.
    pub(crate) fn root(&self) -> Result<Root, Damage> {
        if self.copy.get() > 1 || self.clean.get() > 1 || self.next_layer.get() == 0 {
            return Err(Damage::Geometry("root"));
        }
        Ok(Root {
            revision: self.revision.get(),
            checkpoint: self.checkpoint.get(),
            journal_start: self.journal_start.get(),
            next_layer: self.next_layer.get(),
            incarnation: self.incarnation.get(),
            copy: self.copy.get(),
            clean: self.clean.get() == 1,
        })
    }
}
