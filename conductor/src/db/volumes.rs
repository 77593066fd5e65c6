//! Decisions about volumes.

use std::collections::BTreeMap;

use afs_decisions::{
    BLOCK_BYTES, ClusterView, NodeId, Place, PlacementError, REPLICAS_MAX, VolumeConfig, create,
    grow, place,
};
use uuid::Uuid;

use super::backend::Transaction;
use super::decision::Decision;
use super::news::Touch;
use super::numbers::{narrow, sql};
use super::query::{query, query_as, query_scalar};
use super::replication::denied;
use super::{DbError, Decided, MetaDb, VolumeRow, configs};
use crate::names;
use crate::refusal::{Kind, Refusal};
use crate::size::{MAX_VOLUME_BYTES, human, round_up};

/// Shards are whole chunks of every disk.
const SHARD_STEP: u64 = 1 << 30;

/// Shards of one volume: the largest volume in pieces of the usual size. All of them are decided
/// about at once, so they must not be too many.
const SHARDS_MAX: u64 = 1024;

/// A volume as it is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Blocks of each shard but the last.
    pub shard_blocks: u64,
    /// Writes stall with fewer in-sync replicas than this.
    pub min_in_sync: u8,
    /// For each shard the disks of its replicas.
    pub disks: Vec<Vec<Uuid>>,
}

impl NewVolume {
    /// One shard, which covers the largest volume: what a volume of one replica gets.
    pub const WHOLE: u64 = MAX_VOLUME_BYTES / BLOCK_BYTES;

    /// A volume of one replica on this disk.
    pub fn alone(name: &str, size_bytes: u64, disk: Uuid) -> Self {
        let (name, disks) = (name.to_owned(), vec![vec![disk]]);
        Self { name, size_bytes, shard_blocks: Self::WHOLE, min_in_sync: 1, disks }
    }
}

/// Checks how a volume is to be replicated.
pub(crate) fn check_replication(
    replicas: u8,
    min_in_sync: u8,
    size_bytes: u64,
    shard_bytes: Option<u64>,
) -> Result<(), Refusal> {
    if !(1..=REPLICAS_MAX).contains(&replicas) {
        return Err(Refusal::BadReplicas { replicas });
    }
    if !(1..=replicas).contains(&min_in_sync) {
        return Err(Refusal::BadMinInSync { min: min_in_sync, replicas });
    }
    match shard_bytes {
        Some(bytes) if bytes == 0 || !bytes.is_multiple_of(SHARD_STEP) => {
            Err(Refusal::BadShardSize { bytes })
        }
        Some(bytes) => check_shards(size_bytes, bytes / BLOCK_BYTES),
        None => Ok(()),
    }
}

fn check_shards(size_bytes: u64, shard_blocks: u64) -> Result<(), Refusal> {
    match VolumeConfig::shard_count(size_bytes.div_ceil(BLOCK_BYTES), shard_blocks) {
        ..=SHARDS_MAX => Ok(()),
        count => Err(Refusal::TooManyShards { count, max: SHARDS_MAX }),
    }
}

impl MetaDb {
    /// Whether a volume of this name and size could be made, as far as MetaDB knows now.
    pub async fn check_new_volume(&self, name: &str, size_bytes: u64) -> Result<(), DbError> {
        check_name(name)?;
        check_size(size_bytes)?;
        let mut view = self.read().await?;
        refuse_taken(&mut view, name).await
    }

    /// Makes a volume with one shard and one replica, on this disk.
    pub async fn create_volume(
        &self,
        name: &str,
        size_bytes: u64,
        disk: Uuid,
    ) -> Result<Decided<Uuid>, DbError> {
        let new = NewVolume::alone(name, size_bytes, disk);
        self.create_replicated(&new, &ClusterView::default()).await
    }

    /// Makes a volume with replicas on these disks.
    ///
    /// `size_bytes` is rounded up to whole blocks. The nodes' part comes later: the decision is
    /// what their next states will say.
    pub async fn create_replicated(
        &self,
        new: &NewVolume,
        view: &ClusterView,
    ) -> Result<Decided<Uuid>, DbError> {
        let mut view = view.clone();
        let mut decision = self.begin().await?;
        let config = create_in(&mut decision, new, &mut view).await?;
        decision.commit(config.volume).await
    }

