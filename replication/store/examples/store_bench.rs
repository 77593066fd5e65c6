//! Measures the store on a file over the ring disk, with no fabric, on one reactor. Prints bare numbers, for a program
//! that runs it in turns with something else on the same file.
//!
//! - `store_bench prepare FILE BYTES BLOCKS`: a file with a store, and in it a volume, all of it written.
//! - `store_bench read|overwrite FILE DEPTH SECONDS`: random blocks of that volume; I/O per second.
//! - `store_bench first FILE BLOCKS DEPTH SECONDS`: first writes in an empty volume, in random order, and overwrites of
//!   the same blocks in the same order; I/O per second of both.
//!
//! With `--journal` before all that, overwrites go through the journal even on a disk that writes 4 KiB whole.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use afs_env::{OsRandom, Random};
use afs_reactor::{DiskFile, DiskOptions, Local, ReactorConfig, Reactors, RingDisk};
use afs_store::{FormatOptions, OpenOptions, Replica, ReplicaId, Store};
use uuid::Uuid;

const BLOCK: usize = 4096;
/// Odd and no multiple of a small prime: `n * STRIDE % blocks` visits every block once, in no useful order.
const STRIDE: u64 = 2_654_435_761;

type Volume = Rc<Replica<RingDisk>>;

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let whole = words.first().is_none_or(|word| word != "--journal");
    if !whole {
        words.remove(0);
    }
    let config = ReactorConfig { buffer_bytes: 64 << 20, ..ReactorConfig::default() };
    let reactors = Reactors::start(config).unwrap();
    reactors.handle(0).run(move |local| run(local, words, whole)).unwrap();
    reactors.shutdown();
}

async fn run(local: Local, words: Vec<String>, whole: bool) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<u64>().unwrap();
    match words.as_slice() {
        ["prepare", file, bytes, blocks] => {
            prepare(&local, file, number(bytes), number(blocks)).await;
        }
        [kind @ ("read" | "overwrite"), file, depth, seconds] => {
            let store = Open::new(&local, file, whole).await;
            let volume = store.volume(1);
            let load = Load::new(number(depth), number(seconds), *kind == "read");
            let order = Order::random(volume.blocks());
            println!("{:.0}", load.run(&local, &volume, order).await.0);
            store.close().await;
        }
        ["first", file, blocks, depth, seconds] => {
            let store = Open::new(&local, file, whole).await;
            store.store.create_replica(id(2), number(blocks)).await.unwrap();
            let volume = store.volume(2);
            let load = Load::new(number(depth), number(seconds), false);
            let first = load.run(&local, &volume, Order::once(number(blocks))).await;
            let again = load.run(&local, &volume, Order::once(first.1)).await;
            println!("{:.0} {:.0}", first.0, again.0);
            store.store.delete_replica(id(2)).await.unwrap();
            store.close().await;
        }
        _ => eprintln!(
            "usage: store_bench prepare|read|overwrite|first FILE …; see the beginning of this file"
        ),
    }
}

fn id(number: u128) -> ReplicaId {
    ReplicaId::from(Uuid::from_u128(number))
}

async fn prepare(local: &Local, file: &str, bytes: u64, blocks: u64) {
    let options = DiskOptions { create_size: Some(bytes), ..DiskOptions::default() };
    let opened = DiskFile::open(file, &options).unwrap();
    opened.preallocate_zeroed(|_, _| {}).unwrap();
    let disk = RingDisk::new(local, &opened).unwrap();
    let format = FormatOptions {
        force: true,
        ..FormatOptions::new(Uuid::from_u128(1), OsRandom.next_u64())
    };
    Store::format(&disk, &format).await.unwrap();
    let store = Open::on(local, disk.clone(), true).await;
    store.store.create_replica(id(1), blocks).await.unwrap();
    let volume = store.volume(1);
    for lba in (0..blocks).step_by(64) {
        let count = usize::try_from((blocks - lba).min(64)).unwrap();
        let buffer = local.pool().alloc(count * BLOCK).await;
        volume.write(lba, buffer.freeze()).await.unwrap();
    }
    println!(
        "direct {}, durable by {:?}, writes {} bytes whole",
        opened.is_direct(),
        opened.durability(),
        disk.block_size()
    );
    store.close().await;
}

/// An open store and its background task.
struct Open {
    store: Store<RingDisk>,
    background: tokio::task::JoinHandle<()>,
}

impl Open {
    async fn new(local: &Local, file: &str, assume_whole_blocks: bool) -> Open {
        let file = DiskFile::open(file, &DiskOptions::default()).unwrap();
        Open::on(local, RingDisk::new(local, &file).unwrap(), assume_whole_blocks).await
    }

    async fn on(local: &Local, disk: RingDisk, assume_whole_blocks: bool) -> Open {
        let options = OpenOptions { assume_whole_blocks, ..OpenOptions::default() };
        let store = Store::open(disk, options).await.unwrap();
        let background = local.spawn_local(store.background());
        Open { store, background }
    }

    fn volume(&self, number: u128) -> Volume {
        Rc::new(self.store.replica(id(number)).unwrap())
    }

    async fn close(self) {
        self.store.close().await.unwrap();
        self.background.await.unwrap();
    }
}

/// Which blocks, in which order.
#[derive(Clone)]
struct Order {
    blocks: u64,
    /// How many blocks at most, and the next one's turn; `None` for any number of random blocks.
    turn: Option<Rc<Cell<u64>>>,
}

impl Order {
    fn random(blocks: u64) -> Order {
        Order { blocks, turn: None }
    }

    /// Each of the first `blocks` turns once.
    fn once(blocks: u64) -> Order {
        Order { blocks, turn: Some(Rc::default()) }
    }

    fn next(&self, state: &mut u64, volume_blocks: u64) -> Option<u64> {
        let Some(turn) = &self.turn else {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            return Some(*state % self.blocks);
        };
        let mine = turn.get();
        turn.set(mine + 1);
        (mine < self.blocks).then_some(mine * STRIDE % volume_blocks)
    }
}

#[derive(Clone, Copy)]
struct Load {
    depth: u64,
    time: Duration,
    reads: bool,
}

impl Load {
    fn new(depth: u64, seconds: u64, reads: bool) -> Load {
        Load { depth, time: Duration::from_secs(seconds), reads }
    }

    /// I/O per second, and how many.
    async fn run(self, local: &Local, volume: &Volume, order: Order) -> (f64, u64) {
        let begin = Instant::now();
        let tasks: Vec<_> = (0..self.depth)
            .map(|_| {
                let worker = self.worker(local.clone(), volume.clone(), order.clone(), begin);
                local.spawn_local(worker)
            })
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.unwrap();
        }
        (count as f64 / begin.elapsed().as_secs_f64(), count)
    }

    async fn worker(self, local: Local, volume: Volume, order: Order, begin: Instant) -> u64 {
        let mut state = OsRandom.next_u64() | 1;
        let mut count = 0;
        while begin.elapsed() < self.time {
            let Some(lba) = order.next(&mut state, volume.blocks()) else { break };
            let buffer = local.pool().alloc(BLOCK).await;
            if self.reads {
                volume.read(lba, buffer).await.1.unwrap();
            } else {
                volume.write(lba, buffer.freeze()).await.unwrap();
            }
            count += 1;
        }
        count
    }
}
