//! Measures how long a disk takes to open after a crash when every chunk of it has an owner, and what that takes in
//! memory. The chunk table is the store's own work; only data is left out, so a sparse file is enough.
//!
//! - `start_bench fill FILE BYTES`: a store on a sparse file of BYTES, one volume that has every chunk, a journal
//!   almost half full (then a checkpoint would begin), and an end as abrupt as a crash. Prints chunks and those owned.
//! - `start_bench open FILE`: opens it. Prints seconds, the growth of resident memory in bytes, the most that it had
//!   grown meanwhile, bytes of table and of journal read, and chunks owned.
#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use afs_env::{Disk, OsRandom, Random};
use afs_reactor::{
    Buffer, BufferMut, BufferPool, DiskError, DiskFile, DiskOptions, Local, OpenError,
    ReactorConfig, Reactors, RingDisk,
};
use afs_store::{FormatOptions, OpenOptions, Phase, Replica, ReplicaId, Store, StoreStats};
use uuid::Uuid;

const BLOCK: usize = 4096;
const WORKERS: u64 = 512;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let reactors = Reactors::start(ReactorConfig::default()).unwrap();
    let home = reactors.handle(0);
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["fill", file, bytes] => {
            let (file, bytes) = ((*file).to_owned(), bytes.parse().unwrap());
            home.run(move |local| fill(local, file, bytes)).unwrap();
            // A crash: nothing is closed.
            std::process::exit(0);
        }
        ["open", file] => {
            let file = (*file).to_owned();
            home.run(move |local| open(local, file)).unwrap();
        }
        _ => eprintln!("usage: start_bench fill FILE BYTES | open FILE"),
    }
}

async fn fill(local: Local, path: String, bytes: u64) {
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    let disk = NoData::new(ring_disk(&local, &path));
    let format = FormatOptions::new(Uuid::from_u128(1), OsRandom.next_u64());
    Store::format(&disk, &FormatOptions { force: true, ..format }).await.unwrap();
    let store = Store::open(disk.clone(), OpenOptions::default()).await.unwrap();
    disk.data_begins.set(bytes - store.stats().bytes_total);
    // It goes down with the process.
    drop(local.spawn_local(store.background()));
    let id = ReplicaId::from(Uuid::from_u128(1));
    let chunks = store.stats().chunks_total;
    store.create_replica(id, chunks * 64).await.unwrap();
    let volume = Rc::new(store.replica(id).unwrap());
    // Zeroes are what the sparse file reads as.
    let mut zeroes = local.pool().alloc(BLOCK).await;
    zeroes.zero();
    let zeroes = zeroes.freeze();
    for block in 0..64 {
        write_all(&local, &volume, &zeroes, block, chunks).await;
        if journal_is_used(&store.stats()) {
            break;
        }
    }
    println!("{chunks} {}", chunks - store.stats().chunks_free);
}

/// Writes one block of each chunk.
async fn write_all(
    local: &Local,
    volume: &Rc<Replica<NoData>>,
    zeroes: &Buffer,
    block: u64,
    chunks: u64,
) {
    let workers = (0..WORKERS).map(|first| {
        let (volume, zeroes) = (volume.clone(), zeroes.clone());
        local.spawn_local(async move {
            let mut chunk = first;
            while chunk < chunks {
                volume.write(chunk * 64 + block, zeroes.clone()).await.unwrap();
                chunk += WORKERS;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

fn journal_is_used(stats: &StoreStats) -> bool {
    stats.journal_used * 5 >= stats.journal_size * 2
}

async fn open(local: Local, path: String) {
    let disk = ring_disk(&local, &path);
    let read = Rc::new(RefCell::new([0_u64; 2]));
    let seen = read.clone();
    let options = OpenOptions {
        progress: Some(Box::new(move |progress| {
            let phase = usize::from(progress.phase != Phase::Table);
            let mut seen = seen.borrow_mut();
            seen[phase] = seen[phase].max(progress.done);
        })),
        ..OpenOptions::default()
    };
    let before = memory("VmRSS:");
    let begin = Instant::now();
    let store = Store::open(disk, options).await.unwrap();
    let took = begin.elapsed().as_secs_f64();
    let (now, most) = (memory("VmRSS:") - before, memory("VmHWM:") - before);
    let stats = store.stats();
    let [table, journal] = *read.borrow();
    println!("{took} {now} {most} {table} {journal} {}", stats.chunks_total - stats.chunks_free);
}

/// The kernel lets go of a dead process's ring, and with it of the file, a moment after the process is gone.
fn ring_disk(local: &Local, path: &str) -> RingDisk {
    let deadline = Instant::now() + Duration::from_secs(10);
    let file = loop {
        match DiskFile::open(path, &DiskOptions::default()) {
            Err(OpenError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => break result.unwrap(),
        }
    };
    RingDisk::new(local, &file).unwrap()
}

/// A line of this process's status, in bytes.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let rest = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    rest.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// A disk that takes data but does not keep it.
#[derive(Clone)]
struct NoData {
    disk: RingDisk,
    data_begins: Rc<Cell<u64>>,
}

impl NoData {
    fn new(disk: RingDisk) -> NoData {
        NoData { disk, data_begins: Rc::new(Cell::new(u64::MAX)) }
    }
}

impl Disk for NoData {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn block_size(&self) -> u32 {
        self.disk.block_size()
    }

    fn pool(&self) -> &BufferPool {
        self.disk.pool()
    }

    async fn read(&self, offset: u64, buffer: BufferMut) -> (BufferMut, Result<(), DiskError>) {
        self.disk.read(offset, buffer).await
    }

    async fn write(&self, offset: u64, data: Buffer) -> Result<(), DiskError> {
        if offset >= self.data_begins.get() {
            return Ok(());
        }
        self.disk.write(offset, data).await
    }

    async fn write_durable(&self, offset: u64, data: Buffer) -> Result<(), DiskError> {
        if offset >= self.data_begins.get() {
            return Ok(());
        }
        self.disk.write_durable(offset, data).await
    }

    async fn sync(&self) -> Result<(), DiskError> {
        self.disk.sync().await
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.disk.discard(offset, len).await
    }

    async fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.disk.write_zeroes(offset, len).await
    }
}