    /// Makes many volumes in one decision: all of them, or none.
    pub async fn create_all(
        &self,
        new: &[NewVolume],
        view: &mut ClusterView,
    ) -> Result<Decided<()>, DbError> {
        let mut decision = self.begin().await?;
        for new in new {
            let config = create_in(&mut decision, new, view).await?;
            view.count_leader(None, Some(&config));
        }
        decision.commit(()).await
    }

    /// Makes a volume larger. The same size is fine and changes nothing.
    pub async fn resize_volume(
        &self,
        name: &str,
        size_bytes: u64,
        version: Option<u64>,
        view: &ClusterView,
    ) -> Result<Decided<Uuid>, DbError> {
        let size_bytes = check_size(size_bytes)?;
        let mut decision = self.begin().await?;
        let volume = find(decision.connection(), name).await?;
        check_version(&volume, version)?;
        if size_bytes < volume.size_bytes {
            let (name, from) = (volume.name, volume.size_bytes);
            return Err(Refusal::Shrink { name, from, to: size_bytes }.into());
        }
        if size_bytes > volume.size_bytes {
            let updated = query(
                "UPDATE volumes SET version = version + 1 \
                 WHERE uuid = $1 AND version = $2 AND deleted_ms IS NULL",
            )
            .bind(volume.uuid)
            .bind(sql(volume.version))
            .execute(decision.connection())
            .await?;
            check_swapped(updated, &volume)?;
            let row = VolumeRow { size_bytes, version: volume.version + 1, ..volume.clone() };
            grow_to(&mut decision, &volume, row, view).await?;
            let (old, new) = (human(volume.size_bytes), human(size_bytes));
            let message = format!("volume {} grew from {old} to {new}", volume.name);
            decision.volume_changed("volume_resized", &volume.name, message);
        }
        decision.commit(volume.uuid).await
    }

    /// Deletes a volume that is not exported; its replicas are retired.
    pub async fn delete_volume(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> Result<Decided<Uuid>, DbError> {
        let mut decision = self.begin().await?;
        let volume = find(decision.connection(), name).await?;
        check_version(&volume, version)?;
        if let Some((nqn, nsid)) = export_of(decision.connection(), volume.uuid).await? {
            return Err(Refusal::Exported { volume: volume.name, nqn, nsid }.into());
        }
        let now_ms = decision.now_ms;
        let updated = query(
            "UPDATE volumes SET deleted_ms = $1, version = version + 1 \
             WHERE uuid = $2 AND version = $3 AND deleted_ms IS NULL",
        )
        .bind(now_ms)
        .bind(volume.uuid)
        .bind(sql(volume.version))
        .execute(decision.connection())
        .await?;
        check_swapped(updated, &volume)?;
        query("UPDATE replicas SET state = 'retired' WHERE volume = $1 AND state = 'wanted'")
            .bind(volume.uuid)
            .execute(decision.connection())
            .await?;
        let message = format!("volume {} ({}) deleted", volume.name, volume.uuid);
        decision.volume_changed("volume_deleted", &volume.name, message);
        decision.touch(Touch::Deleted(volume.uuid));
        decision.commit(volume.uuid).await
    }
}

async fn create_in(
    decision: &mut Decision,
    new: &NewVolume,
    view: &mut ClusterView,
) -> Result<VolumeConfig, DbError> {
    let name = &new.name;
    check_name(name)?;
    let size_bytes = check_size(new.size_bytes)?;
    refuse_taken(decision.connection(), name).await?;
    // One identity for UUID and NGUID: a person who sees either on a host finds the volume.
    let uuid = Uuid::new_v4();
    let placed = give_places(decision.connection(), &new.disks).await?;
    // Whoever was given a replica is there, whatever was heard of it since.
    placed.nodes().for_each(|node| view.set_alive(node, true));
    let pure = afs_decisions::NewVolume {
        volume: uuid,
        blocks: size_bytes / BLOCK_BYTES,
        shard_blocks: new.shard_blocks,
        min_in_sync: new.min_in_sync,
        shards: placed.shards,
    };
    let config = create(&pure, view).map_err(denied(name))?;
    let row = VolumeRow {
        uuid,
        name: name.clone(),
        size_bytes,
        nguid: uuid,
        copies: new.disks.first().map_or(0, Vec::len).try_into().unwrap_or(u8::MAX),
        version: 1,
        created_ms: narrow(decision.now_ms, "time")?,
    };
    insert_volume(decision, &row, &config).await?;
    for (shard, member) in config.members() {
        let disk = placed.disks[&member.replica];
        configs::insert_member(decision, uuid, shard, member, disk).await?;
    }
    let message = format!("volume {name} ({}) made{}", human(size_bytes), where_to(new));
    decision.volume_changed("volume_created", name, message);
    let disks = placed.disks.into_iter().collect();
    decision.touch(Touch::Put { config: config.clone(), row: Some(row), disks });
    Ok(config)
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if names::is_name(name) {
        return Ok(());
    }
    // A refused name may be long; the answer is not.
    Err(Refusal::BadName { kind: Kind::Volume, name: name.chars().take(80).collect() })
}

async fn refuse_taken(connection: &mut Transaction, name: &str) -> Result<(), DbError> {
    match by_name(connection, name).await? {
        Some(_) => Err(Refusal::Exists { kind: Kind::Volume, name: name.to_owned() }.into()),
        None => Ok(()),
    }
}

fn check_size(size_bytes: u64) -> Result<u64, Refusal> {
    match size_bytes {
        0 => Err(Refusal::SizeZero),
        1..=MAX_VOLUME_BYTES => Ok(round_up(size_bytes)),
        bytes => Err(Refusal::SizeTooLarge { bytes }),
    }
}

fn check_version(volume: &VolumeRow, version: Option<u64>) -> Result<(), Refusal> {
    if version.is_some_and(|version| version != volume.version) {
        return Err(Refusal::Changed { kind: Kind::Volume, name: volume.name.clone() });
    }
    Ok(())
}

fn check_swapped(rows: u64, volume: &VolumeRow) -> Result<(), Refusal> {
    if rows == 1 {
        return Ok(());
    }
    Err(Refusal::Changed { kind: Kind::Volume, name: volume.name.clone() })
}

/// Where the replicas of a volume go, by node and by disk.
struct Placed {
    shards: Vec<Vec<Place>>,
    disks: BTreeMap<Uuid, Uuid>,
}

impl Placed {
    fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.shards.iter().flatten().map(|place| place.node)
    }
}

