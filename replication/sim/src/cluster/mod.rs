//! A whole cluster in one thread, from one seed: nodes with real stores, replicas and leaders,
//! conductors with the real decision functions, hosts, and everything that can go wrong.
//!
//! [`run`] lets hosts work while faults happen, then heals everything and checks: every volume comes
//! to serve with all replicas in sync, and no host waits for ever; what hosts saw is linearizable,
//! block by block ([`crate::history`]); the replicas of a shard are equal byte for byte; every store
//! and every decision keeps its invariants.

mod conductor;
mod core;
mod family;
mod host;
mod inject;
mod node;
mod setup;
mod verify;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use afs_decisions::{ClusterView, NewVolume, NodeId, Place, create};
use afs_env::{BufferPool, Clock};
use afs_store::{FormatOptions, Store};
use afs_volume::Params;
use uuid::Uuid;

use crate::clock::{Drift, MachineClock};
use crate::disk::SimDisk;
use crate::executor::{Order, Process, Sim};
use crate::faults::{Fault, FaultCounts, Nemesis};
use crate::history::History;
use crate::net::{Address, NetCounts, SimNet};
use crate::random::SimRandom;
use core::SharedCore;
pub use family::Family;
pub use host::HostSetup;
use node::Node;
pub use setup::{Faults, Setup};

/// MetaDB and the coordination service.
const CORE: Address = Address(200);
/// The conductors.
const CONDUCTORS: [Address; 2] = [Address(100), Address(101)];
/// Lines of the trace that are kept.
const TRACE_MAX: usize = 200_000;

/// The node of a machine; its number is its address too.
fn node_of(machine: usize) -> NodeId {
    NodeId(u32::try_from(machine + 1).unwrap_or(u32::MAX))
}

/// The machine at an address.
fn machine_of(address: Address) -> Option<usize> {
    (address < CONDUCTORS[0]).then(|| usize::try_from(address.0).ok()?.checked_sub(1)).flatten()
}

fn host_address(index: usize) -> Address {
    Address(300 + u32::try_from(index).unwrap_or(0))
}

/// A volume.
struct Volume {
    id: Uuid,
    blocks: u64,
}

struct Machine {
    disk: SimDisk,
    drift: Drift,
    process: Option<Process>,
    node: Option<Node>,
    new_replicas: Vec<(Uuid, u64)>,
    /// The next process finds a record of a replica missing.
    loses_record: bool,
}

struct HostPlace {
    process: Option<Process>,
    under_way: Rc<Cell<usize>>,
}

struct Inner {
    setup: Setup,
    sim: Sim,
    net: SimNet,
    pool: BufferPool,
    core: SharedCore,
    volumes: Vec<Volume>,
    machines: RefCell<Vec<Machine>>,
    conductors: RefCell<Vec<(Option<Process>, Drift)>>,
    hosts: RefCell<Vec<HostPlace>>,
    history: RefCell<History>,
    faults: RefCell<FaultCounts>,
    operations: Cell<u64>,
    wanted_move: Cell<Option<(Uuid, NodeId)>>,
    calm: Cell<bool>,
    violations: RefCell<Vec<String>>,
    trace: RefCell<VecDeque<String>>,
}

/// A handle to the cluster.
#[derive(Clone)]
struct Cluster(Rc<Inner>);

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Time in the simulation.
    pub time: Duration,
    /// Faults.
    pub faults: FaultCounts,
    /// Operations of hosts that succeeded.
    pub operations: u64,
    /// Decisions that were made.
    pub decisions: u64,
    /// Leaders that were elected and replicas that were dropped: what somebody's failure calls for, and nothing else.
    pub replacements: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// Messages.
    pub net: NetCounts,
    /// A digest of everything: the same seed gives the same.
    pub digest: u64,
}

impl Report {
    /// Adds another run.
    pub fn add(&mut self, other: &Report) {
        self.time += other.time;
        self.faults.add(&other.faults);
        self.operations += other.operations;
        self.decisions += other.decisions;
        self.replacements += other.replacements;
        self.polls += other.polls;
        self.net.sent += other.net.sent;
        self.net.vanished += other.net.vanished;
        self.net.held += other.net.held;
        self.net.ghosts += other.net.ghosts;
        self.net.failed += other.net.failed;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.time.as_secs_f64() / 3600.0;
        write!(
            f,
            "{hours:.2} h, {} faults ({}), {} operations, {} decisions, {} messages, {} ghosts",
            self.faults.total(),
            self.faults,
            self.operations,
            self.decisions,
            self.net.sent,
            self.net.ghosts
        )
    }
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was broken.
    pub violations: Vec<String>,
    /// The last things that happened.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.violations.join("\n"))
    }
}

