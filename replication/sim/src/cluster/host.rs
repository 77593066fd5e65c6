//! Hosts: they read, write, zero and trim through any node, try again on another path as Linux with
//! native multipath does, and write down what they saw.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use afs_env::{Buffer, Clock};
use futures_util::future::{Either, select};

use super::node::{IoAnswer, IoRequest, Operation, TICK_WAIT};
use super::{Cluster, node_of};
use crate::executor::Process;
use crate::history::{OperationId, TORN};
use crate::model::{fill, tag_of};
use crate::net::Address;

/// What a host is like; drawn once.
#[derive(Clone, Copy, Debug)]
pub struct HostSetup {
    /// Operations at a time.
    pub lanes: usize,
    /// The usual pause between two operations of a lane.
    pub pause: Duration,
    /// A path without an answer for this long is closed, but not before what was forwarded on it is too old: nobody can tell the
    /// nodes in time that a host gave up a path that is silent, so the rules ask this of hosts. Stock ones wait for seconds.
    pub path_timeout: Duration,
    /// Its application gives up after so long; what it asked for may still be done.
    pub patience: Duration,
    /// Most blocks of one operation.
    pub blocks_max: u64,
    /// Most operations begin in so many blocks, so that they meet.
    pub spread: u64,
    /// Of a hundred operations so many are reads...
    pub reads: usize,
    /// ...and so many writes; the others zero or trim.
    pub writes: usize,
}

struct Inner {
    cluster: Cluster,
    index: usize,
    address: Address,
    setup: HostSetup,
    /// The path that worked last, for each volume.
    good: RefCell<Vec<usize>>,
    under_way: Rc<Cell<usize>>,
}

#[derive(Clone)]
struct Host(Rc<Inner>);

/// For each block of a change, its attempts.
struct Attempts(Vec<Vec<OperationId>>);

impl Attempts {
    fn new(blocks: u64) -> Attempts {
        Attempts((0..blocks).map(|_| Vec::new()).collect())
    }
}

/// Starts a host; `under_way` counts its operations.
pub(super) fn start(
    cluster: &Cluster,
    index: usize,
    setup: HostSetup,
    under_way: &Rc<Cell<usize>>,
) -> Process {
    let process = cluster.sim().process();
    let address = super::host_address(index);
    cluster.net().attach(address, &process);
    under_way.set(0);
    let volumes = cluster.volumes().len();
    let good = (0..volumes).map(|_| cluster.random().below(cluster.machines())).collect();
    let host = Host(Rc::new(Inner {
        cluster: cluster.clone(),
        index,
        address,
        setup,
        good: RefCell::new(good),
        under_way: under_way.clone(),
    }));
    for _ in 0..setup.lanes {
        let host = host.clone();
        process.spawn(async move { host.lane().await });
    }
    process
}

impl Host {
    async fn lane(&self) {
        let cluster = &self.0.cluster;
        let mut burst = 0_usize;
        while !cluster.is_calm() {
            if burst == 0 {
                cluster.sleep_below(self.0.setup.pause * 2).await;
                if cluster.random().chance(5) {
                    burst = cluster.random().below(20);
                }
            } else {
                burst -= 1;
            }
            if cluster.is_calm() {
                return;
            }
            self.0.under_way.set(self.0.under_way.get() + 1);
            self.one().await;
            self.0.under_way.set(self.0.under_way.get() - 1);
        }
    }

    /// One operation, from its invocation to its return.
    async fn one(&self) {
        let cluster = &self.0.cluster;
        let random = cluster.random();
        let number = random.below(cluster.volumes().len());
        let Some(size) = cluster.volumes().get(number).map(|volume| volume.blocks) else { return };
        let spread = if random.chance(70) { size.min(self.0.setup.spread) } else { size };
        let lba = random.below(usize::try_from(spread).unwrap_or(1)) as u64;
        let most = (size - lba).min(self.0.setup.blocks_max);
        let blocks = 1 + random.below(usize::try_from(most).unwrap_or(1)) as u64;
        let HostSetup { reads, writes, .. } = self.0.setup;
        match random.below(100) {
            draw if draw < reads => self.read(number, lba, blocks).await,
            draw if draw < reads + writes => self.write(number, lba, blocks).await,
            draw => self.clear(number, lba, blocks, draw % 2 == 0).await,
        }
    }

    fn note(&self, line: impl FnOnce() -> String) {
        let moment = self.0.cluster.history().borrow().now();
        self.0.cluster.trace(|| format!("[{moment}] host {} {}", self.0.index, line()));
    }

    fn client(&self) -> u32 {
        u32::try_from(self.0.index).unwrap_or(u32::MAX)
    }

