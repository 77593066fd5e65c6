//! Where replicas go (DESIGN 7): on distinct nodes, in as many racks as there are, where most space
//! is not yet promised, then where there is least to do.
//!
//! Volumes are thin, so promising more than there is, is fine. Null disks keep nothing and are
//! taken only where a node has no other working disk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use uuid::Uuid;

use crate::config::{NodeId, Shard};
use crate::view::{ClusterView, NodeView};

/// A disk that a replica is to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskPlace {
    /// The disk.
    pub disk: Uuid,
    /// The node that has it.
    pub node: NodeId,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// Too few nodes with a working disk are there.
    #[error("{wanted} nodes with a working disk are needed, and {found} are there")]
    TooFewNodes {
        /// Replicas asked for.
        wanted: u8,
        /// Nodes that could take one.
        found: usize,
    },
}

/// Places the replicas of a whole volume; `shard_bytes` are the sizes of its shards. Each shard
/// sees what the ones before it took.
pub fn place(
    view: &ClusterView,
    shard_bytes: &[u64],
    replicas: u8,
) -> Result<Vec<Vec<DiskPlace>>, PlacementError> {
    let mut planner = Planner::new(view);
    shard_bytes.iter().map(|bytes| planner.shard(*bytes, replicas)).collect()
}

/// Places one replica more of a shard.
pub fn place_one(
    view: &ClusterView,
    shard: &Shard,
    bytes: u64,
) -> Result<DiskPlace, PlacementError> {
    let mut planner = Planner::new(view);
    let mut taken = Taken::default();
    for member in &shard.members {
        taken.add(member.node, view.node(member.node).and_then(|node| node.rack.as_deref()));
    }
    let found = planner.candidates.len();
    planner.next(bytes, &mut taken).ok_or(PlacementError::TooFewNodes { wanted: 1, found })
}

struct DiskRoom {
    disk: Uuid,
    keeps_data: bool,
    total: i128,
    /// Bytes not yet promised; less than nothing when overcommitted.
    room: i128,
    free: u64,
}

impl DiskRoom {
    fn key(&self) -> (bool, i128, u64, Uuid) {
        (self.keeps_data, self.room, self.free, self.disk)
    }
}

struct Candidate<'a> {
    node: NodeId,
    rack: Option<&'a str>,
    load: u32,
    disks: Vec<DiskRoom>,
    /// The disk that the next replica would go to.
    best: usize,
    /// Its room in steps: rooms that differ by less count as equal, and the load decides.
    steps: i128,
}

impl Candidate<'_> {
    fn disk(&self) -> &DiskRoom {
        &self.disks[self.best]
    }

    fn choose_best(&mut self, step: i128) {
        let best = self.disks.iter().enumerate().max_by_key(|(_, disk)| disk.key());
        self.best = best.map_or(0, |(at, _)| at);
        self.steps = self.disk().room.div_euclid(step);
    }
}

/// What the replicas of one shard stand on already.
#[derive(Default)]
struct Taken<'a> {
    nodes: BTreeSet<NodeId>,
    racks: BTreeMap<&'a str, u32>,
}

impl<'a> Taken<'a> {
    fn add(&mut self, node: NodeId, rack: Option<&'a str>) {
        self.nodes.insert(node);
        if let Some(rack) = rack {
            *self.racks.entry(rack).or_default() += 1;
        }
    }
}

/// Counts what it gives away, so that a volume of many shards spreads.
struct Planner<'a> {
    candidates: Vec<Candidate<'a>>,
    step: i128,
}

impl<'a> Planner<'a> {
    fn new(view: &'a ClusterView) -> Self {
        let active = view.nodes().filter(|(id, _)| view.is_active(*id));
        let mut candidates: Vec<_> = active.filter_map(|(id, node)| candidate(id, node)).collect();
        let disks = candidates.iter().flat_map(|candidate| &candidate.disks);
        let step = disks.map(|disk| disk.total / 64).max().unwrap_or(0).max(1);
        candidates.iter_mut().for_each(|candidate| candidate.choose_best(step));
        Self { candidates, step }
    }

    fn shard(&mut self, bytes: u64, replicas: u8) -> Result<Vec<DiskPlace>, PlacementError> {
        let mut taken = Taken::default();
        let mut places = Vec::with_capacity(usize::from(replicas));
        for _ in 0..replicas {
            let found = self.candidates.len();
            let place = self.next(bytes, &mut taken);
            places.push(place.ok_or(PlacementError::TooFewNodes { wanted: replicas, found })?);
        }
        Ok(places)
    }

    fn next(&mut self, bytes: u64, taken: &mut Taken<'a>) -> Option<DiskPlace> {
        let free = self.candidates.iter_mut().filter(|it| !taken.nodes.contains(&it.node));
        let chosen = free.max_by_key(|candidate| {
            let disk = candidate.disk();
            let in_rack = candidate.rack.and_then(|rack| taken.racks.get(rack)).copied();
            (
                disk.keeps_data,
                Reverse(in_rack.unwrap_or(0)),
                candidate.steps,
                Reverse(candidate.load),
                disk.key(),
            )
        })?;
        taken.add(chosen.node, chosen.rack);
        let place = DiskPlace { disk: chosen.disk().disk, node: chosen.node };
        chosen.load = chosen.load.saturating_add(1);
        let best = chosen.best;
        chosen.disks[best].room -= i128::from(bytes);
        chosen.choose_best(self.step);
        Some(place)
    }
}

fn candidate(node: NodeId, view: &NodeView) -> Option<Candidate<'_>> {
    let usable = view.disks.iter().filter(|disk| disk.usable);
    let disks: Vec<_> = usable
        .map(|disk| DiskRoom {
            disk: disk.disk,
            keeps_data: disk.keeps_data,
            total: i128::from(disk.total_bytes),
            room: i128::from(disk.total_bytes) - i128::from(disk.provisioned_bytes),
            free: disk.free_bytes,
        })
        .collect();
    if disks.is_empty() {
        return None;
    }
    let load = view.leads.saturating_add(view.replicas);
    Some(Candidate { node, rack: view.rack.as_deref(), load, disks, best: 0, steps: 0 })
}