/// Runs one cluster to its end.
///
/// # Errors
/// What was broken.
pub fn run(setup: &Setup) -> Result<Report, Failure> {
    let cluster = Cluster::new(setup);
    let world = cluster.clone();
    let ended = cluster.sim().run(async move { world.life().await });
    if ended.is_err() {
        cluster.violation("nothing can happen any more".to_owned());
    }
    let report = cluster.report();
    let violations = cluster.0.violations.take();
    let trace = cluster.0.trace.take().into();
    cluster.end();
    if violations.is_empty() { Ok(report) } else { Err(Failure { violations, trace }) }
}

/// Buffers for all runs of a thread.
fn pool() -> BufferPool {
    thread_local! {
        static POOL: Result<BufferPool, std::io::Error> = BufferPool::new(256 << 20);
    }
    POOL.with(|pool| match pool {
        Ok(pool) => pool.clone(),
        Err(error) => panic!("no memory for buffers: {error}"),
    })
}

impl Cluster {
    fn new(setup: &Setup) -> Cluster {
        let sim = Sim::new(setup.seed);
        sim.set_order(Order::Seeded);
        let (net, pool) = (SimNet::new(&sim, setup.net), pool());
        let volumes = (0..setup.volumes).map(|number| Volume {
            id: Uuid::from_u128(0xa000 + number as u128),
            blocks: setup.shard_blocks * setup.shards as u64,
        });
        let machines = (0..setup.machines).map(|_| Machine {
            disk: SimDisk::new(setup.disk, &pool),
            drift: setup.drift(sim.random()),
            process: None,
            node: None,
            new_replicas: Vec::new(),
            loses_record: false,
        });
        let conductors = CONDUCTORS.map(|_| (None, setup.drift(sim.random())));
        let hosts =
            setup.hosts.iter().map(|_| HostPlace { process: None, under_way: Rc::default() });
        let inner = Inner {
            setup: setup.clone(),
            net,
            core: Rc::default(),
            volumes: volumes.collect(),
            machines: RefCell::new(machines.collect()),
            conductors: RefCell::new(conductors.into()),
            hosts: RefCell::new(hosts.collect()),
            history: RefCell::default(),
            faults: RefCell::default(),
            operations: Cell::new(0),
            wanted_move: Cell::new(None),
            calm: Cell::new(false),
            violations: RefCell::default(),
            trace: RefCell::default(),
            pool,
            sim,
        };
        Cluster(Rc::new(inner))
    }

    /// From the first start to the last check.
    async fn life(&self) {
        core::start(self);
        self.format_disks().await;
        self.create_volumes();
        for machine in 0..self.machines() {
            self.start_machine(machine);
        }
        for which in 0..CONDUCTORS.len() {
            self.start_conductor(which);
        }
        for host in 0..self.setup().hosts.len() {
            self.restart_host(host);
        }
        self.sleep(Duration::from_secs(5)).await;
        self.suffer().await;
        if self.has_violation() {
            return;
        }
        self.0.calm.set(true);
        self.make_whole();
        self.come_together().await;
        if !self.has_violation() {
            self.verify().await;
        }
    }

    async fn suffer(&self) {
        let mut nemesis = Nemesis::new(self.random(), self.machines(), self.places().len());
        if let Some(faults) = &self.setup().faults {
            nemesis = nemesis.only(&faults.kinds, faults.pause, faults.time_max);
        }
        let end = self.setup().time + Duration::from_nanos(self.sim().clock().now());
        while Duration::from_nanos(self.sim().clock().now()) < end && !self.has_violation() {
            self.sleep(nemesis.pause()).await;
            self.inject(&nemesis.draw());
        }
    }

    async fn format_disks(&self) {
        for machine in 0..self.machines() {
            let disk = self.disk(machine);
            disk.take_time(self.sim().clock(), self.random());
            let id = Uuid::from_u128(0xd000 + machine as u128);
            let options = FormatOptions {
                chunk_bytes: self.setup().chunk_bytes,
                journal_bytes: Some(self.setup().journal_bytes),
                ..FormatOptions::new(id, self.setup().seed)
            };
            if let Err(error) = Store::format(&disk, &options).await {
                self.violation(format!("a disk cannot be formatted: {error}"));
            }
        }
    }