/// Gives the replicas their identities.
async fn give_places(
    connection: &mut Transaction,
    shards: &[Vec<Uuid>],
) -> Result<Placed, DbError> {
    let mut nodes = BTreeMap::new();
    for disk in shards.iter().flatten() {
        if !nodes.contains_key(disk) {
            nodes.insert(*disk, disk_node(connection, *disk).await?);
        }
    }
    let mut placed = Placed { shards: Vec::new(), disks: BTreeMap::new() };
    for disks in shards {
        let mut places = Vec::new();
        for disk in disks {
            let place = Place { replica: Uuid::new_v4(), node: nodes[disk] };
            placed.disks.insert(place.replica, *disk);
            places.push(place);
        }
        placed.shards.push(places);
    }
    Ok(placed)
}

/// The node that a disk is in.
pub(super) async fn disk_node(connection: &mut Transaction, disk: Uuid) -> Result<NodeId, DbError> {
    let node: Option<i64> =
        query_scalar("SELECT n.id FROM disks d JOIN nodes n ON n.name = d.node WHERE d.uuid = $1")
            .bind(disk)
            .fetch_optional(connection)
            .await?;
    let node = node.ok_or_else(|| Refusal::not_found(Kind::Disk, &disk.to_string(), []))?;
    Ok(NodeId(narrow(node, "number of a node")?))
}

