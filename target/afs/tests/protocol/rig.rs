//! What the tests share: a node with hand-made state on reactors of its own, a reactor for hosts, and raw commands.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use afs::backend::BackendSource;
use afs::cluster::{Cluster, control};
use afs::metrics::Metrics;
use afs::node::{Node, NodeOptions};
use afs::queue::{Door, QueueService};
use afs_decisions::NodeId;
use afs_fabric::{
    ControllerOptions, HostController, HostData, HostError, HostOptions, HostQueue, Limits,
    listen_tcp,
};
use afs_nvme::command::{AdminCommand, FabricsCommand};
use afs_nvme::fabrics::PropertySize;
use afs_nvme::{HostId, Nqn, Sqe, Status};
use afs_reactor::{Local, ReactorConfig, Reactors};
use conductor::api::{NamespaceState, Nguid, NodeState, Portal, SubsystemState};
use parking_lot::Mutex;
use uuid::Uuid;

/// A test that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(100);

/// The subsystem of most tests.
pub const VOLUMES: &str = "nqn.2026-11.test:volumes";
/// The host of most tests.
pub const HOST: &str = "nqn.2026-11.test:host";
/// Blocks of the namespaces of most tests.
pub const BLOCKS: u64 = 1024;

/// Wanted state with one subsystem, open to all, that exports namespaces 1 and 2.
pub fn state() -> NodeState {
    NodeState {
        revision: 1,
        node: "n1".to_owned(),
        cluster: Uuid::nil(),
        volumes: Vec::new(),
        retired: Vec::new(),
        subsystems: vec![subsystem(VOLUMES, &[1, 2])],
        portals: vec![portal(1)],
        ..NodeState::default()
    }
}

pub fn subsystem(nqn: &str, nsids: &[u32]) -> SubsystemState {
    SubsystemState {
        nqn: nqn.to_owned(),
        serial: "AFS0001".to_owned(),
        model: "Afs".to_owned(),
        controller_ids: (1, 0x0fff),
        allow_any_host: true,
        hosts: Vec::new(),
        namespaces: nsids.iter().map(|nsid| namespace(*nsid)).collect(),
        max_nsid: 1024,
    }
}

pub fn namespace(nsid: u32) -> NamespaceState {
    NamespaceState {
        nsid,
        volume: volume(nsid),
        nguid: Nguid([nsid as u8; 16]),
        uuid: volume(nsid),
        size_bytes: BLOCKS * 4096,
        read_only: false,
        leader: None,
    }
}

/// The volume behind namespace `nsid`.
pub fn volume(nsid: u32) -> Uuid {
    Uuid::from_u128(nsid.into())
}

pub fn portal(id: u16) -> Portal {
    Portal {
        node: format!("n{id}"),
        portal_id: id,
        transport: "tcp".to_owned(),
        address: format!("192.0.2.{id}"),
        service: "4420".to_owned(),
    }
}

/// What a host's part of a test may touch besides its sockets.
#[derive(Clone)]
pub struct World {
    pub node: Arc<Node>,
    pub address: SocketAddr,
    absent: Arc<Mutex<HashSet<Uuid>>>,
    stores: Arc<Mutex<HashMap<Uuid, BackendSource>>>,
}

impl World {
    /// Applies `state`; volumes that keep nothing are behind all namespaces that have no store and are not absent.
    pub fn apply(&self, state: &NodeState) {
        let mut volumes = self.stores.lock().clone();
        let absent = self.absent.lock();
        for namespace in state.subsystems.iter().flat_map(|subsystem| &subsystem.namespaces) {
            let blocks = Arc::new(AtomicU64::new(namespace.size_bytes / 4096));
            volumes
                .entry(namespace.volume)
                .or_insert_with(|| BackendSource::null(namespace.volume, blocks));
        }
        volumes.retain(|volume, _| !absent.contains(volume));
        self.node.apply(state, &volumes);
    }

