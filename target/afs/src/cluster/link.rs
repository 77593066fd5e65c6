//! The way to another node, from one reactor: a controller of its peers' subsystem with one I/O queue, connected when first
//! needed and again after it broke.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use afs_decisions::NodeId;
use afs_env::{Answer, Buffer, HEADER_BYTES, Link, LinkError};
use afs_fabric::host::{ControllerOptions, HostController, HostData, HostError, HostQueue};
use afs_nvme::{HostId, Nqn, Sqe};
use afs_reactor::Local;
use tokio::time::Instant;
use zerocopy::IntoBytes;

use super::Cluster;
use super::wire::{self, Service, ServiceName};
use crate::metrics::io::QueueMetrics;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(800);
/// Between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection with calls but no answer for this long is given up.
const SILENCE: Duration = Duration::from_secs(2);
/// Calls outstanding on one connection.
const ENTRIES: u16 = 512;

/// A connection that works.
struct Open {
    queue: HostQueue,
    _controller: HostController,
    services: RefCell<HashMap<Service, u32>>,
}

enum State {
    /// Not before this moment again.
    Closed(Option<Instant>),
    Connecting,
    Open(Rc<Open>),
}

/// All calls of one reactor to one node.
struct Peer {
    node: NodeId,
    cluster: Arc<Cluster>,
    local: Local,
    state: RefCell<State>,
    pause: Cell<Duration>,
    /// Which of the node's addresses is tried next.
    turn: Cell<usize>,
    answered: Cell<Instant>,
    outstanding: Cell<usize>,
    figures: Arc<QueueMetrics>,
}

/// The peers of one reactor.
pub struct Peers {
    cluster: Arc<Cluster>,
    local: Local,
    known: RefCell<HashMap<NodeId, Rc<Peer>>>,
}

impl Peers {
    /// None yet.
    pub fn new(cluster: &Arc<Cluster>, local: &Local) -> Peers {
        Peers { cluster: Arc::clone(cluster), local: local.clone(), known: RefCell::default() }
    }

    /// The way to a service of a node.
    pub fn link(&self, node: NodeId, service: Service) -> PeerLink {
        let mut known = self.known.borrow_mut();
        let peer = known.entry(node).or_insert_with(|| {
            Rc::new(Peer {
                node,
                cluster: Arc::clone(&self.cluster),
                local: self.local.clone(),
                state: RefCell::new(State::Closed(None)),
                pause: Cell::new(FIRST_PAUSE),
                turn: Cell::new(0),
                answered: Cell::new(Instant::now()),
                outstanding: Cell::new(0),
                figures: self.cluster.calls(node, self.local.index()),
            })
        });
        PeerLink { peer: Rc::clone(peer), service }
    }

    /// Begins to connect to a node if there is no connection.
    pub fn probe(&self, node: NodeId) {
        // The service does not matter: nothing is called.
        if self.link(node, Service::Volume(uuid::Uuid::nil())).peer.open().is_some() {
            self.cluster.reaches(node, true);
        }
    }

    /// Ends all connections.
    pub fn close(&self) {
        for peer in self.known.borrow_mut().drain() {
            *peer.1.state.borrow_mut() = State::Closed(None);
        }
    }
}

/// The way to one service of one node.
#[derive(Clone)]
pub struct PeerLink {
    peer: Rc<Peer>,
    service: Service,
}

impl Link for PeerLink {
    async fn call(
        &self,
        header: [u8; HEADER_BYTES],
        data: Option<Buffer>,
        reply_max: usize,
    ) -> Result<Answer, LinkError> {
        let open = self.peer.open().ok_or(LinkError::Unreachable)?;
        let known = open.services.borrow().get(&self.service).copied();
        let service = match known {
            Some(service) => service,
            None => self.attach(&open).await?,
        };
        let (opcode, data) = match (data, reply_max) {
            (Some(data), _) => (wire::CALL_OUT, HostData::Out(data)),
            (None, 0) => (wire::CALL, HostData::None),
            (None, most) => {
                let buffer = self.peer.local.pool().try_alloc(most);
                (wire::CALL_IN, HostData::In(buffer.ok_or(LinkError::Unreachable)?))
            }
        };
        let sqe = wire::command(opcode, service, &header);
        let (cqe, data) = self.peer.submit(&open, sqe, data).await?;
        let status = wire::code(cqe.status())?;
        let data = data.filter(|_| status == 0).map(|data| data.freeze());
        Ok(Answer { status, result: cqe.result().to_le_bytes(), data })
    }
}

impl PeerLink {
    /// Asks for the number of the service on this connection.
    async fn attach(&self, open: &Rc<Open>) -> Result<u32, LinkError> {
        let name = ServiceName::from(self.service);
        let mut buffer = self
            .peer
            .local
            .pool()
            .try_alloc(size_of::<ServiceName>())
            .ok_or(LinkError::Unreachable)?;
        buffer.copy_from_slice(name.as_bytes());
        let sqe = wire::command(wire::ATTACH, 0, &[0; HEADER_BYTES]);
        let attached = self.peer.submit(open, sqe, HostData::Out(buffer.freeze())).await;
        // Whatever became of it, the call itself was not sent.
        let (cqe, _) = attached.map_err(|_| LinkError::Unreachable)?;
        if wire::code(cqe.status()) != Ok(0) {
            return Err(LinkError::Unreachable);
        }
        open.services.borrow_mut().insert(self.service, cqe.dw0());
        Ok(cqe.dw0())
    }
}

