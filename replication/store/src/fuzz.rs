//! The entry for fuzzing journal replay, and a small corpus that the tests replay.

use zerocopy::{FromBytes, IntoBytes};

use crate::format::BLOCK;
use crate::journal::block::JournalBlock;
use crate::journal::record::Record;
use crate::journal::scan::Scan;

const SEED: u64 = 1;

/// Reads bytes as a ring of journal blocks, as recovery would, and then once more with every
/// checksum made good, so that what lies behind the checksums is reached too. Returns how many
/// records were understood. Never panics.
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
    let mut scan = Scan::new(SEED, start, false);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file of `fuzz/corpus/journal`, and each of them with bytes changed.
    #[test]
    fn the_corpus_is_read_without_a_panic() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/journal");
        let mut understood = 0;
        let files: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
        assert!(files.len() >= 4, "the corpus is missing");
        for file in files {
            let mut bytes = std::fs::read(file.path()).unwrap_or_default();
            understood += fuzz_journal(&bytes);
            for at in (0..bytes.len()).step_by(7) {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = byte.wrapping_add(129);
                }
                fuzz_journal(&bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = byte.wrapping_sub(129);
                }
            }
        }
        assert!(understood > 20, "{understood} records");
    }

    /// The files are what the journal writes today. After a change of the format, run this test once with
    /// `AFS_WRITE_CORPUS=1` and commit what it wrote.
    #[test]
    fn the_corpus_is_what_the_journal_writes() {
        use crate::ids::{Generation, LayerId, ReplicaId};
        use crate::journal::record::Place;
        use crate::journal::staging::Staging;
        use crate::label::Label;

        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/journal");
        let write_anew = std::env::var_os("AFS_WRITE_CORPUS").is_some();
        let place = Place { chunk: 3, layer: LayerId(2), index: 5 };
        let generation = Generation { epoch: 1, number: 2 };
        let data = [0xa5; 2 * BLOCK];
        let crc = crate::format::block_crc(&[0xa5; BLOCK]).into();
        let (sums, replica) = ([crc, crc], ReplicaId([4; 16]));
        let layer = LayerId(2);
        let write = Record::Write { place, generation, mask: 5, checksums: &sums };
        let overwrite = Record::Overwrite { place, generation, mask: 3, checksums: &sums };
        let clear = Record::Clear { place, generation, mask: 4, to_zero: true, free: false };
        let label = Label { promised: 1, promised_to: 2, committed: generation, state: [3; 32] };
        let manage = [
            Record::Create { replica, layer, parent: 0, blocks: 99 },
            Record::Resize { replica, layer, blocks: 9 },
            Record::Delete { replica, layer },
            Record::Label { replica, layer, label },
        ];
        let stamp = Record::Stamp { place, generation };
        let sets: [(&str, &[Record<'_>], &[u8]); 5] = [
            ("writes", &[write, write, clear], &[]),
            ("manage", &manage, &[]),
            ("payload", &[overwrite], &data),
            ("full-block", &[write; 90], &[]),
            ("stamps", &[stamp, clear, stamp], &[]),
        ];
        for (name, records, payload) in sets {
            let mut staging = Staging::new(SEED, 64, 1, 1, 0);
            for record in records {
                staging.append(record, payload).expect("room");
            }
            let mut bytes = vec![0; 16 * BLOCK];
            let group = staging.take(&mut bytes).expect("staged");
            bytes.truncate(group.blocks * BLOCK);
            let path = format!("{folder}/{name}");
            if write_anew {
                std::fs::write(&path, &bytes).expect("written");
            }
            let kept = std::fs::read(&path).expect("the corpus has this file");
            assert!(kept == bytes, "{name} is not what the journal writes; see above");
        }
    }
}