    /// From the next `apply` on the volume of `nsid` is not on this node.
    pub fn lose(&self, nsid: u32) {
        self.absent.lock().insert(volume(nsid));
    }

    /// From the next `apply` on the volume of `nsid` is on this node.
    pub fn find(&self, nsid: u32) {
        self.absent.lock().remove(&volume(nsid));
    }

    /// The volume of `nsid` is this one.
    pub fn store(&self, nsid: u32, source: BackendSource) {
        self.stores.lock().insert(volume(nsid), source);
    }
}

/// The cluster of a node that is open to others.
pub const CLUSTER: Uuid = Uuid::from_u128(0xc1);

/// A node that serves, and a reactor for hosts.
pub struct Rig {
    pub reactors: Reactors,
    hosts: Reactors,
    pub world: World,
}

impl Rig {
    pub fn start(state: &NodeState) -> Rig {
        Rig::with(state, 2, Limits::default())
    }

    pub fn with(state: &NodeState, threads: usize, limits: Limits) -> Rig {
        Rig::behind(Door::Hosts, state, threads, limits)
    }

    /// The same behind a listener for other nodes.
    pub fn for_peers(state: &NodeState) -> Rig {
        Rig::behind(Door::Peers, state, 1, Limits::default())
    }

    fn behind(door: Door, state: &NodeState, threads: usize, limits: Limits) -> Rig {
        let config = ReactorConfig {
            threads,
            buffer_bytes: 32 << 20,
            poll: Duration::ZERO,
            ..ReactorConfig::default()
        };
        let reactors = Reactors::start(config.clone()).unwrap();
        let hosts =
            Reactors::start(ReactorConfig { threads: 1, ring_entries: 0, ..config }).unwrap();
        let metrics = Metrics::new(reactors.len());
        let options = NodeOptions { name: "n1".to_owned(), reactors: reactors.len(), metrics };
        let node = Node::new(options);
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), 1024).unwrap();
        let address = listener.local_address();
        let handles: Vec<_> = (0..reactors.len()).map(|index| reactors.handle(index)).collect();
        if door == Door::Peers {
            let params = afs_volume::Params::default();
            let control = control::channel().0;
            let cluster = Cluster::new(handles.clone(), control, params, Arc::default()).unwrap();
            cluster.meet(CLUSTER, NodeId(1), BTreeMap::new());
            node.open_to_peers(&cluster).unwrap();
        }
        let serving = Arc::clone(&node);
        reactors.handle(0).spawn(move |_| async move {
            let make = move |queue: &_, local: &Local| {
                QueueService::new(Arc::clone(&serving), local.clone(), queue, door)
            };
            listener.serve(handles, limits, make).await.unwrap();
        });
        let world = World { node, address, absent: Arc::default(), stores: Arc::default() };
        world.apply(state);
        Rig { reactors, hosts, world }
    }

    /// Runs a host's part of a test on the reactor of hosts.
    pub fn host<F, Fut, T>(&self, part: F) -> T
    where
        F: FnOnce(Local, World) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let world = self.world.clone();
        let run = move |local: Local| async move {
            tokio::time::timeout(DEADLINE, part(local, world)).await.expect("the test hangs")
        };
        self.hosts.handle(0).run(run).unwrap()
    }
}

pub fn nqn(name: &str) -> Nqn {
    Nqn::new(name).unwrap()
}

/// Options of a host without keep-alive.
pub fn options(host: &str, subsystem: &str) -> ControllerOptions {
    let mut options = ControllerOptions::new(nqn(subsystem), nqn(host), HostId([7; 16]));
    options.kato_ms = 0;
    options
}

/// A connected and enabled controller of [`HOST`] at [`VOLUMES`].
pub async fn controller(local: &Local, world: &World) -> HostController {
    controller_of(local, world, HOST, VOLUMES).await.unwrap()
}

pub async fn controller_of(
    local: &Local,
    world: &World,
    host: &str,
    subsystem: &str,
) -> Result<HostController, HostError> {
    HostController::connect(world.address, local, options(host, subsystem)).await
}

