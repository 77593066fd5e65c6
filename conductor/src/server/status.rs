//! The cluster on one page: numbers, and what is wrong with it.

use super::live::LiveNode;
use super::view::View;
use crate::api::{DiskKind, DiskState, NodeLiveness, Status, VolumeState};
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

    pub(super) fn status(&self, cluster: uuid::Uuid) -> Status {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let problems = self.problems();
        let space = self.space();
        let up = self.live.values().filter(|node| node.liveness == NodeLiveness::Up).count();
        Status {
            healthy: problems.is_empty(),
            problems: shorten(problems),
            cluster,
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
        let problem = |volume: crate::api::Volume| {
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
                VolumeState::Online | VolumeState::Pending => None,
            }
        };
        volumes.filter_map(problem).collect()
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
