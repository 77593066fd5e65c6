//! A node: one process with a real store on its disk, real replica servers, and real leaders, as
//! the daemon puts them together. What belongs to the daemon and not to the protocol (entry of hosts,
//! forwarding to the leader, fencing of ghosts on host connections) is a plain version here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use afs_decisions::{NodeId, VolumeConfig};
use afs_env::{Buffer, BufferPool, Clock, Random};
use afs_store::{Contents, OpenError, OpenOptions, ReplicaId, StopReason, Store};
use afs_volume::{
    Asker, Control, ControlError, Host, Leader, LeaderState, Phase, ReplicaServer, ReplicaState,
    VolumeError,
};
use futures_util::future::{Either, select};
use uuid::Uuid;

use super::conductor::{Reply, Request};
use super::core::{LifeSign, Lives};
use super::{CONDUCTORS, CORE, Cluster, node_of};
use crate::clock::MachineClock;
use crate::disk::SimDisk;
use crate::executor::Process;
use crate::net::{Address, Closed, LinkError, SimLink};

/// How often a node asks for news and gives a life sign.
const PERIOD: Duration = Duration::from_millis(600);
/// A request that waited for longer in a process that did not run is dropped with its connection.
const STOOD_STILL: u64 = 1_000_000_000;

/// How long a node asks for the leader's tick before it forwards.
pub(super) const TICK_WAIT: Duration = Duration::from_millis(300);

/// What a host wants.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Read { lba: u64, blocks: u64 },
    Write { lba: u64, data: Buffer },
    Clear { lba: u64, blocks: u64, deallocate: bool },
}

/// A host's request.
#[derive(Clone, Debug)]
pub(super) struct IoRequest {
    pub volume: Uuid,
    pub operation: Operation,
}

/// What a node says to it.
#[derive(Clone, Debug)]
pub(super) enum IoAnswer {
    Done(Option<Buffer>),
    /// Another path may do better.
    PathError,
    Failed(VolumeError),
}

/// A request that one node hands to another.
#[derive(Clone, Debug)]
struct Forwarded {
    request: IoRequest,
    /// The receiver's time as the sender last heard it.
    tick: u64,
}

#[derive(Clone)]
struct Running {
    state: LeaderState,
    leader: Leader<SimHost>,
}

pub(super) struct Inner {
    cluster: Cluster,
    machine: usize,
    process: Process,
    /// What the conductor knows this process by.
    number: u64,
    clock: MachineClock,
    store: Rc<Store<SimDisk>>,
    replicas: BTreeMap<Uuid, (ReplicaState, ReplicaServer<SimDisk, MachineClock>)>,
    configs: RefCell<BTreeMap<Uuid, VolumeConfig>>,
    leaders: RefCell<BTreeMap<Uuid, Running>>,
    conductor: Cell<usize>,
    /// Counts how often all host connections were closed.
    closed: Cell<u64>,
    /// When it last ran.
    ran: Cell<u64>,
}

/// A handle to a node's process.
#[derive(Clone)]
pub(super) struct Node(Rc<Inner>);

/// What a leader needs from its node.
#[derive(Clone)]
pub(super) struct SimHost(Node);

/// Starts the process of a node, which opens its disk and serves.
pub(super) fn start(
    cluster: &Cluster,
    machine: usize,
    mut new_replicas: Vec<(Uuid, u64)>,
    loses_record: bool,
) -> Process {
    let process = cluster.sim().process();
    cluster.net().attach(Address(node_of(machine).0), &process);
    let (world, own) = (cluster.clone(), process.clone());
    process.spawn(async move {
        let clock = world.clock_of(Address(node_of(machine).0));
        let Some(store) = open(&world, machine, &clock).await else { return };
        let store = Rc::new(store);
        own.spawn(store.background());
        // A node makes what it is to hold and does not find.
        let lost = loses_record.then(|| store.replicas().into_iter().next()).flatten();
        if let Some(info) = lost
            && store.delete_replica(info.id).await.is_ok()
        {
            world.trace(|| format!("machine {machine} lost the record of {}", info.id.uuid()));
            new_replicas.push((info.id.uuid(), info.blocks));
        }
        for (replica, blocks) in new_replicas {
            if let Err(error) = store.create_replica(ReplicaId::from(replica), blocks).await {
                world.violation(format!("a replica cannot be made: {error}"));
            }
        }
        let replicas = servers(&world, machine, &store, &clock);
        let inner = Inner {
            machine,
            process: own.clone(),
            number: world.random().next_u64() | 1,
            ran: Cell::new(clock.now()),
            clock,
            store,
            replicas,
            configs: RefCell::default(),
            leaders: RefCell::default(),
            conductor: Cell::new(machine % CONDUCTORS.len()),
            closed: Cell::new(0),
            cluster: world,
        };
        Node(Rc::new(inner)).serve();
    });
    process
}