/// A connection with its ICReq answered and nothing more.
pub async fn socket(local: &Local, world: &World) -> HostQueue {
    HostQueue::connect_tcp(world.address, local, HostOptions::default()).await.unwrap()
}

/// Data of a raw command.
pub enum Data<'a> {
    None,
    Out(&'a [u8]),
    In(usize),
}

/// The answer to a raw command.
#[derive(Debug)]
pub struct Answer {
    pub status: Status,
    pub result: u64,
    pub data: Vec<u8>,
}

impl Answer {
    /// Asserts success.
    #[track_caller]
    pub fn good(self) -> Answer {
        assert_eq!(self.status, Status::SUCCESS);
        self
    }
}

/// Sends one raw command and waits for its answer.
pub async fn ask(queue: &HostQueue, sqe: Sqe, data: Data<'_>) -> Answer {
    let pool = queue.local().pool();
    let data = match data {
        Data::None => HostData::None,
        Data::In(bytes) => HostData::In(pool.alloc(bytes).await),
        Data::Out(bytes) => {
            let mut buffer = pool.alloc(bytes.len()).await;
            buffer.copy_from_slice(bytes);
            HostData::Out(buffer.freeze())
        }
    };
    let (cqe, buffer) = queue.submit(sqe, data).await.unwrap();
    let data = buffer.map(|buffer| buffer.to_vec()).unwrap_or_default();
    Answer { status: cqe.status(), result: cqe.result(), data }
}

pub async fn admin(queue: &HostQueue, command: AdminCommand, nsid: u32, data: Data<'_>) -> Answer {
    ask(queue, command.to_sqe(nsid), data).await
}

/// A log read with RAE = 0 (`retain` false) or 1.
pub async fn log(queue: &HostQueue, lid: u8, offset: u64, bytes: usize, retain: bool) -> Answer {
    let command =
        AdminCommand::GetLogPage { lid, lsp: 0, rae: retain, bytes: bytes as u64, offset, csi: 0 };
    admin(queue, command, 0, Data::In(bytes)).await
}

pub async fn get_property(queue: &HostQueue, offset: u32, size: PropertySize) -> Answer {
    ask(queue, FabricsCommand::PropertyGet { offset, size }.to_sqe(), Data::None).await
}

pub async fn set_property(
    queue: &HostQueue,
    offset: u32,
    size: PropertySize,
    value: u64,
) -> Answer {
    ask(queue, FabricsCommand::PropertySet { offset, size, value }.to_sqe(), Data::None).await
}

pub async fn keep_alive(queue: &HostQueue) {
    admin(queue, AdminCommand::KeepAlive, 0, Data::None).await.good();
}

pub async fn set_feature(queue: &HostQueue, fid: u8, cdw11: u32) -> Answer {
    let command = AdminCommand::SetFeatures { fid, save: false, cdw11, cdw12: 0 };
    admin(queue, command, 0, Data::None).await
}

/// An Asynchronous Event Request under way: dword 0 of its completion, or its status.
pub struct EventRequest(tokio::task::JoinHandle<Result<u32, HostError>>);

impl EventRequest {
    /// Sends one. It is on its way before any command that is sent afterwards.
    pub async fn send(controller: &Rc<HostController>) -> EventRequest {
        let on = Rc::clone(controller);
        let request = controller.admin().local().spawn_local(async move { on.next_event().await });
        // The task has had its turn when a command that was sent after it is answered.
        tokio::task::yield_now().await;
        keep_alive(controller.admin()).await;
        EventRequest(request)
    }

    /// Its answer.
    pub async fn answer(self) -> Result<u32, HostError> {
        self.0.await.unwrap()
    }

    /// Asserts that it still waits after everything that happened so far.
    #[track_caller]
    pub fn still_waits(&self) {
        assert!(!self.0.is_finished(), "an event came that should not");
    }
}

/// A status with DNR.
pub fn final_status(code: u16) -> Status {
    Status::from_code(code).dnr()
}
