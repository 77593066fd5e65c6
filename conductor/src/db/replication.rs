//! Decisions about leaders and in-sync sets. What may be decided is in `afs-decisions`; here it is
//! made durable, one transaction each, with an event. What leaders ask for is in `asks.rs`.

use std::collections::BTreeMap;

use afs_decisions::{
    ClusterView, Denied, Member, NodeId, Place, Role, VolumeConfig, add_member, elect,
    force_in_sync, move_leader, relocate, remove_member, set_min_in_sync,
};
use uuid::Uuid;

use super::backend::Transaction;
use super::decision::Decision;
use super::query::{query_as, query_scalar};
use super::{DbError, Decided, MetaDb, VolumeRow, configs, volumes};
use crate::api::Severity;
use crate::refusal::{Kind, Refusal};

impl MetaDb {
    /// The operator wants another leader.
    pub async fn lead(
        &self,
        name: &str,
        node: &str,
        view: &ClusterView,
    ) -> Result<Decided<Uuid>, DbError> {
        let mut decision = self.begin().await?;
        let to = node_id(decision.connection(), node).await?;
        let (volume, config) = find(decision.connection(), name).await?;
        if config.leader == Some(to) {
            return decision.commit(volume.uuid).await;
        }
        let next = move_leader(&config, to, view).map_err(denied(&volume.name))?;
        configs::store(&mut decision, &config, &next, &BTreeMap::new()).await?;
        let message = format!("node {node} is to lead volume {}", volume.name);
        decision.volume_changed("leader_moved", &volume.name, message);
        decision.commit(volume.uuid).await
    }

    /// The operator's explicit word that a replica is to count as in sync.
    pub async fn force_in_sync(
        &self,
        name: &str,
        replica: Uuid,
        view: &ClusterView,
    ) -> Result<Decided<Uuid>, DbError> {
        let mut decision = self.begin().await?;
        let (volume, config) = find(decision.connection(), name).await?;
        let shard = config.members().find(|(_, member)| member.replica == replica);
        let Some((shard, member)) = shard.map(|(shard, member)| (shard, *member)) else {
            let known = config.members().map(|(_, it)| it.replica.to_string()).collect::<Vec<_>>();
            let known = known.iter().map(String::as_str);
            return Err(Refusal::not_found(Kind::Replica, &replica.to_string(), known).into());
        };
        let mut next =
            force_in_sync(&config, shard, replica, view).map_err(denied(&volume.name))?;
        // Above whatever was promised in decisions that MetaDB has lost (DESIGN 7).
        next.epoch = next.epoch.max(decision.promised(config.volume).saturating_add(1));
        configs::store(&mut decision, &config, &next, &BTreeMap::new()).await?;
        let lost = match member.role {
            Role::InSync => "it had every acknowledged write",
            Role::OutOfSync => "acknowledged writes may be lost",
        };
        let name = &volume.name;
        let message = format!(
            "replica {replica} alone is in sync in shard {shard} of {name} by force; {lost}"
        );
        decision.warn("replica_forced", name, message);
        decision.commit(volume.uuid).await
    }

    /// Another minimum of in-sync replicas.
    pub async fn set_min_in_sync(&self, name: &str, min: u8) -> Result<Decided<Uuid>, DbError> {
        let mut decision = self.begin().await?;
        let (volume, config) = find(decision.connection(), name).await?;
        if config.min_in_sync != min {
            let next = set_min_in_sync(&config, min).map_err(denied(&volume.name))?;
            configs::store(&mut decision, &config, &next, &BTreeMap::new()).await?;
            let name = &volume.name;
            let message = format!("volume {name} needs {min} in-sync replica(s) to take writes");
            decision.volume_changed("min_in_sync_changed", name, message);
        }
        decision.commit(volume.uuid).await
    }

    /// Elects new leaders for those of these volumes that need one and can have one. Each election
    /// sees the ones before it, so the load spreads. Returns how many were elected.
    pub async fn elect(
        &self,
        volumes: &[Uuid],
        view: &mut ClusterView,
    ) -> Result<Decided<usize>, DbError> {
        let mut decision = self.begin().await?;
        let mut elected = 0;
        for volume in volumes {
            let Some(config) = configs::load(decision.connection(), *volume).await? else {
                continue;
            };
            let Ok(next) = elect(&config, view) else { continue };
            if decision.older_than_replicas(&config).is_some() {
                continue;
            }
            configs::store(&mut decision, &config, &next, &BTreeMap::new()).await?;
            view.count_leader(Some(&config), Some(&next));
            let name = volume_name(decision.connection(), *volume).await?;
            let leader = node_word(decision.connection(), next.leader).await?;
            let before = node_word(decision.connection(), config.leader).await?;
            let dropped = dropped(&config, &next);
            let message = format!("{leader} is to lead volume {name} instead of {before}{dropped}");
            decision.warn("leader_elected", &name, message);
            elected += 1;
        }
        decision.commit(elected).await
    }