async fn insert_volume(
    decision: &mut Decision,
    row: &VolumeRow,
    config: &VolumeConfig,
) -> Result<(), DbError> {
    query(
        "INSERT INTO volumes (uuid, name, size_bytes, nguid, version, created_ms, epoch, leader, \
         planned, min_in_sync, copies, shard_blocks) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(row.uuid)
    .bind(&row.name)
    .bind(sql(row.size_bytes))
    .bind(row.nguid)
    .bind(sql(row.version))
    .bind(sql(row.created_ms))
    .bind(sql(config.epoch))
    .bind(config.leader.map(|leader| i64::from(leader.0)))
    .bind(config.planned)
    .bind(i64::from(config.min_in_sync))
    .bind(i64::from(row.copies))
    .bind(sql(config.shard_blocks))
    .execute(decision.connection())
    .await?;
    Ok(())
}

fn where_to(new: &NewVolume) -> String {
    match new.disks.as_slice() {
        [only] => {
            let disks: Vec<String> = only.iter().map(Uuid::to_string).collect();
            format!(" on disk {}", disks.join(", "))
        }
        [first, ..] => format!(": {} shards of {} replica(s)", new.disks.len(), first.len()),
        [] => String::new(),
    }
}

/// The new size, and places for the shards that it needs.
async fn grow_to(
    decision: &mut Decision,
    volume: &VolumeRow,
    row: VolumeRow,
    view: &ClusterView,
) -> Result<(), DbError> {
    let size_bytes = row.size_bytes;
    let Some(config) = configs::load(decision.connection(), volume.uuid).await? else {
        return Err(Refusal::Changed { kind: Kind::Volume, name: volume.name.clone() }.into());
    };
    check_shards(size_bytes, config.shard_blocks)?;
    let blocks = size_bytes / BLOCK_BYTES;
    let larger = VolumeConfig { blocks, ..config.clone() };
    let old = config.shards.len() as u64;
    let added = old..VolumeConfig::shard_count(blocks, config.shard_blocks);
    let sizes: Vec<u64> = added
        .map(|shard| u32::try_from(shard).map_or(0, |shard| larger.blocks_of_shard(shard)))
        .map(|blocks| blocks.saturating_mul(BLOCK_BYTES))
        .collect();
    let places = place(view, &sizes, volume.copies).map_err(no_place)?;
    let disks: Vec<Vec<Uuid>> =
        places.iter().map(|shard| shard.iter().map(|place| place.disk).collect()).collect();
    let placed = give_places(decision.connection(), &disks).await?;
    let next = grow(&config, blocks, &placed.shards).map_err(denied(&volume.name))?;
    configs::store(decision, &config, &next, &placed.disks).await?;
    decision.touch(Touch::Put { config: next, row: Some(row), disks: Vec::new() });
    Ok(())
}

/// Too few nodes for the replicas.
pub(crate) fn no_place(error: PlacementError) -> Refusal {
    let PlacementError::TooFewNodes { wanted, found } = error;
    if found == 0 { Refusal::NoDisk } else { Refusal::TooFewNodes { wanted, found } }
}

async fn by_name(connection: &mut Transaction, name: &str) -> Result<Option<VolumeRow>, DbError> {
    query_as(
        "SELECT uuid, name, size_bytes, nguid, copies, version, created_ms FROM volumes \
         WHERE name = $1 AND deleted_ms IS NULL",
    )
    .bind(name)
    .fetch_optional(connection)
    .await
}

/// The volume of this name or UUID.
pub(super) async fn find(connection: &mut Transaction, name: &str) -> Result<VolumeRow, DbError> {
    if let Some(volume) = by_name(connection, name).await? {
        return Ok(volume);
    }
    if let Ok(uuid) = name.parse::<Uuid>() {
        let volume = query_as(
            "SELECT uuid, name, size_bytes, nguid, copies, version, created_ms FROM volumes \
             WHERE uuid = $1 AND deleted_ms IS NULL",
        )
        .bind(uuid)
        .fetch_optional(connection)
        .await?;
        if let Some(volume) = volume {
            return Ok(volume);
        }
    }
    let known: Vec<String> = query_scalar("SELECT name FROM volumes WHERE deleted_ms IS NULL")
        .fetch_all(connection)
        .await?;
    Err(Refusal::not_found(Kind::Volume, name, known.iter().map(String::as_str)).into())
}

/// The namespace that a volume is exported as.
pub(super) async fn export_of(
    connection: &mut Transaction,
    volume: Uuid,
) -> Result<Option<(String, u64)>, DbError> {
    let row: Option<(String, i64)> =
        query_as("SELECT nqn, nsid FROM namespaces WHERE volume = $1 AND removed_ms IS NULL")
            .bind(volume)
            .fetch_optional(connection)
            .await?;
    row.map(|(nqn, nsid)| Ok((nqn, narrow(nsid, "NSID")?))).transpose()
}
