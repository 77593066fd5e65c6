//! The configurations of volumes in tables: a row of `volumes`, and the `wanted` ones of
//! `replicas` as members.
//!
//! A decision loads one within its transaction, has `afs-decisions` compute the next, and stores
//! that with a compare-and-swap on the epoch.

use std::collections::{BTreeMap, BTreeSet};

use afs_decisions::{BLOCK_BYTES, Member, NodeId, Role, Shard, VolumeConfig};
use uuid::Uuid;

use super::DbError;
use super::backend::Transaction;
use super::decision::Decision;
use super::news::Touch;
use super::numbers::{narrow, sql};
use super::query::{query, query_as};
use crate::refusal::Refusal;

#[derive(sqlx::FromRow)]
struct ConfigRow {
    uuid: Uuid,
    #[sqlx(try_from = "i64")]
    size_bytes: u64,
    #[sqlx(try_from = "i64")]
    epoch: u64,
    leader: Option<i64>,
    leader_process: i64,
    #[sqlx(try_from = "i64")]
    reign: u64,
    planned: bool,
    #[sqlx(try_from = "i64")]
    min_in_sync: u8,
    #[sqlx(try_from = "i64")]
    shard_blocks: u64,
}

#[derive(sqlx::FromRow)]
pub(super) struct MemberRow {
    pub(super) uuid: Uuid,
    pub(super) volume: Uuid,
    #[sqlx(try_from = "i64")]
    pub(super) shard: u32,
    pub(super) disk: Uuid,
    #[sqlx(try_from = "i64")]
    node: u32,
    in_sync: bool,
}

/// The configuration of a volume that exists.
pub(super) async fn load(
    connection: &mut Transaction,
    volume: Uuid,
) -> Result<Option<VolumeConfig>, DbError> {
    let row: Option<ConfigRow> = query_as(
        "SELECT uuid, size_bytes, epoch, leader, leader_process, reign, planned, min_in_sync, \
         shard_blocks FROM volumes WHERE uuid = $1 AND deleted_ms IS NULL",
    )
    .bind(volume)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let members: Vec<MemberRow> = query_as(
        "SELECT uuid, volume, shard, disk, node, in_sync FROM replicas \
         WHERE volume = $1 AND state = 'wanted' ORDER BY shard, uuid",
    )
    .bind(volume)
    .fetch_all(connection)
    .await?;
    config(&row, &members).map(Some)
}

/// The configurations of all volumes that exist, and their members in the order of volume, shard and replica.
pub(super) async fn load_all(
    connection: &mut Transaction,
) -> Result<(BTreeMap<Uuid, VolumeConfig>, Vec<MemberRow>), DbError> {
    let rows: Vec<ConfigRow> = query_as(
        "SELECT uuid, size_bytes, epoch, leader, leader_process, reign, planned, min_in_sync, \
         shard_blocks FROM volumes WHERE deleted_ms IS NULL",
    )
    .fetch_all(connection)
    .await?;
    let mut all: Vec<MemberRow> = query_as(
        "SELECT uuid, volume, shard, disk, node, in_sync FROM replicas WHERE state = 'wanted'",
    )
    .fetch_all(connection)
    .await?;
    // Much quicker than ORDER BY, which has SQLite look each row up again.
    all.sort_unstable_by_key(|row| (row.volume, row.shard, row.uuid));
    let members: BTreeMap<Uuid, &[MemberRow]> = all
        .chunk_by(|a, b| a.volume == b.volume)
        .filter_map(|same| Some((same.first()?.volume, same)))
        .collect();
    let config = |row: &ConfigRow| {
        let members = members.get(&row.uuid).copied().unwrap_or_default();
        Ok((row.uuid, config(row, members)?))
    };
    let configs = rows.iter().map(config).collect::<Result<_, DbError>>()?;
    Ok((configs, all))
}

fn config(row: &ConfigRow, members: &[MemberRow]) -> Result<VolumeConfig, DbError> {
    let blocks = row.size_bytes / BLOCK_BYTES;
    let shards = VolumeConfig::shard_count(blocks, row.shard_blocks);
    let mut shards = vec![Shard::default(); narrow(sql(shards), "number of shards")?];
    for member in members {
        let index = usize::try_from(member.shard).unwrap_or(usize::MAX);
        let shard = shards.get_mut(index).ok_or_else(|| {
            DbError::Damaged(format!("shard {} of volume {}", member.shard, row.uuid))
        })?;
        shard.members.push(Member {
            replica: member.uuid,
            node: NodeId(member.node),
            role: if member.in_sync { Role::InSync } else { Role::OutOfSync },
        });
    }
    let leader = row.leader.map(|leader| narrow(leader, "number of a node")).transpose()?;
    Ok(VolumeConfig {
        volume: row.uuid,
        epoch: row.epoch,
        leader: leader.map(NodeId),
        leader_process: row.leader_process.cast_unsigned(),
        reign: row.reign,
        planned: row.planned,
        min_in_sync: row.min_in_sync,
        blocks,
        shard_blocks: row.shard_blocks,
        shards,
    })
}

