//! The node as a member of its cluster: what it leads, which replicas it holds, and how it reaches the others.
//!
//! [`Cluster`] is shared by all threads. `volumes` tells it what the conductor wants; queue pairs of hosts find their way to a
//! volume through [`client`]; queue pairs of other nodes are served by [`peer_queue`]; [`link`] is the way to another node. Each
//! reactor has one [`local::LocalHost`] with its own handles.

pub mod client;
pub mod control;
mod dial;
mod figures;
pub mod link;
pub mod local;
pub mod peer_queue;
mod ways;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use afs_decisions::{NodeId, VolumeConfig};
use afs_env::Clock;
use afs_reactor::ReactorHandle;
use afs_store::ReplicaId;
use afs_volume::{LeaderState, Params, ReplicaState, VolumeView};
use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::backend::BackendSource;
use crate::disks::{ReplicaFailure, StoreDisk};
use crate::metrics::io::QueueMetrics;
use crate::portal::Portal;
use control::ControlSender;
use local::LocalHost;
pub use ways::{NoWay, PeerRdma};

/// How often it is looked for silent leaders.
const WATCH: Duration = Duration::from_millis(100);
/// How often nodes that were not reached are tried.
const PROBE: Duration = Duration::from_secs(1);
/// Leaders are heard every 150 ms; one that was not for this long is reported. A leader that waits for the promise of a replica
/// that is away speaks to nobody for `Params::answer`, and then asks the conductor: it must not be taken for silent itself.
const SILENT: Duration = Duration::from_millis(900);

/// A leader that ended is followed by another after this time, if the conductor still wants one here.
const AGAIN: Duration = Duration::from_millis(200);

/// A replica of a shard on this node.
#[derive(Clone)]
pub struct Held {
    /// The volume that it is a part of.
    pub volume: Uuid,
    /// What its reactors share.
    pub state: ReplicaState,
    /// The disk it is on.
    pub disk: Arc<StoreDisk>,
}

/// Which node leads each volume, as the conductor last said.
pub type Leaders = HashMap<Uuid, Option<NodeId>>;

/// See the module.
pub struct Cluster {
    id: AtomicU32,
    cluster: Mutex<Option<Uuid>>,
    /// What the next leader calls its process: each start of one takes an epoch of its own (DESIGN 5 rule 3).
    next_process: AtomicU64,
    /// Times of the protocol.
    pub params: Params,
    reactors: Vec<ReactorHandle>,
    control: ControlSender,
    peers: ArcSwap<BTreeMap<NodeId, Vec<Portal>>>,
    rdma: ArcSwapOption<PeerRdma>,
    held: RwLock<HashMap<Uuid, Held>>,
    led: RwLock<HashMap<Uuid, LeaderState>>,
    /// Volumes that are to be led here.
    wanted: Mutex<Vec<VolumeConfig>>,
    direct: ArcSwap<HashMap<Uuid, BackendSource>>,
    leaders: ArcSwap<Leaders>,
    changes: watch::Sender<u64>,
    unreachable: Mutex<BTreeSet<NodeId>>,
    /// Calls to each other node, by reactor.
    calls: Mutex<BTreeMap<NodeId, HashMap<usize, Arc<QueueMetrics>>>>,
    /// Leaders that hold promises of replicas here and are not heard.
    silent: Mutex<BTreeSet<NodeId>>,
    /// The conductor should hear from us soon.
    news: Arc<Notify>,
}

