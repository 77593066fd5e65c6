//! Decisions about leaders and in-sync sets. What may be decided is in `afs-decisions`; here it is
//! made durable, one transaction each, with an event.
//!
//! What a leader asks for ([`MetaDb::claim`] and the three after it) is answered with the newest
//! configuration, whether it was granted or not: an answer may get lost, and who asks again finds
//! in it what was decided. These decisions change nobody's duties but the asker's, so they do not
//! move the revision.

use std::collections::{BTreeMap, BTreeSet};

use afs_decisions::{
    Asker, Claim, ClusterView, Denied, Member, NodeId, Place, Role, VolumeConfig, add_member,
    admit, claim, drop_member, elect, force_in_sync, move_leader, needs_election, relocate,
    remove_member, renew, set_min_in_sync,
};
use uuid::Uuid;

use super::backend::Transaction;
use super::claims::Claimant;
use super::decision::Decision;
use super::query::{query_as, query_scalar};
use super::{DbError, Decided, MetaDb, VolumeRow, configs, volumes};
use crate::api::Severity;
use crate::refusal::{Kind, Refusal};

/// The answer to a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is decided now.
    pub config: VolumeConfig,
    /// Why what was asked for was not decided.
    pub denied: Option<Denied>,
}

/// What a decision is called in the events.
struct News {
    severity: Severity,
    kind: &'static str,
    message: String,
}

impl News {
    fn info(kind: &'static str, message: String) -> Self {
        Self { severity: Severity::Info, kind, message }
    }

    fn warning(kind: &'static str, message: String) -> Self {
        Self { severity: Severity::Warning, kind, message }
    }
}

impl MetaDb {
    /// A leader starts.
    pub async fn claim(
        &self,
        volume: Uuid,
        node: NodeId,
        process: u64,
    ) -> Result<Decided<Asked>, DbError> {
        let claimant = Claimant { volume, node, process };
        self.claims.decide(&self.maker, &self.transaction_seconds, claimant).await
    }

    /// A leader wants to seal again.
    pub async fn renew(&self, volume: Uuid, asker: Asker) -> Result<Decided<Asked>, DbError> {
        let decide = |config: &VolumeConfig| renew(config, asker).map(Some);
        self.ask(volume, decide, |name, who, next| {
            let epoch = next.epoch;
            News::info("leader_renewed", format!("{who} seals volume {name} in epoch {epoch}"))
        })
        .await
    }

    /// A leader says that a replica fails.
    pub async fn accuse(
        &self,
        volume: Uuid,
        asker: Asker,
        shard: u32,
        replica: Uuid,
        view: &ClusterView,
    ) -> Result<Decided<Asked>, DbError> {
        let decide =
            |config: &VolumeConfig| drop_member(config, asker, shard, replica, view).map(Some);
        self.ask(volume, decide, |name, who, next| {
            let left = in_sync(next, shard);
            News::warning(
                "replica_dropped",
                format!("{who} dropped replica {replica} of shard {shard} of {name}: {left}"),
            )
        })
        .await
    }

    /// Whether `asker` leads a volume, in its newest epoch.
    pub async fn leads(&self, volume: Uuid, asker: Asker) -> Result<bool, DbError> {
        let mut view = self.read().await?;
        let config = configs::load(&mut view, volume).await?;
        let Asker { node, process, epoch } = asker;
        Ok(config.is_some_and(|config| config.is_led_by(node, process, epoch)))
    }

    /// The node that holds a replica.
    pub async fn node_of_replica(&self, replica: Uuid) -> Result<Option<NodeId>, DbError> {
        let mut view = self.read().await?;
        let node: Option<i64> =
            query_scalar("SELECT node FROM replicas WHERE uuid = $1 AND state = 'wanted'")
                .bind(replica)
                .fetch_optional(&mut view)
                .await?;
        node.map(|node| Ok(NodeId(super::numbers::narrow(node, "number of a node")?))).transpose()
    }

