//! A queue pair as its service sees it: who is at the other end, what was negotiated, how to close it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use afs_reactor::clock::boottime_ns;
use afs_reactor::verbs::CmWatch;
use afs_reactor::{Buffer, BufferMut, BufferPool, Local};
use tokio::net::TcpStream;

use super::admission::Admission;
use super::close::{QueueCloser, Signals};
use super::request::TransferError;
use crate::codec::Digests;
use crate::socket;

/// What is known of a host may be this old before the system is asked again (CONFORMANCE M-45).
const STALE_NS: u64 = 10_000_000;
/// Between two looks at a connection manager that is about to say something.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What carries a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// NVMe/TCP.
    Tcp,
    /// NVMe/RDMA: InfiniBand, RoCE or iWARP.
    Rdma,
}

impl Transport {
    /// As in `tcp://` and as nvme-cli's `--transport` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Rdma => "rdma",
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a successful Connect settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueParameters {
    /// Queue id; 0 is the admin queue.
    pub qid: u16,
    /// SQSIZE of the Connect: entries less one.
    pub sqsize: u16,
    /// False when the host disabled SQ flow control (CATTR bit 2).
    pub flow_control: bool,
    /// Whether this is an admin queue.
    pub admin: bool,
}

/// What a queue pair has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Command capsules received.
    pub commands: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Receive calls to the kernel; none over RDMA.
    pub receive_calls: u64,
    /// Send calls to the kernel, or doorbells of an RDMA device.
    pub send_calls: u64,
    /// R2Ts sent, or RDMA READs.
    pub r2ts: u64,
    /// Times that the socket was not read because the pool was empty; none over RDMA.
    pub pool_waits: u64,
    /// Data digests that were wrong.
    pub digest_errors: u64,
}

/// A queue pair; cheap to clone, bound to its reactor.
#[derive(Clone)]
pub struct Queue(Rc<QueueState>);

/// Where the transfer of one slot stands, between its command and the connection.
pub(super) enum TransferSlot {
    Idle,
    /// R2T sent, or about to be.
    Waiting(Option<Waker>),
    Done(Result<Buffer, TransferError>),
}

/// What is known of a connection when it begins.
pub(super) struct Origin {
    pub(super) way: Way,
    /// The host's address, and ours.
    pub(super) addresses: (SocketAddr, SocketAddr),
    /// For I/O, and for admin queues.
    pub(super) pools: (BufferPool, BufferPool),
    pub(super) signals: Arc<Signals>,
    pub(super) admission: Option<Admission>,
    pub(super) stall_timeout: Duration,
    pub(super) in_capsule_bytes: u32,
}

/// Where it shows that a host has given its connection up.
pub(super) enum Way {
    Tcp(Rc<TcpStream>),
    Rdma(CmWatch),
}

/// What is known of a host at this moment.
#[derive(PartialEq, Eq)]
enum Presence {
    /// It had not given the connection up a moment ago.
    Here,
    Gone,
    /// Something happened to some connection, and it is not yet known to which.
    Unclear,
}

struct QueueState {
    transport: Transport,
    /// `None` when the connection is gone.
    way: RefCell<Option<Way>>,
    /// When the system was last asked whether the host is there.
    asked_ns: Cell<u64>,
    /// Whether nobody reads from the connection, so what the reactor hears of it goes unheard.
    deaf: Cell<bool>,
    peer: SocketAddr,
    local: SocketAddr,
    pool: BufferPool,
    admin_pool: BufferPool,
    in_capsule_bytes: u32,
    signals: Arc<Signals>,
    admission: RefCell<Option<Admission>>,
    parameters: Cell<Option<QueueParameters>>,
    stall_timeout: Cell<Duration>,
    digests: Cell<Digests>,
    counters: Cell<QueueCounters>,
    transfers: RefCell<Vec<TransferSlot>>,
    wanted: RefCell<Vec<(u16, BufferMut)>>,
    over: Cell<bool>,
}

