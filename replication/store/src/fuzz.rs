//! The entry for fuzzing journal replay, and a small corpus that the tests replay.

use zerocopy::{FromBytes, IntoBytes};

use crate::format::BLOCK;
use crate::journal::block::JournalBlock;
use crate::journal::record::Record;
use crate::journal::scan::Scan;

const SEED: u64 = 1;

/// Reads bytes as a ring of journal blocks, as recovery would, and then once more with every checksum made good, so that what lies
/// behind the checksums is reached too. Returns how many records were understood. Never panics.
pub fn fuzz_journal(bytes: &[u8]) -> usize {
    let mut blocks: Vec<[u8; BLOCK]> = bytes
        .chunks(BLOCK)
        .map(|chunk| {
            let mut block = [0; BLOCK];
            for (to, from) in block.iter_mut().zip(chunk) {
                *to = *from;
            }
            block
        })
        .collect();
    let start = blocks
        .first()
        .and_then(|block| JournalBlock::ref_from_bytes(block).ok())
        .map_or(0, |block| block.sequence.get());
    let raw = replay(&blocks, start);
    let mut previous = 0.into();
    for block in &mut blocks {
        if let Ok(header) = JournalBlock::mut_from_bytes(block) {
            header.previous = previous;
            header.seal(SEED);
            previous = header.checksum;
        }
    }
    raw + replay(&blocks, start)
}

fn replay(blocks: &[[u8; BLOCK]], start: u64) -> usize {
    if start > u64::MAX / 2 {
        return 0;
    }
    let mut scan = Scan::new(SEED, start);
    let mut records = 0;
    for block in blocks {
        let Ok(found) = scan.feed(block.as_bytes()) else { return records };
        let Some(found) = found else { continue };
        let mut rest = found.records.as_slice();
        while let Some((_, after)) = Record::parse(rest) {
            records += 1;
            rest = after;
        }
    }
    let _ = scan.finish();
    records
}
