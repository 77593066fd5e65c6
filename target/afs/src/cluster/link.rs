//! The way to another node, from one reactor: a controller of its peers' subsystem with one I/O queue, connected when first
//! needed and again after it broke.
//!
//! RDMA is tried before TCP ([`Cluster::ways`]). Where only TCP could be connected, RDMA is tried again while that is used, and
//! takes over without a call being lost.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use afs_decisions::NodeId;
use afs_env::{Answer, Buffer, HEADER_BYTES, Link, LinkError};
use afs_fabric::HostError;
use afs_fabric::host::HostData;
use afs_nvme::Sqe;
use afs_reactor::Local;
use afs_volume::Gone;
use tokio::sync::Notify;
use tokio::time::Instant;
use zerocopy::IntoBytes;

use super::Cluster;
use super::dial::{Open, dial, retire};
use super::wire::{self, Service, ServiceName};
use crate::metrics::io::QueueMetrics;
use crate::portal::Portal;

/// Between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection with calls but no answer for this long is given up.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a better way is tried while another one is used.
const BETTER: Duration = Duration::from_secs(2);

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
    /// An attempt to connect has ended.
    attempted: Notify,
    pause: Cell<Duration>,
    /// It was said that it is not reached, and why.
    told: Cell<bool>,
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
                attempted: Notify::new(),
                pause: Cell::new(FIRST_PAUSE),
                told: Cell::new(false),
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
    fn is_settled(&self) -> bool {
        match &*self.peer.state.borrow() {
            // It may have ended while nothing was called.
            State::Open(open) => open.queue.closed().is_none(),
            State::Connecting => false,
            State::Closed(until) => until.is_some_and(|until| Instant::now() < until),
        }
    }

    async fn settle(&self) {
        self.peer.settle().await;
    }

    async fn call(
        &self,
        header: [u8; HEADER_BYTES],
        data: Option<Buffer>,
        reply_max: usize,
    ) -> Result<Answer, LinkError> {
        self.call_for(&|| false, header, data, reply_max).await
    }
}

impl PeerLink {
    /// As [`call`](Link::call), for somebody who may be gone when its turn comes: then nothing is sent, and the peer counts as
    /// [`LinkError::Unreachable`]. It may have waited for the number of the service, and for its turn in a full queue.
    pub async fn call_for(
        &self,
        gone: Gone<'_>,
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
        let (cqe, data) = self.peer.submit(&open, gone, sqe, data).await?;
        let status = wire::code(cqe.status())?;
        let data = data.filter(|_| status == 0).map(|data| data.freeze());
        Ok(Answer { status, result: cqe.result().to_le_bytes(), data })
    }

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
        let attached = self.peer.submit(open, &|| false, sqe, HostData::Out(buffer.freeze())).await;
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
struct Outstanding<'a> {
    peer: &'a Peer,
    open: &'a Rc<Open>,
    ended: bool,
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        let Outstanding { peer, open, ended } = self;
        peer.outstanding.set(peer.outstanding.get() - 1);
        // Many calls may be given up at once: it is said for the first one.
        if !*ended && peer.answered.get().elapsed() > SILENCE && peer.uses(open) {
            tracing::warn!(node = %peer.node, "a peer is silent: its connection is given up");
            peer.broke(open);
        }
    }
}

impl Peer {
    /// Waits for the end of the attempt to connect that is under way, or of the first one.
    async fn settle(self: &Rc<Self>) {
        let ended = self.attempted.notified();
        // Nobody else may have begun one.
        if self.open().is_none() && matches!(&*self.state.borrow(), State::Connecting) {
            ended.await;
        }
    }

    /// The connection, if there is one; otherwise one is being made.
    fn open(self: &Rc<Self>) -> Option<Rc<Open>> {
        let mut state = self.state.borrow_mut();
        match &*state {
            State::Open(open) if open.queue.closed().is_none() => return Some(Rc::clone(open)),
            // It broke while nobody used it: its process may have been followed by another one long ago. Whether the node is
            // reached is told by the next attempt, not by this.
            State::Open(_) => {}
            State::Connecting => return None,
            State::Closed(until) if until.is_some_and(|until| Instant::now() < until) => {
                return None;
            }
            State::Closed(_) => {}
        }
        *state = State::Connecting;
        drop(state);
        let peer = Rc::clone(self);
        self.local.spawn_local(peer.connect());
        None
    }