    /// Adds a replica on this disk, for the leader to fill.
    pub async fn add_replica(
        &self,
        volume: Uuid,
        epoch: u64,
        shard: u32,
        disk: Uuid,
    ) -> Result<Decided<Uuid>, DbError> {
        let mut decision = self.begin().await?;
        let (name, config) = in_epoch(decision.connection(), volume, epoch).await?;
        let node = volumes::disk_node(decision.connection(), disk).await?;
        let place = Place { replica: Uuid::new_v4(), node };
        let next = add_member(&config, shard, place).map_err(denied(&name))?;
        configs::store(&mut decision, &config, &next, &[(place.replica, disk)].into()).await?;
        let node = node_word(decision.connection(), Some(node)).await?;
        let message = format!("{node} is to hold a further replica of shard {shard} of {name}");
        decision.volume_changed("replica_added", &name, message);
        decision.commit(place.replica).await
    }

    /// Takes a replica out for good.
    pub async fn remove_replica(
        &self,
        volume: Uuid,
        epoch: u64,
        shard: u32,
        replica: Uuid,
    ) -> Result<Decided<()>, DbError> {
        let mut decision = self.begin().await?;
        let (name, config) = in_epoch(decision.connection(), volume, epoch).await?;
        let next = remove_member(&config, shard, replica).map_err(denied(&name))?;
        configs::store(&mut decision, &config, &next, &BTreeMap::new()).await?;
        let message =
            format!("replica {replica} of shard {shard} of {name} is not needed any more");
        decision.volume_changed("replica_removed", &name, message);
        decision.commit(()).await
    }
}

/// A disk was carried to another node, and its replicas with it.
pub(super) async fn disk_moved(
    decision: &mut Decision,
    disk: Uuid,
    to: NodeId,
) -> Result<(), DbError> {
    let moved: Vec<(Uuid, Uuid)> = query_as(
        "SELECT volume, uuid FROM replicas WHERE disk = $1 AND state = 'wanted' AND node <> $2",
    )
    .bind(disk)
    .bind(i64::from(to.0))
    .fetch_all(decision.connection())
    .await?;
    for (volume, replica) in moved {
        let config = must_exist(decision.connection(), volume).await?;
        let next = match decision.older_than_replicas(&config) {
            Some(denied) => Err(denied),
            None => relocate(&config, replica, to),
        };
        match next {
            Ok(next) => configs::store(decision, &config, &next, &BTreeMap::new()).await?,
            Err(denied) => {
                let name = volume_name(decision.connection(), volume).await?;
                let message = format!("replica {replica} of {name} cannot be used there: {denied}");
                decision.note(Severity::Warning, "replica_misplaced", &name, message);
            }
        }
    }
    Ok(())
}

fn dropped(before: &VolumeConfig, after: &VolumeConfig) -> String {
    let count = |config: &VolumeConfig| -> usize {
        config.members().filter(|(_, member): &(u32, &Member)| member.role == Role::InSync).count()
    };
    match count(before).saturating_sub(count(after)) {
        0 => String::new(),
        count => format!("; {count} replica(s) on nodes that are not up are out of sync now"),
    }
}

/// A denial of something that an operator asked for.
pub(super) fn denied(volume: &str) -> impl FnOnce(Denied) -> Refusal {
    let volume = volume.to_owned();
    move |reason| Refusal::Denied { volume, reason }
}

pub(super) async fn must_exist(
    connection: &mut Transaction,
    volume: Uuid,
) -> Result<VolumeConfig, DbError> {
    let config = configs::load(connection, volume).await?;
    config.ok_or_else(|| Refusal::not_found(Kind::Volume, &volume.to_string(), []).into())
}

/// For a decision based on what was read outside of it.
async fn in_epoch(
    connection: &mut Transaction,
    volume: Uuid,
    epoch: u64,
) -> Result<(String, VolumeConfig), DbError> {
    let config = must_exist(connection, volume).await?;
    let name = volume_name(connection, volume).await?;
    if config.epoch == epoch {
        return Ok((name, config));
    }
    Err(Refusal::Changed { kind: Kind::Volume, name }.into())
}

async fn find(
    connection: &mut Transaction,
    name: &str,
) -> Result<(VolumeRow, VolumeConfig), DbError> {
    let volume = volumes::find(connection, name).await?;
    let config = must_exist(connection, volume.uuid).await?;
    Ok((volume, config))
}

pub(super) async fn volume_name(
    connection: &mut Transaction,
    volume: Uuid,
) -> Result<String, DbError> {
    let name = query_scalar("SELECT name FROM volumes WHERE uuid = $1").bind(volume);
    name.fetch_one(connection).await
}

/// A node, for people.
pub(super) async fn node_word(
    connection: &mut Transaction,
    node: Option<NodeId>,
) -> Result<String, DbError> {
    let Some(node) = node else { return Ok("nobody".to_owned()) };
    let name: Option<String> = query_scalar("SELECT name FROM nodes WHERE id = $1")
        .bind(i64::from(node.0))
        .fetch_optional(connection)
        .await?;
    Ok(name.map_or_else(|| node.to_string(), |name| format!("node {name}")))
}

async fn node_id(connection: &mut Transaction, name: &str) -> Result<NodeId, DbError> {
    let id: Option<i64> =
        query_scalar("SELECT id FROM nodes WHERE name = $1 AND state <> 'removed'")
            .bind(name)
            .fetch_optional(connection)
            .await?;
    if let Some(id) = id {
        return Ok(NodeId(super::numbers::narrow(id, "number of a node")?));
    }
    let known: Vec<String> = query_scalar("SELECT name FROM nodes WHERE state <> 'removed'")
        .fetch_all(connection)
        .await?;
    Err(Refusal::not_found(Kind::Node, name, known.iter().map(String::as_str)).into())
}
