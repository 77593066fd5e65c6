//! Layouts on disk: sizes, checksums, what is refused.
#![allow(clippy::unwrap_used)]
use uuid::Uuid;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::*;

fn geometry() -> Geometry {
    Geometry::plan(Uuid::from_u128(7), 64 << 20, 256 << 10, 1 << 20, 99).unwrap()
}

fn root() -> Root {
    Root {
        revision: 1,
        checkpoint: 0,
        journal_start: 1,
        next_layer: 1,
        incarnation: 0,
        copy: 0,
        clean: true,
    }
}

#[test]
fn superblock_survives_a_round_trip() {
    let block = Superblock::new(&geometry(), &root());
    let read = Superblock::read(block.as_bytes()).unwrap();
    assert_eq!(read.geometry().unwrap(), geometry());
    assert_eq!(read.root().unwrap(), root());
}

#[test]
fn any_flipped_bit_breaks_a_superblock() {
    let block = Superblock::new(&geometry(), &root());
    for byte in 0..BLOCK {
        let mut bytes = block.as_bytes().to_vec();
        bytes[byte] ^= 1 << (byte % 8);
        assert!(Superblock::read(&bytes).is_none(), "byte {byte}");
    }
}

#[test]
fn any_flipped_bit_breaks_a_table_page() {
    let mut page = TablePage::new_zeroed();
    page.seal(5, 3, 9);
    assert!(page.is_whole(5, 3, 9));
    assert!(!page.is_whole(6, 3, 9), "another disk's seed");
    assert!(!page.is_whole(5, 4, 9), "another page");
    assert!(!page.is_whole(5, 3, 8), "newer than the checkpoint");
    for byte in 0..BLOCK {
        let mut bytes = page.as_bytes().to_vec();
        bytes[byte] ^= 0x10;
        assert!(!TablePage::read_from_bytes(&bytes).unwrap().is_whole(5, 3, u64::MAX));
    }
}

#[test]
fn metadata_stays_out_of_the_data_area() {
    for mib in [2_u64, 3, 5, 64, 1 << 10, 1 << 20] {
        let g = Geometry::plan(Uuid::nil(), mib << 20, 256 << 10, 256 << 10, 1).unwrap();
        assert!(g.table_offset[1] + u64::from(g.table_pages) * 4096 <= g.data_offset);
        assert!(g.chunk_offset(g.chunks) <= mib << 20);
        assert!(g.table_pages * ENTRIES_PER_TABLE_PAGE >= g.chunks);
    }
    assert!(Geometry::plan(Uuid::nil(), 512 << 10, 256 << 10, 256 << 10, 1).is_none());
}
