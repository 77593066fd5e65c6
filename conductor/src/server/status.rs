//! The cluster on one page: numbers, and what is wrong with it.

use std::collections::BTreeSet;

use super::live::LiveNode;
use super::view::View;
use crate::api::{
    ConductorStatus, DiskKind, DiskState, NodeLiveness, Replica, Status, Volume, VolumeState,
};
use crate::db::MetaDb;
use crate::size::human;

/// Problems named one by one; the rest is counted.
const PROBLEMS_MAX: usize = 20;

/// Below this share of free space, in percent, a disk is a problem.
const FREE_PERCENT_MIN: u64 = 10;

/// Space on the disks of nodes that are up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) total_bytes: u64,
    pub(super) free_bytes: u64,
}

impl View {
    /// Space that keeps data: null disks do not count.
    pub(super) fn space(&self) -> Space {
        let disks = self.live.values().filter_map(LiveNode::current).flat_map(|node| &node.disks);
        let disks = disks.filter(|disk| disk.kind == DiskKind::Store);
        disks.fold(Space::default(), |space, disk| Space {
            total_bytes: space.total_bytes.saturating_add(disk.total_bytes),
            free_bytes: space.free_bytes.saturating_add(disk.free_bytes),
        })
    }

    pub(super) fn status(&self, db: &MetaDb, conductors: Vec<ConductorStatus>) -> Status {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let mut problems: Vec<String> = db.went_back().into_iter().collect();
        problems.extend(self.problems());
        let volumes = self.volumes();
        let data = data(&volumes);
        let in_state = |state: VolumeState| {
            count(volumes.iter().filter(|volume| volume.state == state).count())
        };
        let space = self.space();
        let up = self.live.values().filter(|node| node.liveness == NodeLiveness::Up).count();
        Status {
            data_safe: data.is_empty(),
            volumes_degraded: in_state(VolumeState::Degraded),
            volumes_stalled: in_state(VolumeState::Stalled),
            volumes_alone: count(volumes.iter().filter(|volume| volume.copies == 1).count()),
            healthy: problems.is_empty() && data.is_empty(),
            data: shorten(data),
            problems: shorten(problems),
            cluster: db.cluster(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: self.rows.revision,
            nodes: count(self.rows.nodes.len()),
            nodes_up: count(up),
            disks: count(self.rows.disks.len()),
            disk_total_bytes: space.total_bytes,
            disk_free_bytes: space.free_bytes,
            volumes: count(self.rows.volumes.len()),
            volume_bytes: self.rows.volumes.iter().map(|volume| volume.size_bytes).sum(),
            subsystems: count(self.rows.subsystems.len()),
            namespaces: count(self.rows.namespaces.len()),
            conductors,
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.rows.nodes.is_empty() {
            problems.push("no node has joined; start `afs serve` or `afs standalone`".to_owned());
        }
        problems.extend(self.live.iter().filter_map(|(name, node)| node_problem(name, node)));
        problems.extend(self.disk_problems());
        problems.extend(self.volume_problems());
        problems
    }

    fn disk_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for disk in self.disks() {
            let name = format!("disk {} of node {}", disk.path, disk.node);
            let free = disk.free_bytes.unwrap_or(disk.total_bytes);
            let error = disk.error.as_deref().unwrap_or("no reason given");
            match disk.state {
                Some(DiskState::Failed) => problems.push(format!("{name} failed: {error}")),
                Some(_) if free < disk.total_bytes / 100 * FREE_PERCENT_MIN => problems.push(
                    format!("{name} has {} of {} left", human(free), human(disk.total_bytes)),
                ),
                _ => {}
            }
        }
        problems
    }

    fn volume_problems(&self) -> Vec<String> {
        let volumes = self.volumes().into_iter();
        let problem = |volume: Volume| {
            let error = volume.replicas.iter().find_map(|replica| replica.error.clone());
            let node = volume.replicas.first().map_or("", |replica| replica.node.as_str());
            match volume.state {
                VolumeState::Failed => {
                    let error = error.unwrap_or_else(|| "no reason given".to_owned());
                    Some(format!("volume {} failed: {error}", volume.name))
                }
                VolumeState::Unavailable => {
                    Some(format!("volume {} is away: node {node} is not up", volume.name))
                }
                VolumeState::Online
                | VolumeState::Pending
                | VolumeState::Degraded
                | VolumeState::Stalled => None,
            }
        };
        volumes.filter_map(problem).collect()
    }
}

/// The volumes whose data is not as safe as it should be: which, why, until when.
fn data(volumes: &[Volume]) -> Vec<String> {
    let missing = |replica: &&Replica| !replica.in_sync || replica.state.is_none();
    let sentence = |volume: &Volume| {
        let what = match volume.state {
            VolumeState::Degraded => "serves with fewer replicas than it should have",
            VolumeState::Stalled => "waits for replicas: its I/O stands still",
            _ => return None,
        };
        let missing: Vec<&Replica> = volume.replicas.iter().filter(missing).collect();
        let nodes: BTreeSet<&str> = missing.iter().map(|it| it.node.as_str()).collect();
        let nodes: Vec<&str> = nodes.into_iter().collect();
        let (count, nodes) = (missing.len(), nodes.join(", "));
        Some(format!(
            "volume {} {what}; {count} replica(s) missing, on node {nodes}; {}",
            volume.name,
            until(&missing)
        ))
    };
    volumes.iter().filter_map(sentence).collect()
}

fn until(missing: &[&Replica]) -> String {
    if missing.iter().any(|replica| replica.resync.is_none()) {
        return "until the node is back and its replicas are filled".to_owned();
    }
    let left_bytes = missing.iter().filter_map(|it| it.resync).map(|it| it.left_bytes).sum();
    let seconds: Option<Vec<u64>> = missing.iter().map(|it| it.resync?.left_seconds).collect();
    let left = human(left_bytes);
    match seconds.and_then(|seconds| seconds.into_iter().max()) {
        Some(seconds) => format!("safe again in about {seconds} s ({left} left to compare)"),
        None => format!("being filled, {left} left to compare"),
    }
}

fn node_problem(name: &str, node: &LiveNode) -> Option<String> {
    match (node.liveness, node.age) {
        (NodeLiveness::Down, Some(age)) => {
            Some(format!("node {name} has not reported for {} s", age.as_secs()))
        }
        (NodeLiveness::Down, None) => {
            Some(format!("node {name} has not reported since the conductor started"))
        }
        (NodeLiveness::Up | NodeLiveness::Unknown, _) => None,
    }
}

fn shorten(mut problems: Vec<String>) -> Vec<String> {
    if problems.len() > PROBLEMS_MAX {
        let more = problems.len() - PROBLEMS_MAX;
        problems.truncate(PROBLEMS_MAX);
        problems.push(format!("and {more} more"));
    }
    problems
}