    async fn connect(self: Rc<Self>) {
        match self.cluster.ways(self.node) {
            Ok(ways) => match self.first_of(&ways).await {
                Ok(open) => self.connected(open),
                Err(error) => self.not_reached(error.as_ref()),
            },
            Err(why) => self.not_reached(&why),
        }
        self.attempted.notify_waiters();
    }

    /// The first of these ways that can be connected.
    async fn first_of(&self, ways: &[Portal]) -> Result<Rc<Open>, Box<dyn std::error::Error>> {
        let mut last: Box<dyn std::error::Error> = "no way is left".into();
        for way in ways {
            match dial(&self.cluster, &self.local, *way).await {
                Ok(open) => return Ok(Rc::new(open)),
                Err(error) => {
                    tracing::debug!(node = %self.node, %way, %error, "a peer is not reached by this way");
                    last = error.into();
                }
            }
        }
        Err(last)
    }

    fn connected(self: &Rc<Self>, open: Rc<Open>) {
        tracing::info!(node = %self.node, way = %open.way, "connected to a peer");
        self.pause.set(FIRST_PAUSE);
        self.told.set(false);
        self.answered.set(Instant::now());
        let best = self.cluster.ways(self.node).is_ok_and(|ways| ways.first() == Some(&open.way));
        let used = Rc::downgrade(&open);
        *self.state.borrow_mut() = State::Open(open);
        self.cluster.reaches(self.node, true);
        if !best {
            let peer = Rc::downgrade(self);
            self.local.spawn_local(look_for_better(peer, used));
        }
    }

    fn not_reached(&self, why: &dyn std::error::Error) {
        // Once each time that it is away: it is tried over and over.
        if !self.told.replace(true) {
            tracing::warn!(node = %self.node, %why, "a peer is not reached");
        }
        self.closed_for_a_while();
    }

    /// Puts a better connection in the place of `used`, if that is what is used still.
    fn replace(self: &Rc<Self>, used: Rc<Open>, better: Rc<Open>) {
        let replaced = if self.uses(&used) {
            self.connected(better);
            used
        } else {
            better
        };
        self.local.spawn_local(retire(replaced));
    }

    fn uses(&self, open: &Rc<Open>) -> bool {
        matches!(&*self.state.borrow(), State::Open(used) if Rc::ptr_eq(used, open))
    }

    fn closed_for_a_while(&self) {
        let pause = self.pause.get();
        self.pause.set((pause * 2).min(LONGEST_PAUSE));
        *self.state.borrow_mut() = State::Closed(Some(Instant::now() + pause));
        self.cluster.reaches(self.node, false);
    }

    /// A connection is of no use any more. It may be one that was replaced.
    fn broke(&self, open: &Rc<Open>) {
        if self.uses(open) {
            self.closed_for_a_while();
        }
    }

    async fn submit(
        self: &Rc<Self>,
        open: &Rc<Open>,
        gone: Gone<'_>,
        sqe: Sqe,
        data: HostData,
    ) -> Result<(afs_nvme::Cqe, Option<afs_reactor::BufferMut>), LinkError> {
        let begun = Instant::now();
        if self.outstanding.get() == 0 {
            self.answered.set(begun);
        }
        self.outstanding.set(self.outstanding.get() + 1);
        let mut outstanding = Outstanding { peer: self, open, ended: false };
        let call = self.figures.begin();
        let bytes = if let HostData::Out(data) = &data { data.len() as u64 } else { 0 };
        let submitted = open.queue.submit_unless(gone, sqe, data).await;
        outstanding.ended = true;
        drop(outstanding);
        if matches!(submitted, Err(HostError::Withdrawn)) {
            return Err(LinkError::Unreachable);
        }
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
                self.broke(open);
                Err(LinkError::Lost)
            }
        }
    }
}

/// Tries the ways that are better than the one that is used, as long as that is used.
async fn look_for_better(peer: Weak<Peer>, used: Weak<Open>) {
    loop {
        tokio::time::sleep(BETTER).await;
        let (Some(peer), Some(used)) = (peer.upgrade(), used.upgrade()) else { return };
        if !peer.uses(&used) {
            return;
        }
        let mut ways = peer.cluster.ways(peer.node).unwrap_or_default();
        ways.truncate(ways.iter().position(|known| *known == used.way).unwrap_or(0));
        if let Ok(better) = peer.first_of(&ways).await {
            peer.replace(used, better);
            return;
        }
    }
}
