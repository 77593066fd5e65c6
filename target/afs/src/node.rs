//! The node: what it serves to hosts, and the one place where wanted state becomes visible to them.
//!
//! [`Node::apply`] takes the conductor's wanted state with the volumes that are here; [`Node::serve`] takes connections.
//! Locks are short; nothing here waits for I/O.

use crate::backend::BackendSource;
use crate::cluster::Cluster;
use crate::cluster::wire::PEERS_NQN;
use crate::controller::{Controller, Role};
use crate::discovery::{Directory, Port};
use crate::events::Event;
use crate::limits::DISCOVERY_CONTROLLERS_MAX;
use crate::metrics::Metrics;
use crate::namespace::Namespace;
use crate::portal::{self, Portal};
use crate::subsystem::{Access, Host, Identity, NoController, Subsystem};
use afs_nvme::{ControllerId, Nqn};
use arc_swap::ArcSwap;
use conductor::api::{NodeState, SubsystemState};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use uuid::Uuid;

/// What a node is made with.
pub struct NodeOptions {
    /// Name in the cluster.
    pub name: String,
    /// How many reactors serve, for the metrics.
    pub reactors: usize,
    /// Where operations are counted.
    pub metrics: Arc<Metrics>,
}

#[derive(Default)]
struct DiscoveryControllers {
    live: BTreeMap<u16, Arc<Controller>>,
    next: u16,
}

/// What the node offers to other nodes.
pub struct Peers {
    /// The subsystem that they connect to.
    pub subsystem: Arc<Subsystem>,
    /// What is behind it.
    pub cluster: Arc<Cluster>,
}

/// See the module.
pub struct Node {
    /// What it was made with.
    pub options: NodeOptions,
    /// When it started.
    pub started: Instant,
    subsystems: ArcSwap<BTreeMap<Nqn, Arc<Subsystem>>>,
    directory: Arc<ArcSwap<Directory>>,
    discovery: Mutex<DiscoveryControllers>,
    peers: OnceLock<Peers>,
    applying: Mutex<()>,
    stopping: AtomicBool,
    /// Where controller ids start (CONFORMANCE F-5): random, so that a restart does not repeat what hosts remember.
    first_controller: u16,
    change_base: u64,
}

/// One controller for people and metrics.
#[derive(Clone, Debug, Serialize)]
pub struct ControllerStatus {
    /// NQN of the subsystem, or the discovery NQN.
    pub subsystem: String,
    /// CNTLID.
    pub id: u16,
    /// HOSTNQN.
    pub host: String,
    /// How the host reaches it: `tcp` or `rdma`.
    pub transport: &'static str,
    /// I/O queues connected.
    pub io_queues: usize,
    /// Keep-alive time-out in milliseconds.
    pub keep_alive_ms: u32,
    /// Failed commands so far.
    pub errors: u64,
}

/// The node for people and metrics.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// Name in the cluster.
    pub name: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// All controllers of hosts.
    pub controllers: Vec<ControllerStatus>,
}

impl Node {
    /// A node that serves nothing yet.
    pub fn new(options: NodeOptions) -> Arc<Node> {
        let mut seed = [0; 2];
        if let Err(error) = getrandom::fill(&mut seed) {
            tracing::warn!(%error, "no randomness: controller ids start at the beginning of their range");
        }
        Arc::new(Node {
            options,
            started: Instant::now(),
            subsystems: ArcSwap::default(),
            directory: Arc::new(ArcSwap::default()),
            discovery: Mutex::default(),
            peers: OnceLock::new(),
            applying: Mutex::new(()),
            stopping: AtomicBool::new(false),
            first_controller: u16::from_le_bytes(seed),
            change_base: Directory::next_generation(0),
        })
    }

    /// The subsystem named `nqn`, if it is served here.
    pub fn subsystem(&self, nqn: &Nqn) -> Option<Arc<Subsystem>> {
        self.subsystems.load().get(nqn).cloned()
    }

