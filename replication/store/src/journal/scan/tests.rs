//! Reading the journal back: whole, torn and damaged.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use super::*;
use crate::format::BLOCK;
use crate::ids::{LayerId, ReplicaId};
use crate::journal::staging::Staging;

const SEED: u64 = 77;
const RING: u64 = 16;

/// A ring into which each call writes one group with one record.
struct Ring {
    blocks: Vec<Vec<u8>>,
    staging: Staging,
}

impl Ring {
    fn new(start: u64) -> Self {
        let staging = Staging::new(SEED, RING, start, start, 0);
        Self { blocks: vec![vec![0; BLOCK]; RING as usize], staging }
    }

    fn group(&mut self, records: u64) -> Vec<u64> {
        for n in 0..records {
            let record = Record::Delete { replica: ReplicaId([1; 16]), layer: LayerId(n + 1) };
            self.staging.append(&record, &[]).expect("room");
        }
        let mut buffer = vec![0; 8 * BLOCK];
        let mut written = Vec::new();
        while let Some(group) = self.staging.take(&mut buffer) {
            for (n, bytes) in (group.first..).zip(buffer.chunks(BLOCK).take(group.blocks)) {
                self.blocks[(n % RING) as usize] = bytes.to_vec();
                written.push(n);
            }
        }
        written
    }

    fn sync(&mut self) {
        self.staging.set_written(self.staging.next());
        self.staging.set_durable(self.staging.next());
    }

    fn scan(&self, start: u64) -> Result<(Vec<u64>, End), Damage> {
        let mut scan = Scan::new(SEED, start, true);
        let mut found = Vec::new();
        for n in start..start + RING {
            found.extend(scan.feed(&self.blocks[(n % RING) as usize])?.map(|b| b.sequence));
        }
        scan.finish().map(|end| (found, end))
    }
}

#[test]
fn a_whole_journal_is_read_to_its_end() {
    let mut ring = Ring::new(14);
    for _ in 0..5 {
        ring.group(1);
        ring.sync();
    }
    let (found, end) = ring.scan(14).unwrap();
    assert_eq!(found, [14, 15, 16, 17, 18]);
    assert_eq!((end.next, end.barrier), (19, 18));
    assert!(end.tail.is_empty());
}

#[test]
fn a_torn_group_is_a_normal_end() {
    let mut ring = Ring::new(1);
    ring.group(1);
    ring.sync();
    let written = ring.group(200);
    assert!(written.len() > 2);
    ring.blocks[written[1] as usize] = vec![0; BLOCK];
    let (found, end) = ring.scan(1).unwrap();
    assert_eq!(found, [1, 2]);
    assert_eq!(end.next, 3);
    assert_eq!(end.tail, [4]);
}

#[test]
fn a_bad_block_that_was_durable_is_damage() {
    for bad in 1..=3 {
        let mut ring = Ring::new(1);
        for _ in 0..4 {
            ring.group(1);
            ring.sync();
        }
        ring.blocks[bad as usize][100] ^= 1;
        assert_eq!(ring.scan(1).unwrap_err(), Damage::Journal { sequence: bad });
    }
}

#[test]
fn a_damaged_last_block_is_not_taken_for_a_torn_one() {
    let mut ring = Ring::new(1);
    for _ in 0..4 {
        ring.group(1);
        ring.sync();
    }
    ring.blocks[4][3000] ^= 1;
    assert_eq!(ring.scan(1).unwrap_err(), Damage::Journal { sequence: 4 });
    let mut torn = Scan::new(SEED, 1, false);
    for n in 1..=RING {
        torn.feed(&ring.blocks[(n % RING) as usize]).unwrap();
    }
    assert_eq!(torn.finish().unwrap().next, 4, "a disk that tears may have torn it");
}

#[test]
fn a_start_that_was_overwritten_is_noticed() {
    let mut ring = Ring::new(1);
    for n in 0..24 {
        ring.group(1);
        ring.sync();
        ring.staging.cut(n);
    }
    assert_eq!(ring.scan(1).unwrap_err(), Damage::JournalCut { sequence: 1 });
    assert!(ring.scan(20).is_ok());
}

#[test]
fn payload_counts_only_if_its_checksums_fit() {
    let data = vec![3; 2 * BLOCK];
    let sums = [U32::new(block_crc(&data[..BLOCK])); 2];
    let place = crate::journal::record::Place { chunk: 0, layer: LayerId(1), index: 0 };
    let generation = crate::ids::Generation::default();
    let record = Record::Overwrite { place, generation, mask: 3, checksums: &sums };
    let mut ring = Ring::new(1);
    ring.staging.append(&record, &data).unwrap();
    ring.group(1);
    let (found, end) = ring.scan(1).unwrap();
    assert_eq!((found, end.next), (vec![1, 4], 5));
    ring.blocks[3][9] ^= 1;
    let (found, end) = ring.scan(1).unwrap();
    assert_eq!((found.as_slice(), end.next, end.tail), ([].as_slice(), 1, vec![1, 4]));
}