    pub(super) async fn read(&self, number: usize, lba: u64, blocks: u64) {
        let history = self.0.cluster.history();
        let ids: Vec<OperationId> = {
            let mut history = history.borrow_mut();
            (lba..lba + blocks)
                .map(|lba| history.begin_read(self.client(), number as u64, lba))
                .collect()
        };
        self.note(|| format!("reads {number}:{lba}+{blocks}"));
        let Some(Some(data)) = self.perform(number, async || Operation::Read { lba, blocks }).await
        else {
            return;
        };
        let tags = || data.chunks(4096).map(|block| tag_of(block).unwrap_or(TORN));
        self.note(|| format!("has read {number}:{lba} {:?}", tags().collect::<Vec<_>>()));
        let mut history = history.borrow_mut();
        for (id, block) in ids.into_iter().zip(data.chunks(4096)) {
            history.read(id, tag_of(block).unwrap_or(TORN));
        }
    }

    async fn write(&self, number: usize, lba: u64, blocks: u64) {
        self.note(|| format!("writes {number}:{lba}+{blocks}"));
        let mut attempts = Attempts::new(blocks);
        let done = self
            .perform(number, async || {
                let cluster = &self.0.cluster;
                let bytes = usize::try_from(blocks * 4096).unwrap_or(usize::MAX);
                let mut buffer = cluster.pool().alloc(bytes).await;
                let mut history = cluster.history().borrow_mut();
                for ((lba, block), ids) in (lba..).zip(buffer.chunks_mut(4096)).zip(&mut attempts.0)
                {
                    // Each attempt has values of its own, so that one can see which came when.
                    let tag = history.fresh_tag();
                    fill(tag, block);
                    ids.push(history.begin_write(self.client(), number as u64, lba, tag));
                }
                Operation::Write { lba, data: buffer.freeze() }
            })
            .await;
        self.end_change(number, lba, done.is_some(), &attempts);
    }

    async fn clear(&self, number: usize, lba: u64, blocks: u64, deallocate: bool) {
        self.note(|| format!("clears {number}:{lba}+{blocks} deallocate {deallocate}"));
        let mut attempts = Attempts::new(blocks);
        let done = self
            .perform(number, async || {
                let mut history = self.0.cluster.history().borrow_mut();
                for (lba, ids) in (lba..).zip(&mut attempts.0) {
                    ids.push(history.begin_write(self.client(), number as u64, lba, 0));
                }
                Operation::Clear { lba, blocks, deallocate }
            })
            .await;
        self.end_change(number, lba, done.is_some(), &attempts);
    }

    fn end_change(&self, number: usize, lba: u64, done: bool, attempts: &Attempts) {
        self.note(|| format!("{} {number}:{lba}", if done { "has changed" } else { "gave up" }));
        if done {
            let mut history = self.0.cluster.history().borrow_mut();
            attempts.0.iter().for_each(|ids| history.wrote_at_last(ids));
        }
    }

    /// Tries paths until one carries it out. `None` if it failed, or the application gave up.
    async fn perform(
        &self,
        number: usize,
        mut attempt: impl AsyncFnMut() -> Operation,
    ) -> Option<Option<Buffer>> {
        let cluster = &self.0.cluster;
        let clock = cluster.sim().clock().clone();
        let began = clock.now();
        let volume = cluster.volumes().get(number)?.id;
        let mut pause = Duration::from_millis(1);
        loop {
            let path = self.0.good.borrow().get(number).copied().unwrap_or(0);
            let to = Address(node_of(path).0);
            let net = cluster.net();
            let request = IoRequest { volume, operation: attempt().await };
            let answer = {
                let call = std::pin::pin!(net.call_bound(self.0.address, to, "io", request));
                let ghosts_over = cluster.params().ghosts_over() + TICK_WAIT;
                let patience = self.0.setup.path_timeout.max(ghosts_over);
                let deadline = std::pin::pin!(clock.sleep(patience));
                match select(call, deadline).await {
                    Either::Left((answer, _)) => answer.ok(),
                    Either::Right(_) => None,
                }
            };
            match answer {
                Some(IoAnswer::Done(data)) => {
                    cluster.count_operation();
                    return Some(data);
                }
                Some(IoAnswer::Failed(error)) => {
                    cluster.trace(|| format!("host {} failed: {error}", self.0.index));
                    return None;
                }
                Some(IoAnswer::PathError) | None => {}
            }
            let waited = Duration::from_nanos(clock.now() - began);
            if waited > self.0.setup.patience && !cluster.is_calm() {
                return None;
            }
            let next = cluster.random().below(cluster.machines());
            if let Some(good) = self.0.good.borrow_mut().get_mut(number) {
                // Another lane may have found a better one.
                if *good == path {
                    *good = next;
                }
            }
            clock.sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
}

/// Reads every block of every volume once, as one more host.
pub(super) async fn read_all(cluster: &Cluster, setup: HostSetup) {
    let host = Host(Rc::new(Inner {
        cluster: cluster.clone(),
        index: usize::from(u16::MAX),
        address: super::host_address(0),
        setup,
        good: RefCell::new(vec![0; cluster.volumes().len()]),
        under_way: Rc::default(),
    }));
    for (number, volume) in cluster.volumes().iter().enumerate() {
        let mut lba = 0;
        while lba < volume.blocks {
            let blocks = (volume.blocks - lba).min(16);
            host.read(number, lba, blocks).await;
            lba += blocks;
        }
    }
}