    /// Opens the peers' subsystem; nothing happens if it is open.
    ///
    /// # Errors
    /// Never: its name is a constant.
    pub fn open_to_peers(&self, cluster: &Arc<Cluster>) -> Result<(), afs_nvme::NqnError> {
        let identity = Identity {
            nqn: Nqn::new(PEERS_NQN)?,
            serial: "peers".to_owned(),
            model: "Afs node".to_owned(),
        };
        let ids = (ControllerId::MIN.get(), ControllerId::MAX.get());
        let subsystem = Subsystem::new(identity, ids, self.first_controller, self.change_base);
        subsystem.set_access(Access { any: true, ..Access::default() });
        let cluster = Arc::clone(cluster);
        self.peers.get_or_init(|| Peers { subsystem: Arc::new(subsystem), cluster });
        Ok(())
    }

    /// What other nodes may use, once it is open.
    pub fn peers(&self) -> Option<&Peers> {
        self.peers.get()
    }

    /// What can be discovered.
    pub fn directory(&self) -> Arc<ArcSwap<Directory>> {
        Arc::clone(&self.directory)
    }

    /// Makes what hosts see agree with `state`; `volumes` are the volumes that this node has.
    ///
    /// Subsystems that are gone close their controllers; entries that make no sense are left out and logged.
    pub fn apply(&self, state: &NodeState, volumes: &HashMap<Uuid, BackendSource>) {
        let _one = self.applying.lock();
        if self.stopping() {
            return;
        }
        let before = self.subsystems.load_full();
        let names: HashMap<_, _> =
            state.volumes.iter().map(|volume| (volume.volume, volume.name.as_str())).collect();
        let mut after = BTreeMap::new();
        for wanted in &state.subsystems {
            match identity(wanted) {
                Ok(identity) => {
                    let subsystem = self.converge(&before, identity, wanted, volumes, &names);
                    after.insert(subsystem.identity.nqn.clone(), subsystem);
                }
                Err(error) => {
                    tracing::error!(nqn = wanted.nqn, %error, "subsystem with a bad name is not served");
                }
            }
        }
        self.subsystems.store(Arc::new(after));
        self.close_removed(&before);
        self.publish_directory(state);
    }

    fn converge(
        &self,
        before: &BTreeMap<Nqn, Arc<Subsystem>>,
        identity: Identity,
        wanted: &SubsystemState,
        volumes: &HashMap<Uuid, BackendSource>,
        names: &HashMap<Uuid, &str>,
    ) -> Arc<Subsystem> {
        let same = before.get(&identity.nqn).filter(|subsystem| subsystem.identity == identity);
        let subsystem = same.cloned().unwrap_or_else(|| {
            let ids = wanted.controller_ids;
            Arc::new(Subsystem::new(identity, ids, self.first_controller, self.change_base))
        });
        subsystem.set_access(Access {
            any: wanted.allow_any_host,
            hosts: wanted.hosts.iter().cloned().collect(),
        });
        subsystem.publish(wanted.namespaces.iter().filter_map(|namespace| {
            let source = volumes.get(&namespace.volume).cloned();
            let volume = names.get(&namespace.volume).copied().unwrap_or("elsewhere");
            let metrics = self.options.metrics.namespace(&wanted.nqn, namespace.nsid, volume);
            Namespace::from_state(namespace, source, metrics)
        }));
        subsystem
    }

    fn close_removed(&self, before: &BTreeMap<Nqn, Arc<Subsystem>>) {
        let after = self.subsystems.load();
        for (nqn, subsystem) in before {
            if !after.get(nqn).is_some_and(|other| Arc::ptr_eq(other, subsystem)) {
                tracing::info!(%nqn, "subsystem removed");
                subsystem.close("the subsystem was removed");
            }
        }
    }

