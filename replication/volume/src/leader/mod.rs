//! The leader of a volume: orders writes, serves reads, keeps replicas equal.
//!
//! [`LeaderState`] is shared by all reactors of a node; each reactor has a [`Leader`] with its own ways to the replicas. One of
//! them, the home, runs [`Leader::run`]: it claims the volume, seals the replicas, renews leases, makes ranges equal, feeds
//! replicas that came back.
//!
//! Invariants, each named with its rule of DESIGN 5:
//! - a write returns success when every replica that the newest configuration known here calls in sync has it, and every learner
//!   whose admission was asked for (1, 2);
//! - nothing is sent with an epoch before every in-sync replica of every shard promised it (3), and none of them lost what it had;
//! - a read returns what was read while leases of all in-sync replicas of its shard were valid at the end of the read (4), from
//!   blocks with no write open and nothing pending, also at the end (5, 6);
//! - a message whose fate is unknown is never sent again in the same epoch, so it cannot land behind what follows it;
//! - what a host asked for before another leader may have served is not carried out after that: the host may have had it done
//!   there, and overwritten since (10); and what a learner got before that is worth nothing (8);
//! - the number of a write stays open until the write is on all replicas, or its range was made equal.

mod blank;
mod call;
mod commit;
mod control;
mod entrance;
mod equalise;
mod io;
mod pending;
mod resync;
mod seal;
mod tracker;
mod view;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use afs_decisions::{NodeId, VolumeConfig};
use afs_env::{BufferPool, Clock, Disk, Link};
use futures_util::future::{Either, select};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::control::Control;
use crate::params::Params;
use crate::range_locks::RangeLocks;
use crate::replica::ReplicaServer;
use entrance::Entrance;
pub use io::Gone;
use pending::Pending;
use tracker::{Sequence, Tracker};
pub use view::{MemberView, Phase, VolumeView};
use view::{Port, View};

/// Why an I/O failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// Another node leads the volume now.
    #[error("another node leads the volume")]
    NotLeader,
    /// The volume could not serve for as long as an I/O waits.
    #[error("the volume does not serve: too few replicas are reachable")]
    Unavailable,
    /// The range ends after the last block.
    #[error("the range is outside the volume")]
    OutOfRange,
    /// A replica has no space for blocks that were never written.
    #[error("a replica has no space left")]
    Full,
    /// These blocks cannot be read or written.
    #[error("a disk reported an error for these blocks")]
    Media,
}

/// What a leader needs from the node that it runs on, on one reactor.
pub trait Host: Clone + 'static {
    /// The disks of local replicas.
    type Disk: Disk;
    /// The clock.
    type Clock: Clock;
    /// Ways to replicas on other nodes.
    type Link: Link;
    /// The conductor.
    type Control: Control;

    /// This node.
    fn node(&self) -> NodeId;
    /// The clock.
    fn clock(&self) -> &Self::Clock;
    /// Where buffers for copies come from.
    fn pool(&self) -> &BufferPool;
    /// A replica on this node.
    fn local(&self, replica: Uuid) -> Option<ReplicaServer<Self::Disk, Self::Clock>>;
    /// The way to a replica on another node.
    fn link(&self, node: NodeId, replica: Uuid) -> Self::Link;
    /// The conductor.
    fn control(&self) -> &Self::Control;
}

/// A write that failed to its host: its range may differ among the replicas.
struct Failed {
    sequence: Sequence,
    shard: usize,
    range: Range<u64>,
}

/// What the reactors share.
pub(crate) struct Shared {
    volume: Uuid,
    node: NodeId,
    process: u64,
    params: Params,
    entrance: Entrance,
    locks: RangeLocks,
    tracker: Tracker,
    view: Mutex<Arc<View>>,
    changes: watch::Sender<u64>,
    /// Per shard, what must be made equal.
    pending: Mutex<Arc<[Pending]>>,
    failed: Mutex<Vec<Failed>>,
    /// Shards whose replicas were not told yet that nothing is pending since they were sealed.
    unsettled: Mutex<BTreeSet<usize>>,
    /// Blocks of a chunk, the same on all replicas; 0 before one was sealed.
    chunk_blocks: AtomicU32,
    /// Number of the generation of writes that begin now.
    generation: AtomicU32,
    /// Writes since the last generation began.
    writes: AtomicU64,
    /// Our configuration may not be the newest.
    outdated: AtomicBool,
    /// A replica says that it is not: it promised a higher epoch, or this one to somebody else.
    outrun: AtomicBool,
    /// Somebody handed us a newer configuration.
    offer: Mutex<Option<VolumeConfig>>,
    /// Counts how often another leader may have served since this one did: what was begun before is not carried out after that.
    tenure: AtomicU64,
    /// Accusations that the conductor did not believe.
    denied: Mutex<control::Denials>,
    /// The control loop has something to look at.
    trouble: Notify,
    /// The equaliser has something to do.
    work: Notify,
    /// The leader gives up; nothing new begins.
    leaving: AtomicBool,
}

