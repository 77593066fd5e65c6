//! What the conductor believes about nodes. Beliefs make decisions good, never safe.
//!
//! All times are milliseconds of the conductor's own clock: those of other machines are never
//! compared.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::{NodeId, VolumeConfig};
use crate::mutant::{Mutant, planted};

/// Evidence older than this says nothing any more; a node repeats it while it holds.
pub const EVIDENCE_FRESH_MS: u64 = 10_000;

/// What the operator wants of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Takes part.
    #[default]
    Active,
    /// Is being emptied: gets nothing new, leads only where nobody else can.
    Draining,
    /// Is gone for good.
    Removed,
}

/// One disk of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskView {
    /// The disk.
    pub disk: Uuid,
    /// Whether it works and may be given replicas.
    pub usable: bool,
    /// Whether it keeps what is written; a null disk does not.
    pub keeps_data: bool,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes not yet allocated.
    pub free_bytes: u64,
    /// Sum of the sizes of the replicas on it; volumes are thin, so this may be more than there is.
    pub provisioned_bytes: u64,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Whether its session lives.
    pub alive: bool,
    /// What the operator wants of it.
    pub state: NodeState,
    /// Where it stands, if labelled.
    pub rack: Option<String>,
    /// When it last reported, if it did.
    pub reported_ms: Option<u64>,
    /// How many volumes it leads.
    pub leads: u32,
    /// How many replicas it holds.
    pub replicas: u32,
    /// Its disks.
    pub disks: Vec<DiskView>,
}

/// Whom to believe (DESIGN 5, rule 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The accused is to be dropped.
    Accused,
    /// The accuser is the one that is cut off.
    Accuser,
}

/// All nodes, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    now_ms: u64,
    nodes: BTreeMap<NodeId, NodeView>,
    /// The peers that a node says it does not reach, and when it said so.
    unreachable: BTreeMap<NodeId, BTreeMap<NodeId, u64>>,
}

impl ClusterView {
    /// A view at this moment, with no nodes yet.
    pub fn new(now_ms: u64) -> Self {
        Self { now_ms, ..Self::default() }
    }

    /// A view in which exactly these nodes are alive. For tests and the simulator.
    pub fn of_alive(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let node = |id| (id, NodeView { alive: true, ..NodeView::default() });
        Self { nodes: nodes.into_iter().map(node).collect(), ..Self::default() }
    }

    /// Moves the clock; evidence ages.
    pub fn set_now_ms(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Adds a node, or puts another picture in its place. What it said of its peers is kept.
    pub fn set_node(&mut self, id: NodeId, node: NodeView) {
        self.nodes.insert(id, node);
    }

    /// A node came or went.
    pub fn set_alive(&mut self, id: NodeId, alive: bool) {
        self.nodes.entry(id).or_default().alive = alive;
    }

    /// The peers that a node does not reach now; replaces what it said before.
    pub fn set_unreachable(&mut self, id: NodeId, peers: impl IntoIterator<Item = NodeId>) {
        let now_ms = self.now_ms;
        let peers = peers.into_iter().filter(|peer| *peer != id).map(|peer| (peer, now_ms));
        self.unreachable.insert(id, peers.collect());
    }

    /// A node said, just now, that it does not reach this peer.
    pub fn add_unreachable(&mut self, id: NodeId, peer: NodeId) {
        self.add_unreachable_at(id, peer, self.now_ms);
    }

    /// As [`Self::add_unreachable`], at an earlier moment.
    pub fn add_unreachable_at(&mut self, id: NodeId, peer: NodeId, at_ms: u64) {
        if id != peer {
            self.unreachable.entry(id).or_default().insert(peer, at_ms);
        }
    }

    /// A node, if known.
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.get(&id)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeView)> + '_ {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Whether a node's session lives and it was not removed.
    pub fn is_alive(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.alive && node.state != NodeState::Removed)
    }

    /// Whether a node is there and is not being emptied.
    pub fn is_active(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.alive && node.state == NodeState::Active)
    }

    /// Nodes that are not there: all volumes that they lead need another leader.
    pub fn dead(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.keys().copied().filter(|id| !self.is_alive(*id))
    }

    /// Links between live nodes that somebody says are broken, each both ways. Of the volumes of a
    /// live leader only those with a replica behind such a link may need another one: where it
    /// reaches every live replica, nobody reaches more.
    pub fn broken_links(&self) -> BTreeSet<(NodeId, NodeId)> {
        let links = self.unreachable.iter().flat_map(|(id, peers)| {
            let fresh = peers.iter().filter(|(_, at)| self.is_fresh(**at));
            fresh.flat_map(|(peer, _)| [(*id, *peer), (*peer, *id)])
        });
        links.filter(|(a, b)| self.is_alive(*a) && self.is_alive(*b)).collect()
    }

    /// Whether neither of two nodes says, freshly, that it does not reach the other.
    pub fn reach(&self, a: NodeId, b: NodeId) -> bool {
        a == b || !(self.says(a, b) || self.says(b, a))
    }

    fn says(&self, id: NodeId, peer: NodeId) -> bool {
        let at = self.unreachable.get(&id).and_then(|peers| peers.get(&peer));
        at.is_some_and(|at| self.is_fresh(*at))
    }

    fn is_fresh(&self, at_ms: u64) -> bool {
        self.now_ms.saturating_sub(at_ms) <= EVIDENCE_FRESH_MS
    }

    /// The live peers that a node lost, by its own word or theirs.
    fn lost(&self, id: NodeId, except: NodeId) -> usize {
        let own = self.unreachable.get(&id).into_iter().flatten();
        let own = own.filter(|(_, at)| self.is_fresh(**at)).map(|(peer, _)| *peer);
        let theirs = self.unreachable.keys().copied().filter(|peer| self.says(*peer, id));
        let lost: BTreeSet<NodeId> = own.chain(theirs).collect();
        lost.into_iter().filter(|peer| *peer != except && self.is_alive(*peer)).count()
    }

    /// Whom to believe when one node says that it does not reach another (DESIGN 5, rule 2: "the
    /// conductor asks the accused too; an accuser that has lost most of its peers is the suspect").
    ///
    /// Whose session is gone is the one that is cut off. With both there, it is the one that lost
    /// more of its other peers; the accuser is believed when they are equal, as then only the link
    /// between the two is known to be broken, and the leader of the volume must go on. A node is
    /// always believed about its own disks.
    pub fn judge(&self, accuser: NodeId, accused: NodeId) -> Verdict {
        if accuser == accused || planted(Mutant::BelieveSuspect) {
            return Verdict::Accused;
        }
        match (self.is_alive(accuser), self.is_alive(accused)) {
            (true, false) => Verdict::Accused,
            (false, true) => Verdict::Accuser,
            _ if self.lost(accuser, accused) > self.lost(accused, accuser) => Verdict::Accuser,
            _ => Verdict::Accused,
        }
    }

    /// Counts a change of leader, so that the next decision of a batch sees it.
    pub fn count_leader(&mut self, before: Option<&VolumeConfig>, after: Option<&VolumeConfig>) {
        let leader = |config: Option<&VolumeConfig>| config.and_then(|config| config.leader);
        if let Some(node) = leader(before).and_then(|node| self.nodes.get_mut(&node)) {
            node.leads = node.leads.saturating_sub(1);
        }
        if let Some(node) = leader(after).and_then(|node| self.nodes.get_mut(&node)) {
            node.leads = node.leads.saturating_add(1);
        }
    }
}