    fn publish_directory(&self, state: &NodeState) {
        let subsystems = self.subsystems.load();
        let before = self.directory.load();
        self.directory.store(Arc::new(Directory {
            subsystems: subsystems.iter().map(|(nqn, s)| (nqn.clone(), s.access())).collect(),
            ports: state.portals.iter().filter_map(port).collect(),
            generation: Directory::next_generation(before.generation),
        }));
        let controllers: Vec<_> = self.discovery.lock().live.values().cloned().collect();
        for controller in controllers {
            if let Role::Discovery(view) = &controller.role
                && view.differs()
            {
                controller.events.raise(Event::DiscoveryChange);
            }
        }
    }

    /// Whether the node is about to end: from then on it makes no more controllers (CONFORMANCE M-40).
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Makes a discovery controller for `host`; every host may ask what it can use.
    pub fn attach_discovery(
        &self,
        host: &Host,
        make: impl FnOnce(ControllerId) -> Arc<Controller>,
    ) -> Result<Arc<Controller>, NoController> {
        let mut discovery = self.discovery.lock();
        let of_host = discovery.live.values().filter(|other| other.host == *host).count();
        if discovery.live.len() >= DISCOVERY_CONTROLLERS_MAX
            || of_host >= crate::limits::CONTROLLERS_PER_HOST_MAX
        {
            return Err(NoController::Busy);
        }
        // Fewer live ones than ids, so one is free.
        let id = loop {
            let id = discovery.next.clamp(ControllerId::MIN.get(), ControllerId::MAX.get());
            discovery.next = if id == ControllerId::MAX.get() { 0 } else { id + 1 };
            if !discovery.live.contains_key(&id) {
                break id;
            }
        };
        let controller = make(ControllerId(id));
        discovery.live.insert(id, Arc::clone(&controller));
        Ok(controller)
    }

    /// Forgets `controller`, whose association has ended.
    pub fn detach(&self, controller: &Controller) {
        match &controller.role {
            Role::Io(subsystem) => subsystem.detach(controller.id),
            Role::Discovery(_) => {
                self.discovery.lock().live.remove(&controller.id.get());
            }
        }
    }

    /// Every controller that hosts have now.
    pub fn controllers(&self) -> Vec<Arc<Controller>> {
        let mut all: Vec<_> = self.discovery.lock().live.values().cloned().collect();
        for subsystem in self.subsystems.load().values() {
            all.extend(subsystem.controllers());
        }
        all
    }

    /// The node for people and metrics.
    pub fn status(&self) -> NodeStatus {
        let controllers = self.controllers();
        NodeStatus {
            name: self.options.name.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            controllers: controllers.iter().map(|controller| controller.status()).collect(),
        }
    }

    /// Planned stop, before the connections are closed (CONFORMANCE M-40): paths become inaccessible, hosts are told.
    pub fn withdraw(&self) {
        let _one = self.applying.lock();
        self.stopping.store(true, Ordering::Release);
        for subsystem in self.subsystems.load().values() {
            subsystem.withdraw();
        }
    }

    /// Closes every controller.
    pub fn close(&self) {
        for controller in self.controllers() {
            controller.close("the node stops");
        }
    }

    /// Closes every controller of other nodes.
    pub fn close_to_peers(&self) {
        if let Some(peers) = self.peers.get() {
            peers.subsystem.close("the node stops");
        }
    }
}

fn identity(state: &SubsystemState) -> Result<Identity, afs_nvme::NqnError> {
    Ok(Identity {
        nqn: Nqn::new(&state.nqn)?,
        serial: state.serial.clone(),
        model: state.model.clone(),
    })
}

/// One that this version does not know, or that no host can reach, is left out.
fn port(listed: &conductor::api::Portal) -> Option<Port> {
    let (ip, number) = (listed.address.parse::<IpAddr>(), listed.service.parse());
    let address = ip.ok().zip(number.ok()).map(SocketAddr::from);
    let known = address.zip(portal::named(&listed.transport));
    let Some((address, transport)) = known.filter(|(address, _)| !address.ip().is_unspecified())
    else {
        tracing::error!(
            transport = listed.transport,
            address = listed.address,
            "portal that no host can reach"
        );
        return None;
    };
    Some(Port { id: listed.portal_id, portal: Portal { transport, address } })
}