impl Queue {
    pub(super) fn new(origin: Origin) -> Queue {
        let transport = match origin.way {
            Way::Tcp(_) => Transport::Tcp,
            Way::Rdma(_) => Transport::Rdma,
        };
        Queue(Rc::new(QueueState {
            transport,
            way: RefCell::new(Some(origin.way)),
            asked_ns: Cell::new(0),
            deaf: Cell::new(false),
            peer: origin.addresses.0,
            local: origin.addresses.1,
            pool: origin.pools.0,
            admin_pool: origin.pools.1,
            in_capsule_bytes: origin.in_capsule_bytes,
            signals: origin.signals,
            admission: RefCell::new(origin.admission),
            parameters: Cell::new(None),
            stall_timeout: Cell::new(origin.stall_timeout),
            digests: Cell::default(),
            counters: Cell::default(),
            transfers: RefCell::default(),
            wanted: RefCell::default(),
            over: Cell::new(false),
        }))
    }

    /// What carries this queue pair.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.0.transport
    }

    /// Longest in-capsule data of I/O commands in bytes, for IOCCSZ (CONFORMANCE T-22, R-12).
    #[must_use]
    pub fn in_capsule_bytes(&self) -> u32 {
        self.0.in_capsule_bytes
    }

    /// To be called when a Connect succeeds, before its completion is returned. From then on the queue takes
    /// as many commands as the Connect said, and it no longer counts as half-open.
    pub fn set_connected(&self, parameters: QueueParameters) {
        self.0.parameters.set(Some(parameters));
        self.0.admission.take();
    }

    /// What [`Queue::set_connected`] said.
    #[must_use]
    pub fn parameters(&self) -> Option<QueueParameters> {
        self.0.parameters.get()
    }

    /// Sets the time after which a host that stopped inside of a PDU is given up; the larger of 30 s and twice
    /// KATO is right (CONFORMANCE T-89).
    pub fn set_stall_timeout(&self, timeout: Duration) {
        self.0.stall_timeout.set(timeout);
    }

    /// A handle that ends this queue pair, for any thread.
    #[must_use]
    pub fn closer(&self) -> QueueCloser {
        QueueCloser::new(Arc::clone(&self.0.signals))
    }

    /// Address of the host.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// Our address that the host connected to.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.0.local
    }

    /// The digests of this connection.
    #[must_use]
    pub fn digests(&self) -> Digests {
        self.0.digests.get()
    }

    /// What the queue pair has done so far.
    #[must_use]
    pub fn counters(&self) -> QueueCounters {
        self.0.counters.get()
    }

    /// Where buffers for this queue come from. Admin queues and those not yet connected have a small pool of
    /// their own per reactor, so that keep-alive and logs go on while I/O holds all other buffers.
    #[must_use]
    pub fn pool(&self) -> &BufferPool {
        match self.0.parameters.get() {
            Some(QueueParameters { admin: false, .. }) => &self.0.pool,
            _ => &self.0.admin_pool,
        }
    }

    /// Whether the host is not known to be there: it has given the connection up, or may have.
    ///
    /// A process that is stopped, or does not get the processor, for a while finds commands in its sockets of which the host has
    /// long asked another node, and then changed the same blocks again. So before something is done that others may have done
    /// meanwhile, this is asked (CONFORMANCE M-45): it tells how things are, where the reactor, the one of `local`, only knows how
    /// they were when it last turned to the system. Costs a look at the clock; a system call if that was more than 10 ms ago, or if
    /// the connection is not read because a command waits for a buffer.
    #[must_use]
    pub fn may_be_given_up(&self, local: &Local) -> bool {
        self.presence(local) != Presence::Here
    }

    /// As [`may_be_given_up`](Queue::may_be_given_up), but waits until it is clear; true when the host is there.
    pub async fn is_host_there(&self, local: &Local) -> bool {
        loop {
            match self.presence(local) {
                Presence::Here => return true,
                Presence::Gone => return false,
                Presence::Unclear => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    fn presence(&self, local: &Local) -> Presence {
        let state = &*self.0;
        let way = state.way.borrow();
        let Some(way) = way.as_ref().filter(|_| state.signals.close_wanted().is_none()) else {
            return Presence::Gone;
        };
        let now = boottime_ns();
        let asked = state.asked_ns.get();
        let known = if state.deaf.get() { asked } else { asked.max(local.looked_ns()) };
        if now.saturating_sub(known) <= STALE_NS {
            return Presence::Here;
        }
        local.counters().count_socket_calls(1);
        match way {
            Way::Tcp(stream) if socket::is_closed_by_peer_now(stream) => return Presence::Gone,
            Way::Tcp(_) => {}
            Way::Rdma(watch) if !watch.is_quiet() => return Presence::Unclear,
            // What it said last may have been about this connection.
            Way::Rdma(_) if state.signals.close_wanted().is_some() => return Presence::Gone,
            Way::Rdma(_) => {}
        }
        state.asked_ns.set(now);
        Presence::Here
    }

    /// The connection is not read from now on, or is again.
    pub(super) fn set_deaf(&self, deaf: bool) {
        self.0.deaf.set(deaf);
    }

    pub(super) fn stall_timeout(&self) -> Duration {
        self.0.stall_timeout.get()
    }

    pub(super) fn set_digests(&self, digests: Digests) {
        self.0.digests.set(digests);
        self.greeted();
    }

    /// The transport's own handshake is over.
    pub(super) fn greeted(&self) {
        if let Some(admission) = self.0.admission.borrow().as_ref() {
            admission.greeted();
        }
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut QueueCounters)) {
        let mut counters = self.0.counters.get();
        change(&mut counters);
        self.0.counters.set(counters);
    }

    /// Asks the connection for the data of `slot`; it sends the R2T in this round.
    pub(super) fn request_transfer(&self, slot: u16, buffer: BufferMut) {
        if self.0.over.get() {
            return self.set_transfer(slot, TransferSlot::Done(Err(TransferError::CLOSED)));
        }
        self.set_transfer(slot, TransferSlot::Waiting(None));
        self.0.wanted.borrow_mut().push((slot, buffer));
        // The command may run in a task of its own, which the connection does not poll.
        self.0.signals.wake_slot(slot);
    }

    /// Ends all transfers and gives back their buffers: the connection is gone, but handles of the queue and
    /// commands in tasks of their own may stay.
    pub(super) fn end(&self) {
        self.0.over.set(true);
        self.0.way.take();
        self.0.wanted.borrow_mut().clear();
        let transfers = std::mem::take(&mut *self.0.transfers.borrow_mut());
        for (slot, transfer) in (0..).zip(transfers) {
            if let TransferSlot::Waiting(waker) = transfer {
                self.set_transfer(slot, TransferSlot::Done(Err(TransferError::CLOSED)));
                waker.into_iter().for_each(Waker::wake);
            }
        }
        self.0.admission.take();
    }

    /// The next transfer that a command asked for.
    pub(super) fn next_wanted(&self) -> Option<(u16, BufferMut)> {
        self.0.wanted.borrow_mut().pop()
    }

    /// The data of `slot` if it has come; else `waker` is called when it has.
    pub(super) fn take_transfer(
        &self,
        slot: u16,
        waker: &Waker,
    ) -> Option<Result<Buffer, TransferError>> {
        let mut transfers = self.0.transfers.borrow_mut();
        let state = transfers.get_mut(usize::from(slot))?;
        match std::mem::replace(state, TransferSlot::Idle) {
            TransferSlot::Done(result) => Some(result),
            TransferSlot::Waiting(_) => {
                *state = TransferSlot::Waiting(Some(waker.clone()));
                None
            }
            TransferSlot::Idle => None,
        }
    }

    /// Hands the data of `slot` to its command.
    pub(super) fn finish_transfer(&self, slot: u16, result: Result<Buffer, TransferError>) {
        let mut transfers = self.0.transfers.borrow_mut();
        let Some(state) = transfers.get_mut(usize::from(slot)) else { return };
        let before = std::mem::replace(state, TransferSlot::Done(result));
        drop(transfers);
        if let TransferSlot::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }

    /// Forgets what is left of the transfer of a slot whose command is over.
    pub(super) fn clear_transfer(&self, slot: u16) {
        if let Some(state) = self.0.transfers.borrow_mut().get_mut(usize::from(slot)) {
            *state = TransferSlot::Idle;
        }
    }

    fn set_transfer(&self, slot: u16, state: TransferSlot) {
        let mut transfers = self.0.transfers.borrow_mut();
        let index = usize::from(slot);
        if transfers.len() <= index {
            transfers.resize_with(index + 1, || TransferSlot::Idle);
        }
        transfers[index] = state;
    }
}
