//! The conductor's part in who leads what, and in emptying nodes and disks: looked at every second,
//! one small step at a time.
//!
//! - A volume whose leader is down, or reaches too few of its replicas, gets another one.
//! - A volume whose leader is being emptied is moved to another node that holds a replica.
//! - A replica on a node or disk that is being emptied gets a successor elsewhere; when that one is
//!   in sync, the old one goes. Only under a leader that has claimed the volume, as it does the
//!   copying. Where no other node is left, a replica that is out of sync goes first: so a new disk
//!   takes the place of a broken one.

use std::collections::{BTreeSet, HashMap};

use afs_decisions::{ClusterView, NodeId, NodeState, Role, VolumeConfig, move_leader, place_one};
use uuid::Uuid;

use super::Shared;
use super::answer::ApiError;
use super::view::View;
use crate::db::DbError;
use crate::refusal::Refusal;

/// Volumes that get another leader in one decision: what else is to be decided waits no longer.
const ELECTED_TOGETHER: usize = 1000;
/// Replicas of a node that are on the move at a time.
const MOVES_MAX: usize = 4;

/// Elects new leaders where they are needed. Cheap when nothing is wrong: only volumes of nodes
/// that are down, or with a replica that somebody says is out of their leader's reach, are looked
/// at; and decided is only where a look says that it has to be.
pub(super) async fn elect(shared: &Shared) -> Result<(), DbError> {
    let beliefs = shared.beliefs().await?;
    let dead: Vec<NodeId> = beliefs.dead().collect();
    let links = beliefs.broken_links();
    if dead.is_empty() && links.is_empty() {
        return Ok(());
    }
    let volumes = shared.db.need_leader(&dead, &links, &beliefs).await?;
    if volumes.is_empty() {
        return Ok(());
    }
    let mut beliefs = shared.beliefs_with_loads().await?;
    for some in volumes.chunks(ELECTED_TOGETHER) {
        shared.db.elect(some, &mut beliefs).await?;
    }
    Ok(())
}

/// Takes the next steps in emptying nodes and disks.
pub(super) async fn empty(shared: &Shared) -> Result<(), ApiError> {
    let draining = shared.db.nodes().await?.iter().any(|row| row.state == "draining");
    if !draining && !shared.db.any_disk_retired().await? {
        return Ok(());
    }
    let (view, beliefs) = shared.view_and_beliefs().await?;
    let retired: BTreeSet<Uuid> =
        view.rows.disks.iter().filter(|disk| disk.retired).map(|disk| disk.uuid).collect();
    let leaving: BTreeSet<Uuid> = view
        .rows
        .replicas
        .iter()
        .filter(|replica| retired.contains(&replica.disk))
        .map(|replica| replica.uuid)
        .collect();
    let copies: HashMap<Uuid, usize> =
        view.rows.volumes.iter().map(|row| (row.uuid, usize::from(row.copies))).collect();
    let mut moves = 0;
    for config in view.rows.configs.values().filter(|config| config.leader_process != 0) {
        let step = move_away(&copies, &beliefs, config, &leaving, &mut moves);
        let Some(step) = step else { continue };
        match take(shared, &view, &beliefs, config, step).await {
            // The volume moved on meanwhile; there is another second.
            Ok(()) | Err(DbError::Refused(Refusal::Changed { .. } | Refusal::Denied { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

enum Move {
    Leader(NodeId),
    Add { shard: u32, disk: Uuid },
    Remove { shard: u32, replica: Uuid },
}

/// The next step for a volume, if one is to be taken.
fn move_away(
    copies: &HashMap<Uuid, usize>,
    beliefs: &ClusterView,
    config: &VolumeConfig,
    leaving: &BTreeSet<Uuid>,
    moves: &mut usize,
) -> Option<Move> {
    let is_draining =
        |node: NodeId| beliefs.node(node).is_some_and(|node| node.state == NodeState::Draining);
    if config.leader.is_some_and(is_draining) {
        let can =
            |node: &NodeId| beliefs.is_active(*node) && move_leader(config, *node, beliefs).is_ok();
        let leads = |node: &NodeId| (beliefs.node(*node).map(|node| node.leads), *node);
        let holders = config.members().filter(|(_, member)| member.role == Role::InSync);
        let near = holders.map(|(_, it)| it.node).filter(can).min_by_key(leads);
        // They may not reach each other, while somebody else reaches them all.
        let far = || beliefs.nodes().map(|(node, _)| node).filter(can).min_by_key(leads);
        if let Some(node) = near.or_else(far) {
            return Some(Move::Leader(node));
        }
    }
    let copies = *copies.get(&config.volume)?;
    for (number, shard) in (0u32..).zip(&config.shards) {
        let leaves = |replica: Uuid, node| leaving.contains(&replica) || is_draining(node);
        let bytes = config.blocks_of_shard(number).saturating_mul(afs_decisions::BLOCK_BYTES);
        let old = shard.members.iter().find(|member| leaves(member.replica, member.node));
        let Some(old) = old else {
            // One that went first is still to be replaced.
            if shard.members.len() < copies
                && let Ok(place) = place_one(beliefs, shard, bytes)
            {
                return Some(Move::Add { shard: number, disk: place.disk });
            }
            continue;
        };
        let staying = shard.members.iter().filter(|it| !leaves(it.replica, it.node));
        let staying: Vec<_> = staying.collect();
        let in_sync = staying.iter().filter(|it| it.role == Role::InSync).count();
        if in_sync >= copies {
            return Some(Move::Remove { shard: number, replica: old.replica });
        }
        *moves += 1;
        if staying.len() < copies && *moves <= MOVES_MAX {
            if let Ok(place) = place_one(beliefs, shard, bytes) {
                return Some(Move::Add { shard: number, disk: place.disk });
            }
            let mut others = shard.clone();
            others.members.retain(|member| member.replica != old.replica);
            if old.role == Role::OutOfSync && place_one(beliefs, &others, bytes).is_ok() {
                return Some(Move::Remove { shard: number, replica: old.replica });
            }
        }
    }
    None
}

async fn take(
    shared: &Shared,
    view: &View,
    beliefs: &ClusterView,
    config: &VolumeConfig,
    step: Move,
) -> Result<(), DbError> {
    let VolumeConfig { volume, epoch, .. } = *config;
    match step {
        Move::Leader(node) => {
            let Some(name) = view.node_name(node) else { return Ok(()) };
            shared.db.lead(&volume.to_string(), name, beliefs).await?;
        }
        Move::Add { shard, disk } => {
            shared.db.add_replica(volume, epoch, shard, disk).await?;
        }
        Move::Remove { shard, replica } => {
            shared.db.remove_replica(volume, epoch, shard, replica).await?;
        }
    }
    Ok(())
}
