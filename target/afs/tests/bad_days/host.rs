//! A host with a path to every node, which does what native multipath does: a write that lost its path is sent again on another
//! one, until one path says that it is done.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use afs_fabric::{ControllerOptions, HostController, HostData, HostError, HostQueue};
use afs_nvme::command::IoCommand;
use afs_nvme::{HostId, Nqn};
use afs_reactor::{Local, ReactorConfig, Reactors};

use crate::common::SOON;
use crate::rig::{Cluster, NQN};

/// After how long without an answer a path is given up.
const PATIENCE: Duration = Duration::from_secs(3);
/// Blocks of one command, at most.
const BLOCKS_MAX: usize = 128;
/// Bytes of a block.
pub const BLOCK: usize = 4096;

/// What became of a command.
pub type Outcome<T> = Result<T, String>;

/// A connection to one node.
pub struct Path {
    _controller: HostController,
    pub queue: HostQueue,
}

impl Path {
    pub async fn connect(portal: SocketAddr, local: &Local) -> Result<Path, HostError> {
        let host = Nqn::new("nqn.2026-11.test:host").unwrap();
        let mut options = ControllerOptions::new(Nqn::new(NQN).unwrap(), host, HostId([7; 16]));
        options.queue.connect_timeout = PATIENCE;
        let controller = HostController::connect(portal, local, options).await?;
        let queue = controller.io_queues(1).await?.pop().unwrap();
        Ok(Path { _controller: controller, queue })
    }

    pub async fn write(&self, lba: u64, blocks: usize, fill: u8) -> Outcome<()> {
        let mut data = self.queue.local().pool().alloc(blocks * BLOCK).await;
        data.fill(fill);
        self.queue.write(1, lba, data.freeze()).await.map_err(|error| error.to_string())
    }

    pub async fn read(&self, lba: u64, blocks: usize) -> Outcome<Vec<u8>> {
        let buffer = self.queue.local().pool().alloc(blocks * BLOCK).await;
        let read = self.queue.read(1, lba, buffer).await.map_err(|error| error.to_string())?;
        Ok(read.to_vec())
    }
}

/// See the module.
pub struct Host {
    reactors: Arc<Reactors>,
    portals: Vec<SocketAddr>,
}

impl Host {
    pub fn new(cluster: &Cluster) -> Host {
        let reactors = Reactors::start(ReactorConfig::default()).unwrap();
        let portals = cluster.nodes.iter().map(|node| node.place.portal).collect();
        Host { reactors: Arc::new(reactors), portals }
    }

