//! A host without a kernel, for measurements: our host library against any NVMe/TCP controller.
//!
//! - `host load ADDRESS NQN read|write BYTES DEPTH QUEUES SECONDS` keeps DEPTH commands outstanding on each queue and
//!   prints how many were completed and in how many seconds;
//! - `host sit ADDRESS NQN HOSTS` connects as so many hosts, with 1 to 4 I/O queues each, prints `connected`, does
//!   nothing until its input ends, checks that every connection is still there, and prints `alive`.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use afs_fabric::{ControllerOptions, HostController, HostError, HostQueue};
use afs_nvme::{HostId, Nqn};
use afs_reactor::{Local, ReactorConfig, Reactors};

/// Namespace that is read and written, and how many transfers from its beginning.
const NSID: u32 = 1;
const TRANSFERS: u64 = 1024;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let config = ReactorConfig { ring_entries: 0, ..ReactorConfig::default() };
    let reactors = Reactors::start(config).unwrap();
    match words.as_slice() {
        ["load", address, nqn, pattern, bytes, depth, queues, seconds] => {
            let target = (address.parse().unwrap(), Nqn::new(nqn).unwrap());
            let load = Load {
                writes: *pattern == "write",
                bytes: bytes.parse().unwrap(),
                depth: depth.parse().unwrap(),
                queues: queues.parse().unwrap(),
                time: Duration::from_secs_f64(seconds.parse().unwrap()),
            };
            let run = move |local| measure(local, target, load);
            let (count, took) = reactors.handle(0).run(run).unwrap().unwrap();
            println!("{count} {}", took.as_secs_f64());
        }
        ["sit", address, nqn, hosts] => {
            let target = (address.parse().unwrap(), Nqn::new(nqn).unwrap());
            let hosts = hosts.parse().unwrap();
            reactors.handle(0).run(move |local| sit(local, target, hosts)).unwrap().unwrap();
        }
        _ => eprintln!("usage: host load|sit ADDRESS NQN …; see the beginning of this file"),
    }
}

type Target = (SocketAddr, Nqn);

struct Load {
    writes: bool,
    bytes: usize,
    depth: u16,
    queues: u16,
    time: Duration,
}

fn options(nqn: Nqn, host: u16) -> ControllerOptions {
    let name = Nqn::new(&format!("nqn.2026-11.io.afs.lab:host-{host}")).unwrap();
    let mut id = [0; 16];
    id[..2].copy_from_slice(&(host + 1).to_le_bytes());
    ControllerOptions::new(nqn, name, HostId(id))
}

async fn measure(
    local: Local,
    (address, nqn): Target,
    load: Load,
) -> Result<(u64, Duration), HostError> {
    let mut options = options(nqn, 0);
    options.queue.entries = load.depth + 1;
    let controller = HostController::connect(address, &local, options).await?;
    let queues = controller.io_queues(load.queues).await?;
    assert_eq!(queues.len(), usize::from(load.queues), "the controller granted fewer queues");
    let start = Instant::now();
    let mut workers = Vec::new();
    for queue in queues {
        for _ in 0..load.depth {
            let work = work(queue.clone(), load.writes, load.bytes, start + load.time);
            workers.push(local.spawn_local(work));
        }
    }
    let mut count = 0;
    for worker in workers {
        count += worker.await.unwrap()?;
    }
    let took = start.elapsed();
    controller.shutdown().await?;
    Ok((count, took))
}

async fn work(
    queue: HostQueue,
    writes: bool,
    bytes: usize,
    end: Instant,
) -> Result<u64, HostError> {
    let blocks = bytes as u64 / 4096;
    let mut count = 0;
    let mut buffer = queue.local().pool().alloc(bytes).await;
    if writes {
        let data = buffer.freeze();
        while Instant::now() < end {
            queue.write(NSID, count % TRANSFERS * blocks, data.clone()).await?;
            count += 1;
        }
        return Ok(count);
    }
    while Instant::now() < end {
        buffer = queue.read(NSID, count % TRANSFERS * blocks, buffer).await?;
        count += 1;
    }
    Ok(count)
}

async fn sit(local: Local, (address, nqn): Target, hosts: u16) -> Result<(), HostError> {
    let mut connected = Vec::new();
    for host in 0..hosts {
        let controller =
            HostController::connect(address, &local, options(nqn.clone(), host)).await?;
        let queues = controller.io_queues(1 + host % 4).await?;
        connected.push((controller, queues));
    }
    println!("connected");
    let (sender, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Any end of the input will do.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = sender.send(());
    });
    let _ = ended.await;
    for (controller, queues) in connected {
        for queue in queues {
            if let Some(error) = queue.closed() {
                return Err(error);
            }
        }
        controller.shutdown().await?;
    }
    println!("alive");
    Ok(())
}