/// Opens the disk, again and again if it does not answer.
async fn open(cluster: &Cluster, machine: usize, clock: &MachineClock) -> Option<Store<SimDisk>> {
    loop {
        let disk = cluster.disk(machine);
        match Store::open(disk, OpenOptions::default()).await {
            Ok(store) => return Some(store),
            // The second is how a disk that comes back between two reads looks.
            Err(OpenError::Disk(_) | OpenError::NotAfs(Contents::Afs(_))) => {
                clock.sleep(Duration::from_millis(700)).await;
            }
            Err(error) => {
                cluster.violation(format!("the disk of machine {machine} does not open: {error}"));
                return None;
            }
        }
    }
}

type Servers = BTreeMap<Uuid, (ReplicaState, ReplicaServer<SimDisk, MachineClock>)>;

fn servers(
    cluster: &Cluster,
    machine: usize,
    store: &Store<SimDisk>,
    clock: &MachineClock,
) -> Servers {
    let mut servers = Servers::new();
    for info in store.replicas() {
        let Some(replica) = store.replica(info.id) else { continue };
        let (node, params) = (node_of(machine), cluster.params());
        let state = ReplicaState::new(replica.label(), true, node, clock.now(), params);
        let server = ReplicaServer::new(&state, replica, clock.clone(), cluster.pool().clone());
        servers.insert(info.id.uuid(), (state, server));
    }
    servers
}

/// The service of a replica.
fn service_of(replica: Uuid) -> String {
    format!("replica {replica}")
}

impl Node {
    fn address(&self) -> Address {
        Address(node_of(self.0.machine).0)
    }

    pub(super) fn store(&self) -> &Rc<Store<SimDisk>> {
        &self.0.store
    }

    /// Serves, and runs what runs all the time.
    fn serve(self) {
        let (net, address) = (self.0.cluster.net().clone(), self.address());
        for (replica, (_, server)) in &self.0.replicas {
            let server = server.clone();
            net.serve_link(address, &service_of(*replica), move |_, header, data| {
                let server = server.clone();
                async move { server.handle(&header, data).await }
            });
        }
        let node = self.clone();
        net.serve(address, "news", move |_, configs: Vec<VolumeConfig>| {
            node.learn(configs);
            std::future::ready(())
        });
        let node = self.clone();
        net.serve(address, "tick", move |_, ()| std::future::ready(node.0.clock.now()));
        let node = self.clone();
        net.serve_bound(address, "io", move |_, request: IoRequest, closed| {
            // It arrived on a connection that may be closed before this process runs again.
            let (node, counted) = (node.clone(), node.0.closed.get());
            async move { node.host_request(request, closed, counted).await }
        });
        let node = self.clone();
        net.serve_bound(address, "forward", move |_, forwarded: Forwarded, closed| {
            let node = node.clone();
            async move { node.forwarded(forwarded, closed).await }
        });
        for task in [Self::watch as fn(Node) -> _, Self::signs, Self::ask, Self::mind_disk] {
            let task: std::pin::Pin<Box<dyn Future<Output = ()>>> = task(self.clone());
            self.0.process.spawn(task);
        }
        self.0.cluster.running(self.0.machine, Some(self.clone()));
    }

