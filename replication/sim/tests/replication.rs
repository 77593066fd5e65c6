//! What replication asks of a store: labels, stamps, and lists of what a replica holds.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "shared with other tests")]
mod common;

use afs_env::Disk;
use afs_sim::{Loss, SimDisk, SimRandom};
use afs_store::{Generation, Label, Replica, StoreError, Sum};
use common::marks::{generation, label_of, stamps};
use common::{BLOCKS, Expected, Setup, Step, World, format_disk, id, recover};

fn world(seed: u64) -> (Setup, World, Replica<SimDisk>) {
    let setup = Setup::new(seed);
    let world = World::open(&setup, &format_disk(&setup), Expected::default()).unwrap();
    world.create(1, BLOCKS);
    let replica = world.store.replica(id(1)).unwrap();
    (setup, world, replica)
}

fn run(world: &World, step: Step) {
    let handle = world.clone();
    world.sim.run(async move { handle.step(step).await }).unwrap().unwrap();
}

fn write(world: &World, lba: u64, blocks: u64) {
    run(world, Step::Write { replica: 1, lba, blocks });
}

fn set_label(world: &World, label: Label) -> Result<(), StoreError> {
    let replica = world.store.replica(id(1)).unwrap();
    world.sim.run(async move { replica.set_label(label).await }).unwrap()
}

/// Cuts the power and opens what is left.
fn crash(setup: &Setup, world: &World) -> (World, Replica<SimDisk>) {
    let image = world.disk.cut(Loss::All, &SimRandom::new(1));
    let expected = world.expected_after_cut();
    world.sim.kill();
    let (world, found) = recover(setup, &image, expected).unwrap();
    *world.expected.borrow_mut() = found;
    let replica = world.store.replica(id(1)).unwrap();
    (world, replica)
}

fn checkpoint(world: &World) {
    let before = world.store.stats().checkpoints;
    run(world, Step::Checkpoint);
    while world.store.stats().checkpoints == before {
        let zeroes = Step::Zero { replica: 1, lba: BLOCKS - 1, blocks: 1, deallocate: true };
        write(world, BLOCKS - 1, 1);
        run(world, zeroes);
    }
}

#[test]
fn a_new_replica_has_a_label_of_zeroes() {
    let (_, _, replica) = world(1);
    assert_eq!(replica.label(), Label::default());
    let Label { promised, promised_to, committed, state } = replica.label();
    assert_eq!((promised, promised_to, committed), (0, 0, Generation { epoch: 0, number: 0 }));
    assert_eq!(state, [0; 32]);
}

#[test]
fn a_label_outlives_crashes_checkpoints_and_a_clean_close() {
    let (setup, first, replica) = world(2);
    set_label(&first, label_of(5)).unwrap();
    assert_eq!(replica.label(), label_of(5));
    // The model has not seen these labels: no comparison here.
    let reopen = |world: &World| {
        let image = world.disk.cut(Loss::All, &SimRandom::new(1));
        world.sim.kill();
        let world = World::open(&setup, &image, world.expected.borrow().clone()).unwrap();
        let label = world.store.replica(id(1)).unwrap().label();
        (world, label)
    };
    let (second, label) = reopen(&first);
    assert_eq!(label, label_of(5), "after a crash");
    checkpoint(&second);
    checkpoint(&second);
    let (third, label) = reopen(&second);
    assert_eq!(label, label_of(5), "out of the catalog");
    set_label(&third, label_of(9)).unwrap();
    let (fourth, label) = reopen(&third);
    assert_eq!(label, label_of(9), "the journal is newer than the catalog");
    fourth.close();
    assert_eq!(set_label(&fourth, label_of(1)), Err(StoreError::Stopped));
    let (fifth, label) = reopen(&fourth);
    assert!(fifth.store.was_clean());
    assert_eq!(label, label_of(9));
}

