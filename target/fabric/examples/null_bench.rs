//! What the fabric itself costs: one reactor serves a service that keeps nothing, another one is the host.
//! Prints I/O per second and the target's system calls per I/O, by queue depth and number of queues.
//!
//! `cargo run --release -p afs-fabric --example null_bench [SECONDS]`
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use afs_fabric::{
    CloseReason, Completion, HostError, HostOptions, HostQueue, Limits, Queue, QueueParameters,
    Request, Service, listen_tcp,
};
use afs_nvme::command::{Connect, FabricsCommand, IoCommand};
use afs_nvme::{ControllerId, HostId, Nqn, Status};
use afs_reactor::{Local, ReactorConfig, Reactors};

/// Answers every read with a buffer as it is, and takes every write.
struct Null(Queue);

impl Service for Null {
    async fn call(self: Rc<Self>, mut request: Request) -> Completion {
        if let Ok(FabricsCommand::Connect(Connect { qid, sqsize, .. })) =
            FabricsCommand::parse(request.sqe())
        {
            let parameters = QueueParameters { qid, sqsize, flow_control: false, admin: false };
            self.0.set_connected(parameters);
            return Completion::success();
        }
        match IoCommand::parse(request.sqe()) {
            Ok(IoCommand::Read(_)) => {
                let buffer = request.pool().alloc(request.data_len() as usize).await;
                Completion::with_data(buffer.freeze())
            }
            Ok(IoCommand::Write(_)) => match request.receive().await {
                Ok(_) => Completion::success(),
                Err(error) => Completion::error(error.status()),
            },
            _ => Completion::error(Status::INVALID_OPCODE.dnr()),
        }
    }

    fn closed(&self, _: &CloseReason) {}
}

#[derive(Clone, Copy, PartialEq)]
enum Pattern {
    Read,
    Write,
}

struct Run {
    pattern: Pattern,
    bytes: usize,
    depth: u16,
    queues: u16,
    time: Duration,
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(1.0, |text| text.parse().unwrap());
    let config = ReactorConfig { ring_entries: 0, ..ReactorConfig::default() };
    let (targets, hosts) =
        (Reactors::start(config.clone()).unwrap(), Reactors::start(config).unwrap());
    let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), 128).unwrap();
    let address = listener.local_address();
    let target = targets.handle(0);
    let serving = target.clone();
    target.spawn(move |_| async move {
        let make = |queue: &Queue, _: &Local| Rc::new(Null(queue.clone()));
        listener.serve(vec![serving], Limits::default(), make).await.unwrap();
    });
    println!(
        "{:>6} {:>8} {:>6} {:>7} {:>10} {:>9} {:>12}",
        "", "bytes", "depth", "queues", "IOPS", "us/IO", "syscalls/IO"
    );
    for (pattern, bytes) in [
        (Pattern::Read, 4096),
        (Pattern::Write, 4096),
        (Pattern::Read, 131_072),
        (Pattern::Write, 131_072),
    ] {
        for (depth, queues) in [(1, 1), (32, 1), (128, 1), (32, 4)] {
            let run = Run { pattern, bytes, depth, queues, time: Duration::from_secs_f64(seconds) };
            let before = target.stats();
            let (count, time) =
                hosts.handle(0).run(move |local| measure(local, address, run)).unwrap().unwrap();
            let after = target.stats();
            let calls = after.syscalls() - before.syscalls();
            println!(
                "{:>6} {bytes:>8} {depth:>6} {queues:>7} {:>10.0} {:>9.2} {:>12.3}  (sockets {:.3})",
                if pattern == Pattern::Read { "read" } else { "write" },
                count as f64 / time.as_secs_f64(),
                time.as_secs_f64() * 1e6 / count as f64,
                calls as f64 / count as f64,
                (after.socket_calls - before.socket_calls) as f64 / count as f64,
            );
        }
    }
}

async fn measure(
    local: Local,
    address: SocketAddr,
    run: Run,
) -> Result<(u64, Duration), HostError> {
    let end = Instant::now() + run.time;
    let mut workers = Vec::new();
    for qid in 1..=run.queues {
        let options = HostOptions { entries: run.depth + 1, ..HostOptions::default() };
        let queue = HostQueue::connect_tcp(address, &local, options).await?;
        let name = Nqn::new("nqn.2024-01.example:null").unwrap();
        queue
            .connect(&afs_fabric::ConnectRequest {
                qid,
                kato_ms: 0,
                host_id: HostId([1; 16]),
                host_nqn: name.clone(),
                subsystem: name,
                controller: ControllerId(1),
            })
            .await?;
        for _ in 0..run.depth {
            workers.push(local.spawn_local(work(queue.clone(), run.pattern, run.bytes, end)));
        }
    }
    let start = Instant::now();
    let mut count = 0;
    for worker in workers {
        count += worker.await.unwrap()?;
    }
    Ok((count, start.elapsed()))
}

async fn work(
    queue: HostQueue,
    pattern: Pattern,
    bytes: usize,
    end: Instant,
) -> Result<u64, HostError> {
    let mut count = 0;
    let mut buffer = queue.local().pool().alloc(bytes).await;
    if pattern == Pattern::Write {
        let data = buffer.freeze();
        while Instant::now() < end {
            queue.write(1, count % 1024, data.clone()).await?;
            count += 1;
        }
        return Ok(count);
    }
    while Instant::now() < end {
        buffer = queue.read(1, count % 1024, buffer).await?;
        count += 1;
    }
    Ok(count)
}