    fn create_volumes(&self) {
        let setup = self.setup();
        let view = ClusterView::of_alive((0..self.machines()).map(node_of));
        for (number, volume) in self.volumes().iter().enumerate() {
            let places = |shard: usize| {
                let member = |index: usize| {
                    let machine = (number + shard + index) % self.machines();
                    let name = (number * 100 + shard * 10 + index) as u128;
                    let replica = Uuid::from_u128(0xc000 + name);
                    let machines = &mut *self.0.machines.borrow_mut();
                    if let Some(machine) = machines.get_mut(machine) {
                        machine.new_replicas.push((replica, setup.shard_blocks));
                    }
                    Place { replica, node: node_of(machine) }
                };
                (0..setup.replicas).map(member).collect::<Vec<_>>()
            };
            let new = NewVolume {
                volume: volume.id,
                blocks: volume.blocks,
                shard_blocks: setup.shard_blocks,
                min_in_sync: setup.min_in_sync,
                shards: (0..setup.shards).map(places).collect(),
            };
            match create(&new, &view) {
                Ok(config) => self.core().create(config),
                Err(why) => self.violation(format!("a volume cannot be made: {why}")),
            }
        }
    }

    /// Starts the process of a node, unless it runs.
    fn start_machine(&self, index: usize) {
        let (new_replicas, loses_record) = {
            let mut machines = self.0.machines.borrow_mut();
            let Some(machine) = machines.get_mut(index) else { return };
            if machine.process.as_ref().is_some_and(Process::is_alive) {
                return;
            }
            machine.node = None;
            let loses_record = std::mem::take(&mut machine.loses_record);
            (std::mem::take(&mut machine.new_replicas), loses_record)
        };
        let process = node::start(self, index, new_replicas, loses_record);
        let cluster = self.clone();
        process.at_end(move || cluster.running(index, None));
        if let Some(machine) = self.0.machines.borrow_mut().get_mut(index) {
            machine.process = Some(process);
        }
    }

    fn lose_record(&self, index: usize) {
        if let Some(machine) = self.0.machines.borrow_mut().get_mut(index) {
            machine.loses_record = true;
        }
    }

    fn start_conductor(&self, which: usize) {
        let alive = self.conductor_process(which).is_some_and(|process| process.is_alive());
        if let Some(address) = CONDUCTORS.get(which).filter(|_| !alive) {
            let process = conductor::start(self, *address);
            if let Some(place) = self.0.conductors.borrow_mut().get_mut(which) {
                place.0 = Some(process);
            }
        }
    }

    /// A host's operations end without an outcome; it begins anew.
    fn restart_host(&self, index: usize) {
        let (old, under_way) = {
            let mut hosts = self.0.hosts.borrow_mut();
            let Some(place) = hosts.get_mut(index) else { return };
            (place.process.take(), place.under_way.clone())
        };
        if let Some(old) = old {
            old.kill();
        }
        let Some(setup) = self.setup().hosts.get(index) else { return };
        let process = host::start(self, index, *setup, &under_way);
        if let Some(place) = self.0.hosts.borrow_mut().get_mut(index) {
            place.process = Some(process);
        }
    }

    /// A node's process serves, or is gone.
    fn running(&self, machine: usize, node: Option<Node>) {
        let old = {
            let mut machines = self.0.machines.borrow_mut();
            let Some(machine) = machines.get_mut(machine) else { return };
            std::mem::replace(&mut machine.node, node)
        };
        drop(old);
    }

    fn setup(&self) -> &Setup {
        &self.0.setup
    }

    fn sim(&self) -> &Sim {
        &self.0.sim
    }

    fn net(&self) -> &SimNet {
        &self.0.net
    }

    fn random(&self) -> &SimRandom {
        self.0.sim.random()
    }

    fn pool(&self) -> &BufferPool {
        &self.0.pool
    }

    fn core(&self) -> &core::Core {
        &self.0.core
    }

    fn params(&self) -> Params {
        self.0.setup.params
    }

    fn volumes(&self) -> &[Volume] {
        &self.0.volumes
    }

    fn history(&self) -> &RefCell<History> {
        &self.0.history
    }

    fn machines(&self) -> usize {
        self.0.setup.machines
    }

    fn node(&self, machine: usize) -> Option<Node> {
        self.0.machines.borrow().get(machine)?.node.clone()
    }