    /// Notices when the process did not run.
    fn watch(self) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            loop {
                self.0.clock.sleep(Duration::from_millis(500)).await;
                self.look_at_clock();
            }
        })
    }

    /// DESIGN 5 rule 10: who did not run for long closes its host connections before it reads.
    fn look_at_clock(&self) {
        let now = self.0.clock.now();
        if now.saturating_sub(self.0.ran.get()) > STOOD_STILL {
            self.0.closed.set(self.0.closed.get() + 1);
        }
        self.0.ran.set(now);
    }

    fn signs(self) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            loop {
                let net = self.0.cluster.net();
                let sign = LifeSign { candidate: false };
                let call = net.call(self.address(), CORE, "lives", sign);
                let _: Option<Lives> = self.within(PERIOD, async { call.await.ok() }).await;
                self.0.clock.sleep(PERIOD).await;
            }
        })
    }

    /// Asks for news, in case that none came.
    fn ask(self) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            loop {
                let to = self.conductor();
                let call = self.0.cluster.net().call(self.address(), to, "configs", ());
                match self.within(PERIOD, async { call.await.ok() }).await {
                    Some(configs) if !Vec::is_empty(&configs) => self.learn(configs),
                    _ => self.other_conductor(),
                }
                self.0.clock.sleep(PERIOD * 3).await;
            }
        })
    }

    /// A node whose disk was stopped by errors starts again.
    fn mind_disk(self) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            loop {
                self.0.clock.sleep(PERIOD).await;
                let reason = self.0.store.stats().stop_reason;
                if reason.is_some_and(|reason| reason != StopReason::Closed) {
                    let machine = self.0.machine;
                    self.0.cluster.trace(|| format!("disk of {machine} stopped: {reason:?}"));
                    self.0.cluster.disk_stopped(machine);
                    return;
                }
            }
        })
    }

    async fn within<T>(
        &self,
        time: Duration,
        future: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        let (future, pause) = (std::pin::pin!(future), std::pin::pin!(self.0.clock.sleep(time)));
        match select(future, pause).await {
            Either::Left((value, _)) => value,
            Either::Right(_) => None,
        }
    }

    fn conductor(&self) -> Address {
        CONDUCTORS.get(self.0.conductor.get()).copied().unwrap_or(CORE)
    }

    fn other_conductor(&self) {
        self.0.conductor.set((self.0.conductor.get() + 1) % CONDUCTORS.len());
    }

    fn learn(&self, configs: Vec<VolumeConfig>) {
        for config in configs {
            {
                let mut known = self.0.configs.borrow_mut();
                if known.get(&config.volume).is_some_and(|old| old.epoch >= config.epoch) {
                    continue;
                }
                known.insert(config.volume, config.clone());
            }
            self.follow(&config);
        }
    }

    /// Leads what it is to lead, and nothing else.
    fn follow(&self, config: &VolumeConfig) {
        let volume = config.volume;
        let running = self.0.leaders.borrow().get(&volume).cloned();
        let mine = config.leader == Some(node_of(self.0.machine));
        match running {
            None if mine => self.lead(config),
            // Both ways to learn of its end.
            Some(running) if !mine && self.0.cluster.random().chance(50) => running.state.leave(),
            Some(running) => running.state.offer(config.clone()),
            None => {}
        }
    }

    fn lead(&self, config: &VolumeConfig) {
        let (volume, node) = (config.volume, node_of(self.0.machine));
        let state = LeaderState::new(config, node, self.0.number, self.0.cluster.params());
        let leader = Leader::new(&state, SimHost(self.clone()));
        let running = Running { state, leader: leader.clone() };
        self.0.leaders.borrow_mut().insert(volume, running);
        let handle = self.clone();
        self.0.process.spawn(async move {
            leader.run().await;
            handle.0.leaders.borrow_mut().remove(&volume);
            let config = handle.0.configs.borrow().get(&volume).cloned();
            if let Some(config) = config {
                handle.follow(&config);
            }
        });
    }

    /// How the leader of a volume on this node is, if there is one.
    pub(super) fn leading(&self, volume: Uuid) -> Option<afs_volume::VolumeView> {
        self.0.leaders.borrow().get(&volume).map(|running| running.state.view())
    }

    async fn host_request(&self, request: IoRequest, closed: Closed, counted: u64) -> IoAnswer {
        self.look_at_clock();
        let gone = || closed.is_closed() || self.0.closed.get() != counted;
        if gone() {
            return IoAnswer::PathError;
        }
        let leader = self.0.configs.borrow().get(&request.volume).and_then(|config| config.leader);
        match leader {
            Some(node) if node == node_of(self.0.machine) => self.carry_out(request, &gone).await,
            Some(node) => {
                // It goes no further when its host is gone.
                let forward = std::pin::pin!(self.forward(Address(node.0), request, &gone));
                match select(forward, std::pin::pin!(closed.wait())).await {
                    Either::Left((answer, _)) => answer,
                    Either::Right(_) => IoAnswer::PathError,
                }
            }
            None => IoAnswer::PathError,
        }
    }

    async fn forward(&self, to: Address, request: IoRequest, gone: &dyn Fn() -> bool) -> IoAnswer {
        let (net, from) = (self.0.cluster.net().clone(), self.address());
        let call = net.call(from, to, "tick", ());
        let tick = self.within(TICK_WAIT, async { call.await.ok() }).await;
        let Some(tick) = tick.filter(|_| !gone()) else { return IoAnswer::PathError };
        let forwarded = Forwarded { request, tick };
        match net.call_bound(from, to, "forward", forwarded).await {
            Ok(answer) => answer,
            Err(LinkError::Unreachable) => IoAnswer::PathError,
            Err(LinkError::Lost) => {
                // It may still be carried out, until it is too old.
                self.0.clock.sleep(self.0.cluster.params().ghosts_over()).await;
                IoAnswer::PathError
            }
        }
    }

    async fn forwarded(&self, forwarded: Forwarded, closed: Closed) -> IoAnswer {
        let too_old = || {
            let age = Duration::from_nanos(self.0.clock.now().saturating_sub(forwarded.tick));
            age > self.0.cluster.params().tick_age
        };
        let gone = || closed.is_closed() || too_old();
        if gone() {
            return IoAnswer::PathError;
        }
        self.carry_out(forwarded.request, &gone).await
    }

    async fn carry_out(&self, request: IoRequest, gone: &dyn Fn() -> bool) -> IoAnswer {
        let running = self.0.leaders.borrow().get(&request.volume).cloned();
        let Some(Running { leader, .. }) = running else { return IoAnswer::PathError };
        let result = match request.operation {
            Operation::Write { lba, data } => leader.write(lba, data, gone).await.map(|()| None),
            Operation::Clear { lba, blocks, deallocate } => {
                leader.write_zeroes(lba, blocks, deallocate, gone).await.map(|()| None)
            }
            Operation::Read { lba, blocks } => {
                let bytes = usize::try_from(blocks * 4096).unwrap_or(usize::MAX);
                let buffer = self.0.cluster.pool().alloc(bytes).await;
                let (buffer, result) = leader.read(lba, buffer).await;
                result.map(|()| Some(buffer.freeze()))
            }
        };
        match result {
            Ok(data) => IoAnswer::Done(data),
            Err(VolumeError::NotLeader | VolumeError::Unavailable) => IoAnswer::PathError,
            Err(error) => IoAnswer::Failed(error),
        }
    }

    /// A line about each leader, for people.
    pub(super) fn describe(&self) -> String {
        let leaders = self.0.leaders.borrow();
        let lines = leaders.values().map(|running| format!("{:?}", running.state.view()));
        lines.collect::<Vec<_>>().join("; ")
    }

    /// Whether a volume serves here with nothing left to do.
    pub(super) fn at_rest(&self, volume: Uuid) -> bool {
        self.leading(volume).is_some_and(|view| {
            let mut members = view.shards.iter().flatten();
            view.phase == Phase::Serving
                && view.pending_blocks == 0
                && members.all(|member| member.in_sync)
        })
    }
}