/// A call that nobody waits for any more was not answered in time.
struct Outstanding<'a>(&'a Rc<Peer>, bool);

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        let Outstanding(peer, ended) = self;
        peer.outstanding.set(peer.outstanding.get() - 1);
        if !*ended && peer.answered.get().elapsed() > SILENCE {
            tracing::warn!(node = %peer.node, "a peer is silent: its connection is given up");
            peer.broke();
        }
    }
}

impl Peer {
    /// The connection, if there is one; otherwise one is being made.
    fn open(self: &Rc<Self>) -> Option<Rc<Open>> {
        let mut state = self.state.borrow_mut();
        match &*state {
            State::Open(open) if open.queue.closed().is_none() => return Some(Rc::clone(open)),
            State::Open(_) => {
                drop(state);
                self.broke();
                return None;
            }
            State::Connecting => return None,
            State::Closed(until) if until.is_some_and(|until| Instant::now() < until) => {
                return None;
            }
            State::Closed(_) => {}
        }
        *state = State::Connecting;
        drop(state);
        let peer = Rc::clone(self);
        self.local.spawn_local(async move { peer.connect().await });
        None
    }

    async fn connect(self: Rc<Self>) {
        let addresses = self.cluster.addresses(self.node);
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let made = match addresses.get(turn % addresses.len().max(1)) {
            Some(address) => self.try_connect(*address).await,
            None => Err(HostError::Unusable("the conductor named no address of this node")),
        };
        match made {
            Ok(open) => {
                self.pause.set(FIRST_PAUSE);
                self.answered.set(Instant::now());
                *self.state.borrow_mut() = State::Open(Rc::new(open));
                self.cluster.reaches(self.node, true);
            }
            Err(error) => {
                tracing::debug!(node = %self.node, %error, "a peer is not reached");
                self.closed_for_a_while();
            }
        }
    }

    async fn try_connect(&self, address: std::net::SocketAddr) -> Result<Open, HostError> {
        let unusable = |_| HostError::Unusable("a name for the peers' subsystem");
        let cluster =
            self.cluster.cluster().ok_or(HostError::Unusable("the cluster is not known yet"))?;
        let own = format!("{}:{}", wire::PEERS_NQN, self.cluster.id());
        let mut options = ControllerOptions::new(
            Nqn::new(wire::PEERS_NQN).map_err(unusable)?,
            Nqn::new(&own).map_err(unusable)?,
            HostId(cluster.into_bytes()),
        );
        options.kato_ms = 5000;
        options.queue.entries = ENTRIES;
        options.queue.connect_timeout = CONNECT;
        let connected = async {
            let controller = HostController::connect(address, &self.local, options).await?;
            let queue = controller.io_queues(1).await?.pop();
            let queue = queue.ok_or(HostError::Unusable("a peer grants no queue"))?;
            Ok(Open { queue, _controller: controller, services: RefCell::default() })
        };
        let late = |_| HostError::Timeout("connecting to a peer");
        tokio::time::timeout(CONNECT, connected).await.map_err(late)?
    }

    fn closed_for_a_while(&self) {
        let pause = self.pause.get();
        self.pause.set((pause * 2).min(LONGEST_PAUSE));
        *self.state.borrow_mut() = State::Closed(Some(Instant::now() + pause));
        self.cluster.reaches(self.node, false);
    }

    /// The connection is of no use any more.
    fn broke(&self) {
        if matches!(*self.state.borrow(), State::Open(_)) {
            self.closed_for_a_while();
        }
    }

    async fn submit(
        self: &Rc<Self>,
        open: &Rc<Open>,
        sqe: Sqe,
        data: HostData,
    ) -> Result<(afs_nvme::Cqe, Option<afs_reactor::BufferMut>), LinkError> {
        let begun = Instant::now();
        if self.outstanding.get() == 0 {
            self.answered.set(begun);
        }
        self.outstanding.set(self.outstanding.get() + 1);
        let mut outstanding = Outstanding(self, false);
        let call = self.figures.begin();
        let bytes = if let HostData::Out(data) = &data { data.len() as u64 } else { 0 };
        let submitted = open.queue.submit(sqe, data).await;
        outstanding.1 = true;
        drop(outstanding);
        let now = Instant::now();
        let nanos = u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX);
        call.record(bytes, nanos, submitted.is_ok());
        match submitted {
            Ok(answer) => {
                self.answered.set(now);
                Ok(answer)
            }
            Err(error) => {
                tracing::debug!(node = %self.node, %error, "a call to a peer was lost");
                self.broke();
                Err(LinkError::Lost)
            }
        }
    }
}