#[test]
fn of_labels_set_side_by_side_the_last_one_stays() {
    let (_, world, replica) = world(3);
    let before = world.store.stats();
    let handles = (1..=20).map(|tag| (replica.clone(), label_of(tag)));
    let all: Vec<_> = handles.map(|(r, label)| async move { r.set_label(label).await }).collect();
    for result in world.sim.run(futures_util::future::join_all(all)).unwrap() {
        result.unwrap();
    }
    assert_eq!(replica.label(), label_of(20));
    let after = world.store.stats();
    assert_eq!(after.journal_syncs - before.journal_syncs, 1, "one group");
}

#[test]
fn a_deleted_replica_takes_no_label() {
    let (_, world, replica) = world(4);
    let store = world.store.clone();
    world.sim.run(async move { store.delete_replica(id(1)).await }).unwrap().unwrap();
    let result = world.sim.run(async move { replica.set_label(label_of(1)).await }).unwrap();
    assert_eq!(result, Err(StoreError::Deleted));
}

#[test]
fn chunks_are_listed_by_the_generation_of_their_last_change() {
    let (setup, world, replica) = world(5);
    replica.set_generation(generation(1));
    write(&world, 0, 12);
    replica.set_generation(generation(4));
    write(&world, 1, 1);
    replica.set_generation(generation(5));
    run(&world, Step::Trim { replica: 1, lba: 9, blocks: 1 });
    replica.set_generation(generation(8));
    write(&world, 14, 1);
    // Nothing changes: a trim of what is trimmed, and of a chunk that is not there.
    run(&world, Step::Trim { replica: 1, lba: 9, blocks: 1 });
    let wanted = [Some(4), Some(1), Some(5), Some(8)];
    world.expected.borrow_mut().generation_max = 8;
    assert_eq!(stamps(&replica, 8).unwrap(), wanted);
    let (world, replica) = crash(&setup, &world);
    assert_eq!(stamps(&replica, 8).unwrap(), wanted);
    assert_eq!(replica.chunks_since(generation(0), 0, 2), [0, 1]);
    assert_eq!(replica.chunks_since(generation(0), 2, 2), [2, 3]);
    assert_eq!(replica.chunks_since(generation(1), 1, 9), [2, 3]);
    assert!(replica.chunks_since(generation(8), 0, 9).is_empty());
    assert!(replica.chunks_since(generation(0), 4, 9).is_empty());
    assert!(replica.chunks_since(generation(0), 0, 0).is_empty());
    assert!(replica.chunks_since(generation(0), u32::MAX, 9).is_empty());
    run(&world, Step::Trim { replica: 1, lba: 4, blocks: 4 });
    assert_eq!(stamps(&replica, 8).unwrap(), [Some(4), None, Some(5), Some(8)]);
    assert_eq!(replica.allocated_map(0, 4), [0b1101]);
    assert_eq!(replica.allocated_map(2, 32), [0b11, 0, 0, 0]);
    assert_eq!(replica.allocated_map(1, 1), [0]);
    assert_eq!(replica.allocated_map(3, 0), []);
    assert_eq!(replica.allocated_map(u32::MAX, 8), [0]);
}

#[test]
fn large_replicas_are_listed_over_every_stride() {
    let setup = Setup::new(6);
    let world = World::open(&setup, &format_disk(&setup), Expected::default()).unwrap();
    let chunks = 1 << 20;
    let store = world.store.clone();
    world.sim.run(async move { store.create_replica(id(1), chunks * 4).await }).unwrap().unwrap();
    let replica = world.store.replica(id(1)).unwrap();
    replica.set_generation(generation(1));
    let places = [0, 1023, 1024, 5000, chunks - 1];
    for chunk in places {
        write(&world, chunk * 4, 1);
    }
    let found = replica.chunks_since(generation(0), 0, 100);
    assert_eq!(found, places.map(|chunk| chunk as u32));
    assert_eq!(replica.chunks_since(generation(0), 1024, 2), [1024, 5000]);
    assert_eq!(replica.allocated_map(1016, 16), [0x80, 0x01]);
}