impl Host for SimHost {
    type Disk = SimDisk;
    type Clock = MachineClock;
    type Link = SimLink;
    type Control = SimHost;

    fn node(&self) -> NodeId {
        node_of(self.0.0.machine)
    }

    fn clock(&self) -> &MachineClock {
        &self.0.0.clock
    }

    fn pool(&self) -> &BufferPool {
        self.0.0.cluster.pool()
    }

    fn local(&self, replica: Uuid) -> Option<ReplicaServer<SimDisk, MachineClock>> {
        self.0.0.replicas.get(&replica).map(|(_, server)| server.clone())
    }

    fn link(&self, node: NodeId, replica: Uuid) -> SimLink {
        self.0.0.cluster.net().link(self.0.address(), Address(node.0), &service_of(replica))
    }

    fn control(&self) -> &SimHost {
        self
    }
}

impl SimHost {
    async fn request(&self, request: Request) -> Result<VolumeConfig, ControlError> {
        let node = &self.0;
        let (from, to) = (node.address(), node.conductor());
        let call = node.0.cluster.net().call(from, to, "control", request);
        let reply: Option<Reply> =
            node.within(Duration::from_millis(2_500), async { call.await.ok() }).await;
        match reply.flatten() {
            Some((config, granted)) => {
                node.learn(vec![config.clone()]);
                if granted { Ok(config) } else { Err(ControlError::Denied(Box::new(config))) }
            }
            None => {
                node.other_conductor();
                Err(ControlError::Unknown)
            }
        }
    }

    fn asker(&self, asker: Asker) -> afs_decisions::Asker {
        let Asker { epoch, process, .. } = asker;
        afs_decisions::Asker { node: self.node(), process, epoch }
    }
}

impl Control for SimHost {
    async fn claim(&self, volume: Uuid, process: u64) -> Result<VolumeConfig, ControlError> {
        self.request(Request::Claim { volume, node: self.node(), process }).await
    }

    async fn renew(&self, asker: Asker) -> Result<VolumeConfig, ControlError> {
        let request = Request::Renew { volume: asker.volume, asker: self.asker(asker) };
        self.request(request).await
    }

    async fn accuse(
        &self,
        asker: Asker,
        shard: usize,
        replica: Uuid,
        unheard: Vec<NodeId>,
    ) -> Result<VolumeConfig, ControlError> {
        let (volume, shard) = (asker.volume, u32::try_from(shard).unwrap_or(u32::MAX));
        let asker = self.asker(asker);
        self.request(Request::Accuse { volume, asker, shard, replica, unheard }).await
    }

    async fn admit(
        &self,
        asker: Asker,
        shard: usize,
        replica: Uuid,
    ) -> Result<VolumeConfig, ControlError> {
        let (volume, shard) = (asker.volume, u32::try_from(shard).unwrap_or(u32::MAX));
        self.request(Request::Admit { volume, asker: self.asker(asker), shard, replica }).await
    }
}
