//! The catalog: which layers and which replicas exist. Layer pages come first, then replica pages,
//! then as many pages of labels: label n is that of replica n.

use std::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BLOCK, page_crc};
use crate::ids::Generation;
use crate::label::Label;

const MAGIC: [u8; 4] = *b"ACAT";
/// Entries in one page.
pub(crate) const ENTRIES_PER_CATALOG_PAGE: u32 = 63;

/// One layer; `id` 0 means none.
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
pub(crate) struct LayerEntry {
    pub id: U64,
    /// The layer below; 0 is none.
    pub parent: U64,
    pub blocks: U64,
    /// Replicas whose top this is, plus layers whose parent this is.
    pub references: U32,
    pub flags: U32,
    pub reserved: [u8; 32],
}

/// One replica; a nil `id` means none.
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
pub(crate) struct ReplicaEntry {
    pub id: [u8; 16],
    /// Its top layer.
    pub layer: U64,
    pub blocks: U64,
    pub reserved: [u8; 32],
}

/// The label of one replica, in the catalog and in the journal.
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
pub(crate) struct LabelEntry {
    pub promised: U64,
    pub promised_to: U64,
    pub committed_epoch: U64,
    pub committed_number: U64,
    pub state: [u8; 32],
}

impl From<Label> for LabelEntry {
    fn from(label: Label) -> Self {
        Self {
            promised: label.promised.into(),
            promised_to: label.promised_to.into(),
            committed_epoch: label.committed.epoch.into(),
            committed_number: label.committed.number.into(),
            state: label.state,
        }
    }
}

impl From<LabelEntry> for Label {
    fn from(entry: LabelEntry) -> Self {
        let (epoch, number) = (entry.committed_epoch.get(), entry.committed_number.get());
        Self {
            promised: entry.promised.get(),
            promised_to: entry.promised_to.get(),
            committed: Generation { epoch, number },
            state: entry.state,
        }
    }
}

/// 4096 bytes: 63 entries of 64 bytes, of one kind.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct CatalogPage {
    pub magic: [u8; 4],
    pub checksum: U32,
    /// Page number in the copy.
    pub page: U32,
    /// Low half of the checkpoint revision that wrote the page.
    pub revision: U32,
    pub reserved: [u8; 48],
    pub entries: [[u8; 64]; 63],
}

const _: () = {
    assert!(size_of::<LayerEntry>() == 64);
    assert!(offset_of!(LayerEntry, references) == 24);
    assert!(size_of::<ReplicaEntry>() == 64);
    assert!(offset_of!(ReplicaEntry, layer) == 16);
    assert!(size_of::<LabelEntry>() == 64);
    assert!(offset_of!(LabelEntry, committed_epoch) == 16);
    assert!(offset_of!(LabelEntry, state) == 32);
    assert!(size_of::<CatalogPage>() == BLOCK);
    assert!(offset_of!(CatalogPage, entries) == 64);
};

impl CatalogPage {
    /// Fills in everything but the entries.
    pub(crate) fn seal(&mut self, seed: u64, page: u32, revision: u32) {
        self.magic = MAGIC;
        self.page = page.into();
        self.revision = revision.into();
        self.checksum = page_crc(seed, self.as_bytes(), offset_of!(Self, checksum)).into();
    }

    /// Whether this is page `page`, whole, of this disk, written by checkpoint `revision` (all
    /// pages are written each time).
    #[allow(clippy::cast_possible_truncation, reason = "pages carry the low half")]
    pub(crate) fn is_whole(&self, seed: u64, page: u32, revision: u64) -> bool {
        self.magic == MAGIC
            && self.page.get() == page
            && self.revision.get() == revision as u32
            && self.checksum.get() == page_crc(seed, self.as_bytes(), offset_of!(Self, checksum))
    }
}