    fn process_of(&self, machine: usize) -> Option<Process> {
        let process = self.0.machines.borrow().get(machine)?.process.clone();
        process.filter(Process::is_alive)
    }

    fn conductor_process(&self, which: usize) -> Option<Process> {
        self.0.conductors.borrow().get(which)?.0.clone()
    }

    /// # Panics
    /// If there is no such machine.
    fn disk(&self, machine: usize) -> SimDisk {
        let machines = self.0.machines.borrow();
        match machines.get(machine) {
            Some(machine) => machine.disk.clone(),
            None => panic!("there is no machine {machine}"),
        }
    }

    fn clock_of(&self, address: Address) -> MachineClock {
        let drift = match machine_of(address) {
            Some(machine) => self.0.machines.borrow().get(machine).map(|machine| machine.drift),
            None => {
                let which = CONDUCTORS.iter().position(|conductor| *conductor == address);
                which.and_then(|which| Some(self.0.conductors.borrow().get(which)?.1))
            }
        };
        MachineClock::new(self.sim().clock(), drift.unwrap_or_default())
    }

    async fn sleep(&self, time: Duration) {
        self.sim().clock().sleep(time).await;
    }

    async fn sleep_below(&self, most: Duration) {
        let most = usize::try_from(most.as_nanos()).unwrap_or(usize::MAX);
        self.sleep(Duration::from_nanos(self.random().below(most) as u64)).await;
    }

    fn is_calm(&self) -> bool {
        self.0.calm.get()
    }

    /// What the last reads are made with: they are never given up.
    fn reader(&self) -> HostSetup {
        HostSetup {
            lanes: 1,
            pause: Duration::ZERO,
            path_timeout: Duration::from_secs(5),
            patience: Duration::MAX,
            blocks_max: 16,
            spread: 16,
            reads: 100,
            writes: 0,
        }
    }

    fn operations_under_way(&self) -> usize {
        self.0.hosts.borrow().iter().map(|host| host.under_way.get()).sum()
    }

    fn count_operation(&self) {
        self.0.operations.set(self.0.operations.get() + 1);
    }

    fn count_fault(&self, fault: &Fault) {
        self.0.faults.borrow_mut().count(fault);
    }

    fn ask_move(&self, wanted: Option<(Uuid, NodeId)>) {
        self.0.wanted_move.set(wanted);
    }

    fn take_move(&self) -> Option<(Uuid, NodeId)> {
        self.0.wanted_move.take()
    }

    fn violation(&self, what: String) {
        self.trace(|| format!("VIOLATION: {what}"));
        self.0.violations.borrow_mut().push(what);
    }

    fn has_violation(&self) -> bool {
        !self.0.violations.borrow().is_empty()
    }

    fn trace(&self, line: impl FnOnce() -> String) {
        if !self.setup().trace {
            return;
        }
        let now = Duration::from_nanos(self.sim().clock().now());
        let mut trace = self.0.trace.borrow_mut();
        if trace.len() == TRACE_MAX {
            trace.pop_front();
        }
        let line = format!("{:>12.6} {}", now.as_secs_f64(), line());
        if self.setup().live {
            eprintln!("{line}");
        }
        trace.push_back(line);
    }

    fn report(&self) -> Report {
        let time = Duration::from_nanos(self.sim().clock().now());
        let net = self.net().counts();
        let digest = [
            u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            self.sim().polls(),
            net.sent,
            self.0.operations.get(),
        ];
        Report {
            time,
            faults: self.0.faults.borrow().clone(),
            operations: self.0.operations.get(),
            decisions: self.core().commits.get(),
            replacements: self.core().replacements.get(),
            polls: self.sim().polls(),
            net,
            digest: digest.iter().fold(0, |sum: u64, part| sum.rotate_left(7) ^ part),
        }
    }

    /// Takes everything apart: processes hold each other through the network.
    fn end(&self) {
        let processes: Vec<Process> = {
            let (machines, conductors) = (self.0.machines.borrow(), self.0.conductors.borrow());
            let hosts = self.0.hosts.borrow();
            let nodes = machines.iter().filter_map(|machine| machine.process.clone());
            let conductors = conductors.iter().filter_map(|place| place.0.clone());
            nodes.chain(conductors).chain(hosts.iter().filter_map(|h| h.process.clone())).collect()
        };
        processes.iter().for_each(Process::kill);
        self.sim().kill();
        self.net().clear();
    }
}