#[test]
fn the_generation_never_goes_back_and_begins_at_the_highest_stamp() {
    let (setup, world, replica) = world(7);
    replica.set_generation(generation(7));
    write(&world, 0, 4);
    replica.set_generation(generation(3));
    write(&world, 4, 4);
    let stamps_before = world.store.stats().stamps;
    write(&world, 0, 4);
    assert_eq!(world.store.stats().stamps, stamps_before);
    world.expected.borrow_mut().generation_max = 8;
    let (world, replica) = crash(&setup, &world);
    assert_eq!(stamps(&replica, 8).unwrap(), [Some(7), Some(7), None, None]);
    replica.set_generation(generation(2));
    write(&world, 8, 1);
    write(&world, 0, 1);
    assert_eq!(stamps(&replica, 8).unwrap(), [Some(7), Some(7), Some(7), None]);
}

#[test]
fn generations_that_no_chunk_shows_are_forgotten() {
    let (setup, mut world, mut replica) = world(8);
    replica.set_generation(generation(2));
    write(&world, 4, 1);
    for round in 0..3 {
        for count in 0..1000 {
            replica.set_generation(generation(10 + round * 1000 + count));
            if count % 10 == 0 {
                write(&world, 0, 1);
            }
        }
        checkpoint(&world);
        world.store.check_invariants().unwrap();
        let kept = world.store.stats().generations;
        assert!(kept < 300, "round {round}: {kept} generations");
    }
    let list = |replica: &Replica<SimDisk>, after| replica.chunks_since(generation(after), 0, 9);
    for _ in 0..2 {
        assert_eq!(list(&replica, 1), [0, 1]);
        assert_eq!(list(&replica, 2), [0]);
        assert_eq!(list(&replica, 2999), [0]);
        assert!(list(&replica, 3000).is_empty());
        world.expected.borrow_mut().generation_max = 3010;
        (world, replica) = crash(&setup, &world);
    }
    let kept = world.store.stats().generations;
    assert!(kept < 10, "{kept} generations after an open");
}

#[test]
fn checksums_are_those_of_the_blocks_that_hold_data() {
    let (_, world, replica) = world(9);
    write(&world, 4, 2);
    write(&world, 7, 1);
    run(&world, Step::Zero { replica: 1, lba: 5, blocks: 1, deallocate: false });
    assert_eq!(replica.block_states(1), 0b1001);
    let checksums = |replica: Replica<SimDisk>, chunk, bytes| {
        let buffer = world.disk.pool().try_alloc(bytes).unwrap();
        world.sim.run(async move { replica.checksums(chunk, buffer).await }).unwrap()
    };
    let (data, sums, buffer) = checksums(replica.clone(), 1, 64 << 10).unwrap();
    assert_eq!((data, buffer.len()), (0b1001, 16 << 10));
    let mut expected = [Sum::default(); 64];
    for block in [0, 3] {
        expected[block] = Sum::of(&buffer[block * 4096..][..4096]);
        assert_ne!(expected[block], Sum::default());
    }
    assert_eq!(sums, expected);
    assert_ne!(sums[0], sums[3]);
    assert!(buffer[4096..3 * 4096].iter().all(|byte| *byte == 0));
    let (read, lba4) = (replica.clone(), world.disk.pool().try_alloc(16 << 10).unwrap());
    let (read, result) = world.sim.run(async move { read.read(4, lba4).await }).unwrap();
    assert_eq!((result, &read[..]), (Ok(()), &buffer[..]));
    let (data, sums, buffer) = checksums(replica.clone(), 0, 16 << 10).unwrap();
    assert_eq!((data, sums), (0, [Sum::default(); 64]));
    assert!(buffer.iter().all(|byte| *byte == 0));
    assert_eq!(checksums(replica.clone(), 0, 12 << 10).err(), Some(StoreError::OutOfRange));
    assert_eq!(checksums(replica, 4, 16 << 10).err(), Some(StoreError::OutOfRange));
}

#[test]
fn a_checksum_is_both_crcs_of_the_block() {
    // The check values of CRC-64/NVME and of CRC-32/ISCSI.
    let sum = Sum::of(b"123456789").0;
    assert_eq!(sum[..8], 0xae8b_1486_0a79_9888_u64.to_le_bytes());
    assert_eq!(sum[8..12], 0xe306_9283_u32.to_le_bytes());
    assert_eq!(sum[12..], [0; 4]);
}
