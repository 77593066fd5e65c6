//! The chunk table: one entry per physical chunk, 85 to a page.

use std::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BLOCK, page_crc};

const MAGIC: [u8; 4] = *b"ACHT";
/// Entries in one page.
pub(crate) const ENTRIES_PER_TABLE_PAGE: u32 = 85;

/// One physical chunk. `layer` 0 means free; then all other fields are 0.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub(crate) struct ChunkEntry {
    pub layer: U64,
    /// Chunk index in the layer.
    pub index: U32,
    pub reserved: U32,
    pub epoch: U64,
    pub number: U64,
    /// Bit n: block n holds data.
    pub data: U64,
    /// Bit n: block n reads as zeroes although a lower layer may hold data. Never set together with
    /// `data`.
    pub zero: U64,
}

/// 4096 bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct TablePage {
    pub magic: [u8; 4],
    pub checksum: U32,
    /// Page number in the copy.
    pub page: U32,
    /// Low half of the checkpoint revision that wrote the page.
    pub revision: U32,
    pub entries: [ChunkEntry; 85],
}

const _: () = {
    assert!(size_of::<ChunkEntry>() == 48);
    assert!(offset_of!(ChunkEntry, data) == 32);
    assert!(size_of::<TablePage>() == BLOCK);
    assert!(offset_of!(TablePage, checksum) == 4);
    assert!(offset_of!(TablePage, entries) == 16);
};

impl TablePage {
    /// Fills in everything but the entries.
    pub(crate) fn seal(&mut self, seed: u64, page: u32, revision: u32) {
        self.magic = MAGIC;
        self.page = page.into();
        self.revision = revision.into();
        self.checksum = page_crc(seed, self.as_bytes(), offset_of!(Self, checksum)).into();
    }

    /// Whether this is page `page`, whole, of this disk, and not newer than checkpoint `newest`.
    pub(crate) fn is_whole(&self, seed: u64, page: u32, newest: u64) -> bool {
        self.magic == MAGIC
            && self.page.get() == page
            && u64::from(self.revision.get()) <= newest
            && self.checksum.get() == page_crc(seed, self.as_bytes(), offset_of!(Self, checksum))
    }
}
