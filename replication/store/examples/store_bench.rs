//! Measures the store on a file over the ring disk, with no fabric, on one reactor; and how long a
//! 1 TiB disk takes to open.
//!
//! `cargo run --release -p afs-store --example store_bench -- FILE [SECONDS]` (the file is created,
//! 1 GiB, and removed) `cargo run --release -p afs-store --example store_bench -- --open FILE` (a
//! sparse file; about 400 MiB are written)
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use afs_env::{OsRandom, Random};
use afs_reactor::{DiskFile, DiskOptions, Local, ReactorConfig, Reactors, RingDisk};
use afs_store::{FormatOptions, OpenOptions, Replica, ReplicaId, Store};
use uuid::Uuid;

const FILE_BYTES: u64 = 1 << 30;
const BLOCKS: u64 = 192 << 10;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Read,
    Overwrite,
    FirstWrite,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().expect("usage: store_bench FILE [SECONDS] | --open FILE");
    let config = ReactorConfig { buffer_bytes: 64 << 20, ..ReactorConfig::default() };
    let reactors = Reactors::start(config).unwrap();
    let home = reactors.handle(0);
    if first == "--open" {
        let path = arguments.next().expect("a file");
        home.run(move |local| open_bench(local, path)).unwrap();
    } else {
        let seconds = arguments.next().map_or(3, |n| n.parse().expect("seconds"));
        home.run(move |local| io_bench(local, first, Duration::from_secs(seconds))).unwrap();
    }
    reactors.shutdown();
}

async fn io_bench(local: Local, path: String, length: Duration) {
    let options = DiskOptions { create_size: Some(FILE_BYTES), ..DiskOptions::default() };
    let file = DiskFile::open(&path, &options).unwrap();
    file.preallocate_zeroed(|_, _| {}).unwrap();
    let disk = RingDisk::new(&local, &file).unwrap();
    println!(
        "{path}: direct {}, flush needed {}, durability {:?}, atomic unit {}",
        file.is_direct(),
        file.needs_flush(),
        file.durability(),
        disk.block_size()
    );
    let format = FormatOptions {
        force: true,
        ..FormatOptions::new(Uuid::from_u128(1), OsRandom.next_u64())
    };
    Store::format(&disk, &format).await.unwrap();
    for whole in [true, false] {
        let options = OpenOptions { assume_whole_blocks: whole, ..OpenOptions::default() };
        let store = Store::open(disk.clone(), options).await.unwrap();
        let background = local.spawn_local(store.background());
        let id = ReplicaId::from(Uuid::from_u128(if whole { 1 } else { 2 }));
        store.create_replica(id, BLOCKS).await.unwrap();
        let replica = store.replica(id).unwrap();
        for kind in [Kind::FirstWrite, Kind::Read, Kind::Overwrite] {
            if kind != Kind::FirstWrite {
                fill(&local, &replica).await;
            }
            for depth in [1, 32] {
                if kind == Kind::FirstWrite {
                    replica.deallocate(0, BLOCKS).await.unwrap();
                }
                let (rate, micros) = measure(&local, &replica, kind, depth, length).await;
                println!("{kind:?} depth {depth:2}: {rate:9.0} IOPS, {micros:7.1} us each");
            }
        }
        println!("{:?}", store.stats());
        store.delete_replica(id).await.unwrap();
        store.close().await.unwrap();
        background.await.unwrap();
        if disk.block_size() == 4096 {
            break;
        }
        println!("-- the same, with overwrites through the journal:");
    }
    std::fs::remove_file(path).unwrap();
}

async fn fill(local: &Local, replica: &Replica<RingDisk>) {
    for lba in (0..BLOCKS).step_by(64) {
        let buffer = local.pool().alloc(64 * 4096).await;
        replica.write(lba, buffer.freeze()).await.unwrap();
    }
}

async fn measure(
    local: &Local,
    replica: &Replica<RingDisk>,
    kind: Kind,
    depth: u64,
    length: Duration,
) -> (f64, f64) {
    let begin = Instant::now();
    let done = Rc::new(Cell::new(0_u64));
    let tasks: Vec<_> = (0..depth)
        .map(|worker| {
            let (local, replica, done) = (local.clone(), replica.clone(), done.clone());
            let task = local.clone();
            task.spawn_local(async move {
                let mut next = worker;
                let mut state = OsRandom.next_u64() | 1;
                while begin.elapsed() < length && next < BLOCKS {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let buffer = local.pool().alloc(4096).await;
                    match kind {
                        Kind::Read => {
                            replica.read(state % BLOCKS, buffer).await.1.unwrap();
                        }
                        Kind::Overwrite => {
                            replica.write(state % BLOCKS, buffer.freeze()).await.unwrap();
                        }
                        Kind::FirstWrite => {
                            replica.write(next, buffer.freeze()).await.unwrap();
                            next += depth;
                        }
                    }
                    done.set(done.get() + 1);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let (count, seconds) = (done.get() as f64, begin.elapsed().as_secs_f64());
    (count / seconds, seconds * 1e6 * depth as f64 / count)
}

/// Formats a sparse file of 1 TiB, writes a whole chunk table by closing it, cuts off without a
/// close after that, and opens it again.
async fn open_bench(local: Local, path: String) {
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    drop(file);
    let file = DiskFile::open(&path, &DiskOptions::default()).unwrap();
    let disk = RingDisk::new(&local, &file).unwrap();
    let format = FormatOptions {
        journal_bytes: Some(64 << 20),
        force: true,
        ..FormatOptions::new(Uuid::from_u128(1), OsRandom.next_u64())
    };
    Store::format(&disk, &format).await.unwrap();
    let store = Store::open(disk.clone(), OpenOptions::default()).await.unwrap();
    let background = local.spawn_local(store.background());
    let id = ReplicaId::from(Uuid::from_u128(1));
    let chunks = store.stats().chunks_total;
    store.create_replica(id, chunks * 64).await.unwrap();
    let replica = store.replica(id).unwrap();
    for chunk in 0..4096 {
        let buffer = local.pool().alloc(4096).await;
        replica.write(chunk * 64, buffer.freeze()).await.unwrap();
    }
    let begin = Instant::now();
    store.close().await.unwrap();
    background.await.unwrap();
    println!("{chunks} chunks; a whole checkpoint took {:?}", begin.elapsed());
    drop((store, replica));
    for (name, close) in [("clean", false), ("after a crash", true)] {
        let before = resident();
        let begin = Instant::now();
        let store = Store::open(disk.clone(), OpenOptions::default()).await.unwrap();
        let took = begin.elapsed();
        println!(
            "open, {name}: {took:?}, resident memory grew by {} MiB",
            (resident() - before) >> 20
        );
        let background = local.spawn_local(store.background());
        if close {
            store.close().await.unwrap();
            background.await.unwrap();
        } else {
            store.create_replica(Uuid::from_u128(2).into(), 1).await.unwrap();
            background.abort();
            drop(background.await);
        }
    }
    std::fs::remove_file(path).unwrap();
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