impl Cluster {
    /// A node that knows nobody yet. `news` asks for a report to the conductor.
    pub fn new(
        reactors: Vec<ReactorHandle>,
        control: ControlSender,
        params: Params,
        news: Arc<Notify>,
    ) -> Result<Arc<Cluster>, getrandom::Error> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)?;
        Ok(Arc::new(Cluster {
            id: AtomicU32::new(0),
            cluster: Mutex::new(None),
            next_process: AtomicU64::new(u64::from_le_bytes(seed)),
            params,
            reactors,
            control,
            peers: ArcSwap::default(),
            rdma: ArcSwapOption::empty(),
            held: RwLock::default(),
            led: RwLock::default(),
            wanted: Mutex::default(),
            direct: ArcSwap::default(),
            leaders: ArcSwap::default(),
            changes: watch::Sender::new(0),
            unreachable: Mutex::default(),
            calls: Mutex::default(),
            silent: Mutex::default(),
            news,
        }))
    }

    /// This node's number; 0 before the conductor told it.
    pub fn id(&self) -> NodeId {
        NodeId(self.id.load(Ordering::Acquire))
    }

    /// The cluster's identity, once known.
    pub fn cluster(&self) -> Option<Uuid> {
        *self.cluster.lock()
    }

    /// The conductor as leaders reach it.
    pub fn control(&self) -> &ControlSender {
        &self.control
    }

    /// Who this node is, and where the others are.
    pub fn meet(&self, cluster: Uuid, id: NodeId, peers: BTreeMap<NodeId, Vec<Portal>>) {
        *self.cluster.lock() = Some(cluster);
        self.id.store(id.0, Ordering::Release);
        self.peers.store(Arc::new(peers));
    }

    /// The figures of calls to a node from a reactor.
    pub fn calls(&self, node: NodeId, reactor: usize) -> Arc<QueueMetrics> {
        Arc::clone(self.calls.lock().entry(node).or_default().entry(reactor).or_default())
    }

    /// From now on other nodes are reached by RDMA where they listen by it.
    pub fn reach_by_rdma(&self, rdma: PeerRdma) {
        self.rdma.store(Some(Arc::new(rdma)));
    }

    /// RDMA as other nodes are reached by it, once it is there.
    pub fn rdma(&self) -> Option<Arc<PeerRdma>> {
        self.rdma.load_full()
    }

    /// The ways to another node that can be tried from here, the best one first.
    pub fn ways(&self, node: NodeId) -> Result<Vec<Portal>, NoWay> {
        let peers = self.peers.load();
        let portals = peers.get(&node).map(Vec::as_slice).unwrap_or_default();
        ways::sorted(portals, self.rdma.load().is_some())
    }

    /// Takes a replica into service.
    ///
    /// # Errors
    /// When its disk does not have it.
    pub async fn hold(
        &self,
        replica: Uuid,
        volume: Uuid,
        disk: &Arc<StoreDisk>,
    ) -> Result<(), ReplicaFailure> {
        if self.held.read().contains_key(&replica) {
            return Ok(());
        }
        let label = disk.label(ReplicaId::from(replica)).await?;
        let now = afs_env::SystemClock.now();
        let state = ReplicaState::new(label, true, self.id(), now, self.params);
        self.held.write().insert(replica, Held { volume, state, disk: Arc::clone(disk) });
        Ok(())
    }

    /// Takes every replica out of service that is not in `wanted`.
    pub fn hold_only(&self, wanted: &BTreeSet<Uuid>) {
        self.held.write().retain(|replica, _| wanted.contains(replica));
    }

    /// A replica on this node.
    pub fn held(&self, replica: Uuid) -> Option<Held> {
        self.held.read().get(&replica).cloned()
    }

    /// Serves these volumes, whose only replica is here, to other nodes.
    pub fn serve_direct(&self, volumes: HashMap<Uuid, BackendSource>) {
        self.direct.store(Arc::new(volumes));
    }

    /// A volume whose only replica is here.
    pub fn direct(&self, volume: Uuid) -> Option<BackendSource> {
        self.direct.load().get(&volume).cloned()
    }

    /// Leads exactly the volumes of `wanted`, and notes who leads all others.
    pub fn lead(self: &Arc<Self>, wanted: &[VolumeConfig], leaders: Leaders) {
        *self.wanted.lock() = wanted.to_vec();
        self.begin_wanted();
        self.leaders.store(Arc::new(leaders));
        self.changed();
    }

    /// Begins, offers and ends leaders as wanted. One that is about to end is followed by another when it has ended.
    fn begin_wanted(self: &Arc<Self>) {
        let wanted = self.wanted.lock();
        let mut led = self.led.write();
        for (volume, state) in led.iter() {
            if !wanted.iter().any(|config| config.volume == *volume) {
                state.leave();
            }
        }
        for config in wanted.iter() {
            if let Some(state) = led.get(&config.volume) {
                state.offer(config.clone());
                continue;
            }
            // 0 means that nobody has claimed a volume.
            let process = self.next_process.fetch_add(1, Ordering::Relaxed).max(1);
            let state = LeaderState::new(config, self.id(), process, self.params);
            led.insert(config.volume, state.clone());
            self.run_leader(config.volume, state);
        }
    }

    /// Runs a leader on one of the reactors until it is over.
    fn run_leader(self: &Arc<Self>, volume: Uuid, state: LeaderState) {
        let spread = usize::from(*volume.as_bytes().last().unwrap_or(&0));
        let Some(reactor) = self.reactors.get(spread % self.reactors.len().max(1)) else { return };
        let cluster = Arc::clone(self);
        reactor.spawn(move |local| async move {
            let host = LocalHost::of(&cluster, &local);
            host.leader(volume, &state).run().await;
            tracing::info!(%volume, "does not lead this volume any more");
            cluster.led.write().remove(&volume);
            cluster.changed();
            // It may have been given the volume again meanwhile. Not at once: until then a conductor that is asked may still
            // say what made this one end.
            tokio::time::sleep(AGAIN).await;
            cluster.begin_wanted();
        });
    }

    /// The leader of a volume, if it is here.
    pub fn led(&self, volume: Uuid) -> Option<LeaderState> {
        self.led.read().get(&volume).cloned()
    }

    /// All volumes that are led here, for people.
    pub fn led_views(&self) -> Vec<(Uuid, VolumeView)> {
        self.led.read().iter().map(|(volume, state)| (*volume, state.view())).collect()
    }

    /// Ends all leaders in good order.
    pub async fn leave(&self) {
        self.wanted.lock().clear();
        for state in self.led.read().values() {
            state.leave();
        }
        let mut changes = self.changes.subscribe();
        while !self.led.read().is_empty() && changes.changed().await.is_ok() {}
    }

    /// The node that leads a volume.
    pub fn leader_of(&self, volume: Uuid) -> Option<NodeId> {
        self.leaders.load().get(&volume).copied().flatten()
    }

    fn changed(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    /// Tells when another node may lead something.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Notes whether another node is reached. Evidence for the conductor; nothing else rests on it.
    pub fn reaches(&self, node: NodeId, reached: bool) {
        let mut unreachable = self.unreachable.lock();
        let changed = if reached { unreachable.remove(&node) } else { unreachable.insert(node) };
        drop(unreachable);
        if changed {
            tracing::info!(%node, reached, "a peer came or went");
            self.news.notify_one();
        }
    }

    /// Lets go of replicas, leaders and connections on every reactor, before these end.
    pub async fn close(self: &Arc<Self>) {
        let (sender, mut done) = tokio::sync::mpsc::channel::<()>(1);
        for reactor in &self.reactors {
            let (cluster, sender) = (Arc::clone(self), sender.clone());
            reactor.spawn(move |local| async move {
                LocalHost::close(&cluster, &local);
                drop(sender);
            });
        }
        drop(sender);
        // Nothing is ever sent: it ends when all have let go.
        while done.recv().await.is_some() {}
    }

    /// Nodes that are not reached, or should be heard and are not.
    pub fn unreachable(&self) -> Vec<NodeId> {
        self.unreachable.lock().union(&self.silent.lock()).copied().collect()
    }

    /// Watches for leaders that fall silent, and looks whether nodes that were not reached are back. Runs until dropped.
    pub async fn watch(self: Arc<Self>) {
        let mut probed = Instant::now();
        loop {
            tokio::time::sleep(WATCH).await;
            let silent = self.silent_leaders();
            let changed = std::mem::replace(&mut *self.silent.lock(), silent.clone()) != silent;
            if changed {
                tracing::info!(?silent, "leaders that are not heard");
                self.news.notify_one();
            }
            if probed.elapsed() >= PROBE {
                probed = Instant::now();
                self.probe();
            }
        }
    }

    fn silent_leaders(&self) -> BTreeSet<NodeId> {
        let now = afs_env::SystemClock.now();
        // A replica that was dropped is not spoken to for a while: only a leader that none hears is silent.
        let mut heard: BTreeMap<NodeId, Duration> = BTreeMap::new();
        for held in self.held.read().values() {
            let Some((leader, ago)) = held.state.leader_heard(now) else { continue };
            if self.leader_of(held.volume) == Some(leader) && leader != self.id() {
                heard.entry(leader).and_modify(|least| *least = ago.min(*least)).or_insert(ago);
            }
        }
        heard.into_iter().filter(|(_, ago)| *ago > SILENT).map(|(leader, _)| leader).collect()
    }

    /// Tries to reach nodes that were not.
    fn probe(self: &Arc<Self>) {
        let nodes: Vec<NodeId> = self.unreachable.lock().iter().copied().collect();
        let known = self.peers.load();
        self.unreachable.lock().retain(|node| known.contains_key(node));
        let Some(reactor) = self.reactors.first().filter(|_| !nodes.is_empty()) else { return };
        let cluster = Arc::clone(self);
        reactor.spawn(move |local| async move {
            let host = LocalHost::of(&cluster, &local);
            nodes.into_iter().for_each(|node| host.probe(node));
        });
    }
}

/// The volumes of `leads` that have more than one replica, or one elsewhere: these need a leader. A volume whose only replica
/// is here is served straight from its disk.
pub fn need_leader(leads: &[VolumeConfig], node: NodeId) -> Vec<VolumeConfig> {
    let alone = |config: &VolumeConfig| {
        let mut members = config.members();
        let first = members.next();
        first.is_some_and(|(_, member)| member.node == node) && members.next().is_none()
    };
    leads.iter().filter(|config| !alone(config)).cloned().collect()
}