    /// Runs something on the host's reactor.
    pub fn run<T: Send + 'static, F: Future<Output = T>>(
        &self,
        what: impl FnOnce(Local) -> F + Send + 'static,
    ) -> T {
        self.begin(what).recv_timeout(SOON).unwrap()
    }

    /// The same, to be waited for later.
    pub fn begin<T: Send + 'static, F: Future<Output = T>>(
        &self,
        what: impl FnOnce(Local) -> F + Send + 'static,
    ) -> mpsc::Receiver<T> {
        let (sender, receiver) = mpsc::channel();
        self.reactors.handle(0).spawn(move |local| async move {
            // Who asked may be gone.
            let _ = sender.send(what(local).await);
        });
        receiver
    }

    /// Writes through one node.
    pub fn write(&self, node: usize, lba: u64, blocks: usize, fill: u8) -> Outcome<()> {
        let portal = self.portals[node];
        self.run(move |local| async move {
            let path = Path::connect(portal, &local).await.map_err(|error| error.to_string())?;
            path.write(lba, blocks, fill).await
        })
    }

    /// Gives blocks back through one node.
    pub fn trim(&self, node: usize, lba: u64, blocks: u32) -> Outcome<()> {
        let portal = self.portals[node];
        self.run(move |local| async move {
            let path = Path::connect(portal, &local).await.map_err(|error| error.to_string())?;
            let command = IoCommand::WriteZeroes { lba, blocks, deallocate: true, fua: false };
            let done = path.queue.command(command.to_sqe(1), HostData::None).await;
            done.map(drop).map_err(|error| error.to_string())
        })
    }

    /// Begins to read a block through one node.
    pub fn begin_read(&self, node: usize, lba: u64) -> mpsc::Receiver<Outcome<Vec<u8>>> {
        let portal = self.portals[node];
        self.begin(move |local| async move {
            let path = Path::connect(portal, &local).await.map_err(|error| error.to_string())?;
            path.read(lba, 1).await
        })
    }

    /// Reads through one node; each block must be of one byte.
    pub fn read(&self, node: usize, lba: u64, blocks: usize) -> Outcome<Vec<u8>> {
        let portal = self.portals[node];
        let data = self.run(move |local| async move {
            let path = Path::connect(portal, &local).await.map_err(|error| error.to_string())?;
            let mut data = Vec::new();
            for at in (0..blocks).step_by(BLOCKS_MAX) {
                let count = BLOCKS_MAX.min(blocks - at);
                data.extend(path.read(lba + at as u64, count).await?);
            }
            Ok::<_, String>(data)
        })?;
        let one = |block: &[u8]| {
            assert!(block.iter().all(|byte| *byte == block[0]), "a block that is half old");
            block[0]
        };
        Ok(data.chunks(BLOCK).map(one).collect())
    }

    /// Has each node lead in turn and read its own replica: all must hold `fill`.
    pub fn assert_all_replicas(&self, cluster: &Cluster, lba: u64, fills: &[u8]) {
        let held: Vec<_> = (0..cluster.nodes.len())
            .map(|node| {
                cluster.lead(node);
                self.read(node, lba, fills.len()).unwrap()
            })
            .collect();
        assert!(held.iter().all(|read| read == fills), "the nodes hold {held:?}, not {fills:?}");
    }

    /// Begins to write one block after the other, in turn over `blocks` of them, until told to stop.
    pub fn load(&self, blocks: u64) -> Load {
        let state = Arc::new(LoadState::default());
        let (reactors, portals) = (Arc::clone(&self.reactors), self.portals.clone());
        let (own, (sender, done)) = (Arc::clone(&state), mpsc::channel());
        let thread = std::thread::spawn(move || {
            reactors.handle(0).spawn(move |local| async move {
                let _ = sender.send(write_on(&local, &portals, blocks, &own).await);
            });
            done.recv().unwrap()
        });
        Load { state, thread }
    }
}

#[derive(Default)]
struct LoadState {
    stop: AtomicBool,
    done: AtomicU64,
    longest_ms: AtomicU64,
}

/// Writes under way.
pub struct Load {
    state: Arc<LoadState>,
    thread: JoinHandle<BTreeMap<u64, u8>>,
}

impl Load {
    /// Writes that are done.
    pub fn done(&self) -> u64 {
        self.state.done.load(Ordering::Acquire)
    }

    /// Waits until so many more are done.
    pub fn go_on(&self, writes: u64) {
        let from = self.done();
        crate::common::wait_for("writes", || (self.done() >= from + writes).then_some(()));
    }

    /// The longest that a write took since this was last asked.
    pub fn longest(&self) -> Duration {
        Duration::from_millis(self.state.longest_ms.swap(0, Ordering::AcqRel))
    }

    /// Ends it; what the last acknowledged write of each block was.
    pub fn stop(self) -> BTreeMap<u64, u8> {
        self.state.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

async fn write_on(
    local: &Local,
    portals: &[SocketAddr],
    blocks: u64,
    state: &LoadState,
) -> BTreeMap<u64, u8> {
    let mut written = BTreeMap::new();
    let (mut path, mut turn) = (None, 0);
    for number in 0.. {
        if state.stop.load(Ordering::Acquire) {
            break;
        }
        let (lba, fill) = (number % blocks, (number / blocks % 251) as u8 + 1);
        let begun = Instant::now();
        while !attempt(local, &mut path, portals[turn % portals.len()], lba, fill).await {
            path = None;
            turn += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if state.stop.load(Ordering::Acquire) {
                return written;
            }
        }
        written.insert(lba, fill);
        let took = begun.elapsed().as_millis() as u64;
        state.longest_ms.fetch_max(took, Ordering::AcqRel);
        state.done.fetch_add(1, Ordering::AcqRel);
    }
    written
}

/// One attempt on one path. What a path was given before it was dropped is nobody's business any more.
async fn attempt(
    local: &Local,
    path: &mut Option<Path>,
    portal: SocketAddr,
    lba: u64,
    fill: u8,
) -> bool {
    let tried = async {
        if path.is_none() {
            *path = Path::connect(portal, local).await.ok();
        }
        let Some(path) = path else { return false };
        path.write(lba, 1, fill).await.is_ok()
    };
    tokio::time::timeout(PATIENCE, tried).await.unwrap_or(false)
}
