//! The disk format: what lies where, and why in this order. Pure code, no I/O. Used by everything
//! that reads or writes a disk: [`crate::Store`], `inspect`, `check`, `format`.
//!
//! ```text
//! offset            what                                      unit
//! 0                 superblock A                              4096
//! 64 KiB            superblock B                              4096
//! 128 KiB           journal (ring)                            4096-byte blocks
//! after it          catalog, copy 0 then copy 1               4096-byte pages, 63 entries each
//! after it          chunk table, copy 0 then copy 1           4096-byte pages, 85 entries each
//! aligned to chunk  data                                      chunks (256 KiB unless set)
//! ```
//!
//! - **Superblock A comes first**, so that one 4 KiB read tells what a disk is, and because
//!   everything that might overwrite a disk by mistake (partition tables, file systems) hits A: **B
//!   lies 64 KiB further**, in another erase block or stripe. Each update goes to the copy that is
//!   *not* the newest, so a torn update leaves the other.
//! - **The journal has a fixed, early place** because recovery must find it with nothing but a
//!   superblock.
//! - **Catalog and chunk table exist twice.** A checkpoint writes the copy that the newest
//!   superblock does not name, and only then a superblock that does. So a cut during a checkpoint
//!   loses nothing: the named copy was not touched.
//! - **Data comes last**, aligned to its chunk size, so that a chunk never straddles the device's
//!   own units more than it must, and a chunk's place is `data_offset + chunk * chunk_bytes`.
//!
//! Every structure has a magic, the superblock names the format version, and each checksum (CRC32C)
//! is seeded with a random number drawn at format time: blocks of an earlier format of the same
//! disk, or a tenant's data made to look like metadata, never pass.
//!
//! The chunk table is indexed by physical chunk. An entry names the owner (layer, index), the
//! generation of the last write and two bits per block. Entries at or above `chunks` would be
//! mappings with no space behind them (all-zero chunks of a layer that has a parent); version 2
//! writes none.
//!
//! Versions: 1 had no labels. 2 has them, as a third part of the catalog and as a record of the
//! journal.

mod catalog;
mod superblock;
mod table;

pub(crate) use catalog::{
    CatalogPage, ENTRIES_PER_CATALOG_PAGE, LabelEntry, LayerEntry, ReplicaEntry,
};
pub(crate) use superblock::{
    Geometry, MAGIC, Root, Superblock, VERSION, valid_chunk_bytes, valid_journal_bytes,
};
pub(crate) use table::{ChunkEntry, ENTRIES_PER_TABLE_PAGE, TablePage};

/// Bytes of a block (an LBA), the unit of atomicity.
pub const BLOCK_BYTES: u32 = 4096;
/// [`BLOCK_BYTES`] as a length.
pub(crate) const BLOCK: usize = 4096;
/// Where the superblocks lie.
pub(crate) const SUPERBLOCK_OFFSETS: [u64; 2] = [0, 64 << 10];
/// Where the journal begins.
pub(crate) const JOURNAL_OFFSET: u64 = 128 << 10;
/// Chunks that one layer can address.
pub(crate) const MAX_LAYER_CHUNKS: u64 = 1 << 30;
/// The most blocks that a replica can have, at 64 blocks per chunk.
pub const MAX_REPLICA_BLOCKS: u64 = MAX_LAYER_CHUNKS * 64;

/// CRC32C of `data`, preceded by the disk's seed.
pub(crate) fn seeded_crc(seed: u64, parts: [&[u8]; 3]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&seed.to_le_bytes());
    for part in parts {
        digest.update(part);
    }
    low32(digest.finalize())
}

/// CRC32C of a data block.
pub(crate) fn block_crc(data: &[u8]) -> u32 {
    low32(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data))
}

/// CRC64-NVME of a data block.
pub(crate) fn block_crc64(data: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, data)
}

#[allow(clippy::cast_possible_truncation, reason = "a 32-bit checksum comes in the low half")]
fn low32(value: u64) -> u32 {
    value as u32
}

/// Checksum of a 4096-byte structure whose own checksum field lies at `field..field + 4` and counts
/// as absent.
pub(crate) fn page_crc(seed: u64, page: &[u8], field: usize) -> u32 {
    let (before, rest) = page.split_at(field.min(page.len()));
    let after = rest.get(4..).unwrap_or_default();
    seeded_crc(seed, [before, after, &[]])
}

#[cfg(test)]
mod tests;
