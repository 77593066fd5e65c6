//! One journal block on disk.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::{BLOCK, page_crc};

const MAGIC: [u8; 4] = *b"AJRN";
/// Bytes for records in one block.
pub(crate) const RECORD_SPACE: usize = BLOCK - 64;

/// 4096 bytes. `payload` raw data blocks follow it in the ring and count in the sequence.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct JournalBlock {
    pub magic: [u8; 4],
    pub checksum: U32,
    pub sequence: U64,
    /// See the module documentation.
    pub durable: U64,
    /// Checksum of the block before this one (payload skipped).
    pub previous: U32,
    /// Bytes of `records` in use.
    pub used: U16,
    /// Data blocks that follow.
    pub payload: U16,
    pub reserved: [u8; 32],
    pub records: [u8; RECORD_SPACE],
}

const _: () = {
    assert!(size_of::<JournalBlock>() == BLOCK);
    assert!(offset_of!(JournalBlock, checksum) == 4);
    assert!(offset_of!(JournalBlock, sequence) == 8);
    assert!(offset_of!(JournalBlock, used) == 28);
    assert!(offset_of!(JournalBlock, records) == 64);
};

impl JournalBlock {
    /// Fills in magic and checksum.
    pub(crate) fn seal(&mut self, seed: u64) {
        self.magic = MAGIC;
        self.checksum = page_crc(seed, self.as_bytes(), offset_of!(Self, checksum)).into();
    }

    /// The block in these 4096 bytes, if it is whole and of this disk.
    pub(crate) fn read(bytes: &[u8], seed: u64) -> Option<&Self> {
        let block = Self::ref_from_bytes(bytes).ok()?;
        let good = block.magic == MAGIC
            && usize::from(block.used.get()) <= RECORD_SPACE
            && block.durable.get() <= block.sequence.get()
            && block.checksum.get() == page_crc(seed, bytes, offset_of!(Self, checksum));
        good.then_some(block)
    }

    /// Whether these bytes, which are no whole block, were once the block `sequence` after a block
    /// with the checksum `previous` (`None` if there was none): most of a damaged block still says
    /// so.
    pub(crate) fn was(bytes: &[u8], sequence: u64, previous: Option<u32>) -> bool {
        Self::ref_from_bytes(bytes).is_ok_and(|block| {
            block.magic == MAGIC
                && block.sequence.get() == sequence
                && previous.is_none_or(|previous| block.previous.get() == previous)
        })
    }

    /// The records' bytes.
    pub(crate) fn used_records(&self) -> &[u8] {
        self.records.get(..usize::from(self.used.get())).unwrap_or_default()
    }
}