/// Stores what was decided, if the volume is still in the epoch that it was decided in. `disks`
/// tells where replicas go that were not there before.
pub(super) async fn store(
    decision: &mut Decision,
    before: &VolumeConfig,
    after: &VolumeConfig,
    disks: &BTreeMap<Uuid, Uuid>,
) -> Result<(), DbError> {
    after.check().map_err(|broken| DbError::Damaged(broken.to_string()))?;
    if let Some(denied) = decision.older_than_replicas(before)
        && decision.older_than_replicas(after).is_some()
    {
        let volume = after.volume.to_string();
        return Err(Refusal::Denied { volume, reason: denied }.into());
    }
    let swapped = query(
        "UPDATE volumes SET epoch = $1, leader = $2, leader_process = $3, reign = $4, planned = $5, \
         min_in_sync = $6, size_bytes = $7 WHERE uuid = $8 AND epoch = $9 AND deleted_ms IS NULL",
    )
    .bind(sql(after.epoch))
    .bind(after.leader.map(|leader| i64::from(leader.0)))
    .bind(after.leader_process.cast_signed())
    .bind(sql(after.reign))
    .bind(after.planned)
    .bind(i64::from(after.min_in_sync))
    .bind(sql(after.blocks.saturating_mul(BLOCK_BYTES)))
    .bind(after.volume)
    .bind(sql(before.epoch))
    .execute(decision.connection())
    .await?;
    if swapped != 1 {
        return Err(Refusal::Collision.into());
    }
    store_members(decision, before, after, disks).await?;
    let disks = disks.iter().map(|(replica, disk)| (*replica, *disk)).collect();
    decision.touch(Touch::Put { config: after.clone(), row: None, disks });
    Ok(())
}

async fn store_members(
    decision: &mut Decision,
    before: &VolumeConfig,
    after: &VolumeConfig,
    disks: &BTreeMap<Uuid, Uuid>,
) -> Result<(), DbError> {
    let old: BTreeMap<Uuid, &Member> = before.members().map(|(_, it)| (it.replica, it)).collect();
    let kept: BTreeSet<Uuid> = after.members().map(|(_, it)| it.replica).collect();
    for replica in old.keys().filter(|replica| !kept.contains(*replica)) {
        query("UPDATE replicas SET state = 'retired' WHERE uuid = $1 AND state = 'wanted'")
            .bind(*replica)
            .execute(decision.connection())
            .await?;
    }
    for (shard, member) in after.members() {
        match old.get(&member.replica) {
            Some(old) if *old == member => {}
            Some(_) => update_member(decision, member).await?,
            None => {
                let disk = disks.get(&member.replica).copied();
                let disk = disk.ok_or_else(|| {
                    DbError::Damaged(format!("replica {} without a disk", member.replica))
                })?;
                insert_member(decision, after.volume, shard, member, disk).await?;
            }
        }
    }
    Ok(())
}

async fn update_member(decision: &mut Decision, member: &Member) -> Result<(), DbError> {
    query("UPDATE replicas SET in_sync = $1, node = $2 WHERE uuid = $3")
        .bind(member.role == Role::InSync)
        .bind(i64::from(member.node.0))
        .bind(member.replica)
        .execute(decision.connection())
        .await?;
    Ok(())
}

/// Writes a replica that was not there before.
pub(super) async fn insert_member(
    decision: &mut Decision,
    volume: Uuid,
    shard: u32,
    member: &Member,
    disk: Uuid,
) -> Result<(), DbError> {
    query(
        "INSERT INTO replicas (uuid, volume, shard, disk, node, in_sync, state) \
         VALUES ($1, $2, $3, $4, $5, $6, 'wanted')",
    )
    .bind(member.replica)
    .bind(volume)
    .bind(i64::from(shard))
    .bind(disk)
    .bind(i64::from(member.node.0))
    .bind(member.role == Role::InSync)
    .execute(decision.connection())
    .await?;
    Ok(())
}