    /// A leader says that a replica has everything.
    pub async fn admit(
        &self,
        volume: Uuid,
        asker: Asker,
        shard: u32,
        replica: Uuid,
    ) -> Result<Decided<Asked>, DbError> {
        let decide = |config: &VolumeConfig| admit(config, asker, shard, replica).map(Some);
        self.ask(volume, decide, |name, who, next| {
            let left = in_sync(next, shard);
            News::info(
                "replica_admitted",
                format!("{who} admitted replica {replica} of shard {shard} of {name}: {left}"),
            )
        })
        .await
    }

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
        decision.changed("leader_moved", &volume.name, message);
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
            decision.changed("min_in_sync_changed", name, message);
        }
        decision.commit(volume.uuid).await
    }

    /// Volumes that need another leader: of those that these nodes led, and those whose leader is
    /// one end of such a link while a replica is at the other.
    pub async fn need_leader(
        &self,
        dead: &[NodeId],
        links: &BTreeSet<(NodeId, NodeId)>,
        view: &ClusterView,
    ) -> Result<Vec<Uuid>, DbError> {
        let mut moment = self.read().await?;
        let mut volumes = BTreeSet::new();
        for node in dead {
            let led: Vec<Uuid> =
                query_scalar("SELECT uuid FROM volumes WHERE leader = $1 AND deleted_ms IS NULL")
                    .bind(i64::from(node.0))
                    .fetch_all(&mut moment)
                    .await?;
            volumes.extend(led);
        }
        for (leader, holder) in links {
            let led: Vec<Uuid> = query_scalar(
                "SELECT v.uuid FROM volumes v JOIN replicas r ON r.volume = v.uuid \
                 WHERE v.leader = $1 AND v.deleted_ms IS NULL \
                 AND r.node = $2 AND r.state = 'wanted'",
            )
            .bind(i64::from(leader.0))
            .bind(i64::from(holder.0))
            .fetch_all(&mut moment)
            .await?;
            volumes.extend(led);
        }
        let mut needy = Vec::new();
        for volume in volumes {
            let config = configs::load(&mut moment, volume).await?;
            if config.is_some_and(|config| needs_election(&config, view).is_some()) {
                needy.push(volume);
            }
        }
        Ok(needy)
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
        decision.changed("replica_added", &name, message);
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
        decision.changed("replica_removed", &name, message);
        decision.commit(()).await
    }

    async fn ask(
        &self,
        volume: Uuid,
        decide: impl FnOnce(&VolumeConfig) -> Result<Option<VolumeConfig>, Denied>,
        news: impl FnOnce(&str, &str, &VolumeConfig) -> News,
    ) -> Result<Decided<Asked>, DbError> {
        let mut decision = self.begin().await?;
        let asked = ask_in(&mut decision, volume, decide, news).await?;
        decision.commit(asked).await
    }
}

/// A claim, as part of a decision.
pub(super) async fn claim_in(
    decision: &mut Decision,
    Claimant { volume, node, process }: Claimant,
) -> Result<Asked, DbError> {
    let decide = |config: &VolumeConfig| match claim(config, node, process)? {
        Claim::New(next) => Ok(Some(next)),
        Claim::AlreadyYours => Ok(None),
    };
    ask_in(decision, volume, decide, |name, who, next| {
        let epoch = next.epoch;
        News::info("leader_claimed", format!("{who} leads volume {name} from epoch {epoch}"))
    })
    .await
}

async fn ask_in(
    decision: &mut Decision,
    volume: Uuid,
    decide: impl FnOnce(&VolumeConfig) -> Result<Option<VolumeConfig>, Denied>,
    news: impl FnOnce(&str, &str, &VolumeConfig) -> News,
) -> Result<Asked, DbError> {
    let config = must_exist(decision.connection(), volume).await?;
    let decided = match decision.older_than_replicas(&config) {
        Some(denied) => Err(denied),
        None => decide(&config),
    };
    let next = match decided {
        Ok(Some(next)) => next,
        Ok(None) => return Ok(Asked { config, denied: None }),
        Err(denied) => {
            tracing::info!(%volume, %denied, "a leader asked for what cannot be decided");
            return Ok(Asked { config, denied: Some(denied) });
        }
    };
    configs::store(decision, &config, &next, &BTreeMap::new()).await?;
    let name = volume_name(decision.connection(), volume).await?;
    let who = node_word(decision.connection(), next.leader).await?;
    let News { severity, kind, message } = news(&name, &who, &next);
    decision.note(severity, kind, &name, message);
    Ok(Asked { config: next, denied: None })
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

fn in_sync(config: &VolumeConfig, shard: u32) -> String {
    let shard = usize::try_from(shard).ok().and_then(|shard| config.shards.get(shard));
    shard.map_or_else(String::new, |shard| {
        format!("{} of {} replicas are in sync", shard.in_sync_count(), shard.members.len())
    })
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

async fn must_exist(connection: &mut Transaction, volume: Uuid) -> Result<VolumeConfig, DbError> {
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

async fn volume_name(connection: &mut Transaction, volume: Uuid) -> Result<String, DbError> {
    let name = query_scalar("SELECT name FROM volumes WHERE uuid = $1").bind(volume);
    name.fetch_one(connection).await
}

/// A node, for people.
async fn node_word(connection: &mut Transaction, node: Option<NodeId>) -> Result<String, DbError> {
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
