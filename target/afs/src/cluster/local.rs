//! The cluster as one reactor sees it: its handles to replicas, leaders and peers, made when first needed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use afs_decisions::NodeId;
use afs_env::{BufferPool, SystemClock};
use afs_reactor::{Local, RingDisk};
use afs_store::ReplicaId;
use afs_volume::{Host, Leader, LeaderState, ReplicaServer, ReplicaState};
use uuid::Uuid;

use super::Cluster;
use super::control::ControlSender;
use super::link::{PeerLink, Peers};
use super::wire::Service;
use crate::disks::Attached;

/// A replica on this reactor.
pub type Server = ReplicaServer<RingDisk, SystemClock>;

/// See the module. Clones are the same.
#[derive(Clone)]
pub struct LocalHost(Rc<Inner>);

struct Inner {
    cluster: Arc<Cluster>,
    local: Local,
    clock: SystemClock,
    peers: Peers,
    /// Kept with the handle to its disk, so that this is not made anew each time.
    servers: RefCell<HashMap<Uuid, (ReplicaState, Server, Attached)>>,
    leaders: RefCell<HashMap<Uuid, (LeaderState, Leader<LocalHost>)>>,
}

thread_local! {
    /// A reactor is a thread; a process has one cluster.
    static HERE: RefCell<Option<LocalHost>> = const { RefCell::new(None) };
}

impl LocalHost {
    /// That of this reactor.
    pub fn of(cluster: &Arc<Cluster>, local: &Local) -> LocalHost {
        HERE.with_borrow_mut(|here| match here {
            Some(host) if Arc::ptr_eq(&host.0.cluster, cluster) => host.clone(),
            other => {
                let host = LocalHost(Rc::new(Inner {
                    cluster: Arc::clone(cluster),
                    local: local.clone(),
                    clock: SystemClock,
                    peers: Peers::new(cluster, local),
                    servers: RefCell::default(),
                    leaders: RefCell::default(),
                }));
                *other = Some(host.clone());
                host
            }
        })
    }

    /// Lets go of everything; called on each reactor before it ends.
    pub fn close(cluster: &Arc<Cluster>, local: &Local) {
        let host = LocalHost::of(cluster, local);
        host.0.peers.close();
        host.0.servers.borrow_mut().clear();
        host.0.leaders.borrow_mut().clear();
        HERE.with_borrow_mut(Option::take);
    }

    /// The cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.0.cluster
    }

    /// The reactor.
    pub fn reactor(&self) -> &Local {
        &self.0.local
    }

    /// A replica on this node, from this reactor.
    pub fn server(&self, replica: Uuid) -> Option<Server> {
        let held = self.0.cluster.held(replica)?;
        if let Some((state, server, _)) = self.0.servers.borrow().get(&replica)
            && state.same_as(&held.state)
        {
            return Some(server.clone());
        }
        let attached = held.disk.attach(&self.0.local)?;
        let store = attached.store().replica(ReplicaId::from(replica))?;
        let pool = self.0.local.pool().clone();
        let server = ReplicaServer::new(&held.state, store, self.0.clock, pool);
        self.0.servers.borrow_mut().insert(replica, (held.state, server.clone(), attached));
        Some(server)
    }

    /// The leader with this state, from this reactor.
    pub fn leader(&self, volume: Uuid, state: &LeaderState) -> Leader<LocalHost> {
        let mut leaders = self.0.leaders.borrow_mut();
        match leaders.get(&volume) {
            Some((known, leader)) if known.same_as(state) => leader.clone(),
            _ => {
                let leader = Leader::new(state, self.clone());
                leaders.insert(volume, (state.clone(), leader.clone()));
                leader
            }
        }
    }

    /// The leader of a volume, if it is on this node.
    pub fn leading(&self, volume: Uuid) -> Option<Leader<LocalHost>> {
        let state = self.0.cluster.led(volume)?;
        Some(self.leader(volume, &state))
    }

    /// Tries to reach a node, if nothing does so already.
    pub fn probe(&self, node: NodeId) {
        self.0.peers.probe(node);
    }

    /// The way to a volume on another node.
    pub fn volume_link(&self, node: NodeId, volume: Uuid) -> PeerLink {
        self.0.peers.link(node, Service::Volume(volume))
    }
}

impl Host for LocalHost {
    type Disk = RingDisk;
    type Clock = SystemClock;
    type Link = PeerLink;
    type Control = ControlSender;

    fn node(&self) -> NodeId {
        self.0.cluster.id()
    }

    fn clock(&self) -> &SystemClock {
        &self.0.clock
    }

    fn pool(&self) -> &BufferPool {
        self.0.local.pool()
    }

    fn local(&self, replica: Uuid) -> Option<Server> {
        self.server(replica)
    }

    fn link(&self, node: NodeId, replica: Uuid) -> PeerLink {
        self.0.peers.link(node, Service::Replica(replica))
    }

    fn control(&self) -> &ControlSender {
        self.0.cluster.control()
    }
}