/// One volume's leader, shared by the reactors of its node. It does nothing until [`Leader::run`] runs on one of them.
#[derive(Clone)]
pub struct LeaderState(Arc<Shared>);

impl LeaderState {
    /// A leader on node `node`, which `config` calls the leader of its volume, in process `process`: a random number that no other
    /// process start has.
    pub fn new(config: &VolumeConfig, node: NodeId, process: u64, params: Params) -> LeaderState {
        let volume = config.volume;
        let view = Arc::new(View::nothing(volume, config.epoch));
        LeaderState(Arc::new(Shared {
            volume,
            node,
            process,
            params,
            entrance: Entrance::default(),
            locks: RangeLocks::default(),
            tracker: Tracker::new(params.window),
            view: Mutex::new(view),
            changes: watch::Sender::new(0),
            pending: Mutex::new(Arc::from([])),
            failed: Mutex::default(),
            unsettled: Mutex::default(),
            chunk_blocks: AtomicU32::new(0),
            generation: AtomicU32::new(1),
            writes: AtomicU64::new(0),
            outdated: AtomicBool::new(false),
            outrun: AtomicBool::new(false),
            offer: Mutex::default(),
            tenure: AtomicU64::new(0),
            denied: Mutex::default(),
            trouble: Notify::new(),
            work: Notify::new(),
            leaving: AtomicBool::new(false),
        }))
    }

    /// The conductor made a configuration known. One that is not newer than what is led by, as nodes are told again and again, is
    /// ignored: it would have a leader that waits for promises begin to wait anew.
    pub fn offer(&self, config: VolumeConfig) {
        if config.epoch <= self.0.view.lock().epoch() {
            return;
        }
        let mut offer = self.0.offer.lock();
        if offer.as_ref().is_none_or(|known| known.epoch < config.epoch) {
            *offer = Some(config);
            drop(offer);
            self.0.trouble.notify_one();
        }
    }

    /// Ends the leader in good order: what was begun is finished, then the leases are given back. [`Leader::run`] returns.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::Release);
        self.0.trouble.notify_one();
    }

    /// Whether `other` is the same leader.
    pub fn same_as(&self, other: &LeaderState) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Size in blocks; 0 before the volume was claimed.
    pub fn blocks(&self) -> u64 {
        self.0.view.lock().config.blocks
    }

    /// How it is, for people.
    pub fn view(&self) -> VolumeView {
        self.0.describe()
    }
}

/// A leader on one reactor; clones are handles to the same one.
pub struct Leader<H: Host> {
    inner: Rc<Inner<H>>,
}

type Ports<H> = Rc<[Rc<[Port<H>]>]>;

struct Inner<H: Host> {
    shared: Arc<Shared>,
    host: H,
    /// The ways to the replicas of the view with this number, by shard.
    ports: RefCell<(u64, Ports<H>)>,
}

impl<H: Host> Clone for Leader<H> {
    fn clone(&self) -> Self {
        Leader { inner: self.inner.clone() }
    }
}

impl<H: Host> Leader<H> {
    /// The leader on the reactor of `host`.
    pub fn new(state: &LeaderState, host: H) -> Leader<H> {
        let ports = RefCell::new((0, Rc::from([])));
        Leader { inner: Rc::new(Inner { shared: state.0.clone(), host, ports }) }
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    fn host(&self) -> &H {
        &self.inner.host
    }

    fn now(&self) -> u64 {
        self.inner.host.clock().now()
    }

    async fn pause(&self, duration: Duration) {
        self.inner.host.clock().sleep(duration).await;
    }

    /// Waits until the view is another one than `number`, for at most `duration`.
    async fn view_changed(&self, number: u64, duration: Duration) {
        let mut changes = self.shared().changes.subscribe();
        let changed = std::pin::pin!(changes.wait_for(|now| *now != number));
        let _ = select(changed, std::pin::pin!(self.pause(duration))).await;
    }

    /// Waits until the leader is over.
    async fn over(&self) {
        let mut changes = self.shared().changes.subscribe();
        // The sender is the leader's own.
        let _ = changes.wait_for(|_| self.view().phase == Phase::Over).await;
    }

    /// Waits for `future` or `duration`, whichever ends first. What is left of `future` is dropped.
    async fn within<T>(&self, duration: Duration, future: impl Future<Output = T>) -> Option<T> {
        let (future, pause) = (std::pin::pin!(future), std::pin::pin!(self.pause(duration)));
        match select(future, pause).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }
}
