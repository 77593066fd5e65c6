//! Elections: who leads next, when the leader is believed dead or cut off (DESIGN 7: "evidence
//! starts an election at once; safety never rests on detection being right").
//!
//! A wrong election costs a moment: the old leader cannot acknowledge anything once the new one has
//! sealed, and the new one cannot seal before the old one's leases are over (DESIGN 5, rules 3, 4).

use std::cmp::Reverse;

use uuid::Uuid;

use crate::change::{depose, next};
use crate::config::{NodeId, Role, Shard, VolumeConfig};
use crate::denied::Denied;
use crate::mutant::{Mutant, planted};
use crate::view::{ClusterView, NodeState};

/// Why a volume needs another leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// It has none.
    NoLeader,
    /// The leader's session is gone, or its node was removed.
    LeaderDead,
    /// The leader reaches too few in-sync replicas to serve some shard, and another node would
    /// serve more.
    LeaderCutOff,
}

/// Whether a volume needs another leader, and why.
///
/// A leader on a node that is being emptied serves well; it is moved with
/// [`crate::move_leader`], not by an election.
pub fn needs_election(config: &VolumeConfig, view: &ClusterView) -> Option<Election> {
    let Some(leader) = config.leader else { return Some(Election::NoLeader) };
    if !view.is_alive(leader) {
        return Some(Election::LeaderDead);
    }
    let served = served(config, view, leader);
    if served == config.shards.len() {
        return None;
    }
    let (key, _) = best(config, view)?;
    (key.served > served).then_some(Election::LeaderCutOff)
}

/// Chooses a new leader (DESIGN 5, rule 3): a node that reaches enough in-sync replicas, holds an
/// in-sync replica of most shards, is not being emptied, and leads the fewest volumes. It has to
/// claim.
///
/// In the same step in-sync replicas on nodes believed dead leave their sets, so that the new
/// leader need not wait for them; but only where at least `min_in_sync` live ones remain. Where
/// fewer are there, dropping would bring nothing, and would turn away the one that returns first.
///
/// A node that neither reaches enough replicas of any shard nor holds one is no use as a leader:
/// then the volume keeps its leader, whose node may come back with the data.
pub fn elect(config: &VolumeConfig, view: &ClusterView) -> Result<VolumeConfig, Denied> {
    if needs_election(config, view).is_none() {
        return Err(Denied::LeaderLives);
    }
    let leader = best_leader(config, view).ok_or(Denied::NoCandidate)?;
    let mut elected = if planted(Mutant::ElectKeepsEpoch) { config.clone() } else { next(config)? };
    depose(&mut elected, Some(leader));
    elected.planned = false;
    let min = usize::from(config.min_in_sync.max(1));
    for shard in &mut elected.shards {
        drop_dead(shard, min, view);
    }
    Ok(elected)
}

/// Elections for many volumes at once, as after the death of a node: each sees how many volumes
/// the ones before it gave to whom, so the load spreads.
pub fn elect_all<'a>(
    configs: impl IntoIterator<Item = &'a VolumeConfig>,
    view: &mut ClusterView,
) -> Vec<(Uuid, Result<VolumeConfig, Denied>)> {
    let mut decided = Vec::new();
    for config in configs {
        let result = elect(config, view);
        if let Ok(elected) = &result {
            view.count_leader(Some(config), Some(elected));
        }
        decided.push((config.volume, result));
    }
    decided
}

fn drop_dead(shard: &mut Shard, min: usize, view: &ClusterView) {
    let live = shard.in_sync().filter(|member| view.is_alive(member.node)).count();
    if live < min && !planted(Mutant::ElectDropsBelowMin) {
        return;
    }
    for member in shard.members.iter_mut().filter(|member| !view.is_alive(member.node)) {
        member.role = Role::OutOfSync;
    }
}

/// How good a leader a node would be; the greatest is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Shards of which it reaches enough in-sync replicas.
    served: usize,
    active: bool,
    /// Shards of which it holds an in-sync replica.
    holds: usize,
    leads: Reverse<u32>,
    id: Reverse<NodeId>,
}

/// The best leader that is there.
pub(crate) fn best_leader(config: &VolumeConfig, view: &ClusterView) -> Option<NodeId> {
    best(config, view).map(|(_, node)| node)
}

/// The nodes with in-sync replicas are few and usually contain the best one. Others are looked at
/// only when none of those can lead well.
fn best(config: &VolumeConfig, view: &ClusterView) -> Option<(Key, NodeId)> {
    let mut holders: Vec<NodeId> = config
        .members()
        .filter(|(_, member)| member.role == Role::InSync)
        .map(|(_, member)| member.node)
        .collect();
    holders.sort_unstable();
    let held = holders.chunk_by(|a, b| a == b).filter_map(|same| {
        let node = *same.first()?;
        Some((key(config, view, node, same.len())?, node))
    });
    let near = held.max_by_key(|(key, _)| *key);
    if near.is_some_and(|(key, _)| key.active && key.served == config.shards.len()) {
        return near;
    }
    let others = view.nodes().filter(|(id, _)| holders.binary_search(id).is_err());
    let far = others.filter_map(|(id, _)| Some((key(config, view, id, 0)?, id)));
    let useful = |(key, _): &(Key, NodeId)| key.served > 0 || key.holds > 0;
    far.filter(useful).chain(near).max_by_key(|(key, _)| *key)
}

fn key(config: &VolumeConfig, view: &ClusterView, id: NodeId, holds: usize) -> Option<Key> {
    let node = view.node(id).filter(|_| view.is_alive(id))?;
    Some(Key {
        served: served(config, view, id),
        active: node.state == NodeState::Active,
        holds,
        leads: Reverse(node.leads),
        id: Reverse(id),
    })
}

/// The shards of which a node reaches at least `min_in_sync` live in-sync replicas.
fn served(config: &VolumeConfig, view: &ClusterView, leader: NodeId) -> usize {
    let min = usize::from(config.min_in_sync.max(1));
    let serves = |shard: &&Shard| {
        let reached = shard
            .in_sync()
            .filter(|member| view.is_alive(member.node) && view.reach(leader, member.node));
        reached.count() >= min
    };
    config.shards.iter().filter(serves).count()
}
