//! Measures 4 KiB random reads and writes of a file through one reactor, at depth 1 and 32, to be
//! held against `fio --ioengine=io_uring --direct=1 --rw=randread --bs=4k --iodepth=32` on the
//! same file.
//!
//! Usage: `disk_bench FILE [MEGABYTES [SECONDS]]`. A file that is not there is created and filled.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use afs_reactor::{DiskFile, DiskOptions, Local, ReactorConfig, ReactorHandle, Reactors, RingDisk};

type Failure = Box<dyn std::error::Error>;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Read,
    Write,
    WriteDurable,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().ok_or("usage: disk_bench FILE [MB [SECONDS]]")?);
    let megabytes: u64 = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let options = DiskOptions { create_size: Some(megabytes << 20), ..DiskOptions::default() };
    let file = DiskFile::open(&path, &options)?;
    if file.was_created() {
        file.preallocate_zeroed(|_, _| {})?;
    }
    println!("{file:?}, direct: {}, durable by {:?}", file.is_direct(), file.durability());
    let reactors = Reactors::start(ReactorConfig::default())?;
    println!("{:>14} {:>5} {:>9} {:>12} {:>12}", "", "depth", "IOPS", "enters/IO", "waits/IO");
    for (name, kind) in
        [("read", Kind::Read), ("write", Kind::Write), ("write durable", Kind::WriteDurable)]
    {
        for depth in [1, 32] {
            let duration = Duration::from_secs(seconds);
            measure(&reactors.handle(0), &file, (name, kind), depth, duration)?;
        }
    }
    Ok(())
}

fn measure(
    reactor: &ReactorHandle,
    file: &DiskFile,
    (name, kind): (&str, Kind),
    depth: u64,
    duration: Duration,
) -> Result<(), Failure> {
    let before = reactor.stats();
    let file = file.clone();
    let started = Instant::now();
    let count = reactor.run(move |local| run(local, file, kind, depth, duration))??;
    let (after, elapsed) = (reactor.stats(), started.elapsed());
    let per_operation = |calls: u64| calls as f64 / count as f64;
    println!(
        "{name:>14} {depth:>5} {:>9.0} {:>12.2} {:>12.2}",
        count as f64 / elapsed.as_secs_f64(),
        per_operation(after.ring_enters - before.ring_enters),
        per_operation(after.rounds - before.rounds),
    );
    Ok(())
}

async fn run(
    local: Local,
    file: DiskFile,
    kind: Kind,
    depth: u64,
    duration: Duration,
) -> Result<u64, String> {
    let disk = RingDisk::new(&local, &file).map_err(|error| error.to_string())?;
    let count = Rc::new(Cell::new(0));
    let end = Instant::now() + duration;
    let tasks: Vec<_> = (0..depth)
        .map(|seed| local.spawn_local(worker(disk.clone(), kind, seed, end, count.clone())))
        .collect();
    for task in tasks {
        task.await.map_err(|error| error.to_string())??;
    }
    Ok(count.get())
}

async fn worker(
    disk: RingDisk,
    kind: Kind,
    seed: u64,
    end: Instant,
    count: Rc<Cell<u64>>,
) -> Result<(), String> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut buffer = disk.pool().alloc(4096).await;
    buffer.zero();
    while Instant::now() < end {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let offset = state % (disk.size() / 4096) * 4096;
        let result = if kind == Kind::Read {
            let (back, result) = disk.read(offset, buffer).await;
            buffer = back;
            result
        } else {
            let data = buffer.freeze();
            let result = match kind {
                Kind::WriteDurable => disk.write_durable(offset, data.clone()).await,
                _ => disk.write(offset, data.clone()).await,
            };
            buffer = data.try_into_mut().map_err(|_| "the buffer is still in use")?;
            result
        };
        result.map_err(|error| error.to_string())?;
        count.set(count.get() + 1);
    }
    Ok(())
}
