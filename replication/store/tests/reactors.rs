//! One open disk on two real reactors, over a real file: the same chunks written, trimmed and read
//! from both at once.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::rc::Rc;
use std::time::Duration;

use afs_env::OsRandom;
use afs_env::Random;
use afs_reactor::{DiskFile, DiskOptions, Local, ReactorConfig, Reactors, RingDisk};
use afs_store::{FormatOptions, OpenOptions, Replica, ReplicaId, Store, StoreError, StoreShared};
use uuid::Uuid;

const BLOCKS: u64 = 1024;
const TASKS: u64 = 8;
const ROUNDS: u64 = 150;

fn reactors() -> Reactors {
    let poll = Duration::from_micros(20);
    let config = ReactorConfig { threads: 2, buffer_bytes: 32 << 20, poll, ..Default::default() };
    Reactors::start(config).unwrap()
}

fn id() -> ReplicaId {
    Uuid::from_u128(5).into()
}

async fn open(local: &Local, file: &DiskFile) -> Store<RingDisk> {
    let disk = RingDisk::new(local, file).unwrap();
    let store = Store::open(disk, OpenOptions::default()).await.unwrap();
    local.spawn_local(store.background());
    store
}

/// Writes, trims and reads the blocks with `lba % (2 * TASKS) == lane`; returns what they hold at
/// the end.
async fn lane(replica: Replica<RingDisk>, local: Local, lane: u64) -> Vec<(u64, u8)> {
    let mut held = vec![0_u8; BLOCKS as usize];
    for round in 0..ROUNDS {
        let draw = OsRandom.next_u64();
        let lba = (draw >> 8) % (BLOCKS / TASKS / 2) * TASKS * 2 + lane;
        match draw % 8 {
            0..4 => {
                let value = (round + 1) as u8;
                let mut buffer = local.pool().alloc(4096).await;
                buffer.fill(value);
                replica.write(lba, buffer.freeze()).await.unwrap();
                held[lba as usize] = value;
            }
            4 => {
                replica.deallocate(lba, 1).await.unwrap();
                held[lba as usize] = 0;
            }
            5 => {
                replica.write_zeroes(lba, 1, draw & 256 != 0).await.unwrap();
                held[lba as usize] = 0;
            }
            _ => {}
        }
        let (buffer, result) = replica.read(lba, local.pool().alloc(4096).await).await;
        result.unwrap();
        let expected = held[lba as usize];
        assert!(buffer.iter().all(|byte| *byte == expected), "lane {lane}, lba {lba}");
    }
    (lane..BLOCKS).step_by(2 * TASKS as usize).map(|lba| (lba, held[lba as usize])).collect()
}

async fn lanes(local: Local, shared: StoreShared, file: DiskFile, first: u64) -> Vec<(u64, u8)> {
    let disk = RingDisk::new(&local, &file).unwrap();
    let store = Store::attach(shared, disk);
    let replica = store.replica(id()).unwrap();
    let tasks: Vec<_> = (first..first + TASKS)
        .map(|number| local.spawn_local(lane(replica.clone(), local.clone(), number)))
        .collect();
    let mut held = Vec::new();
    for task in tasks {
        held.extend(task.await.unwrap());
    }
    store.check_invariants().unwrap();
    held
}

#[test]
fn two_reactors_share_one_disk_and_all_that_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let options = DiskOptions { create_size: Some(64 << 20), ..Default::default() };
    let file = DiskFile::open(&path, &options).unwrap();
    let reactors = reactors();
    let (home, other) = (reactors.handle(0), reactors.handle(1));

    let at_home = file.clone();
    let shared = home
        .run(move |local| async move {
            let disk = RingDisk::new(&local, &at_home).unwrap();
            let format = FormatOptions {
                journal_bytes: Some(256 << 10),
                ..FormatOptions::new(Uuid::from_u128(1), OsRandom.next_u64())
            };
            Store::format(&disk, &format).await.unwrap();
            let store = open(&local, &at_home).await;
            store.create_replica(id(), BLOCKS).await.unwrap();
            store.shared()
        })
        .unwrap();

    let (there, shared_there) = (file.clone(), shared.clone());
    let away = std::thread::spawn(move || {
        other.run(move |local| lanes(local, shared_there, there, TASKS)).unwrap()
    });
    let (here, shared_here) = (file.clone(), shared.clone());
    let mut held = home.run(move |local| lanes(local, shared_here, here, 0)).unwrap();
    held.extend(away.join().unwrap());
    assert_eq!(held.len(), BLOCKS as usize);
    assert!(!shared.stats().stopped, "{:?}", shared.stats());

    let again = file.clone();
    home.run(move |local| async move {
        let disk = RingDisk::new(&local, &again).unwrap();
        let closing = Store::attach(shared, disk);
        closing.close().await.unwrap();
        let store = Rc::new(open(&local, &again).await);
        assert!(store.was_clean());
        let replica = store.replica(id()).unwrap();
        for (lba, value) in held {
            let (buffer, result) = replica.read(lba, local.pool().alloc(4096).await).await;
            assert_eq!(result, Ok::<(), StoreError>(()));
            assert!(buffer.iter().all(|byte| *byte == value), "lba {lba}");
        }
        store.close().await.unwrap();
    })
    .unwrap();
    reactors.shutdown();
}
