//! Calls about volumes.

use std::collections::BTreeSet;

use afs_decisions::{BLOCK_BYTES, DEFAULT_SHARD_BYTES, default_min_in_sync};
use axum::Json;

use crate::api::{
    CreateVolume, ErrorBody, ForceReplica, LeadVolume, Outcome, ReplicaState, ResizeVolume,
    SetMinInSync, Version, Volume, VolumeChanged,
};
use crate::db::{NewVolume, check_replication};
use crate::placement;
use crate::refusal::Refusal;
use crate::server::Shared;
use crate::server::answer::Answer;
use crate::server::extract::{Body, Path, Query};
use crate::server::front::Active;
use crate::server::outcome::Concerned;
use crate::size::{human, round_up};

/// List volumes
#[utoipa::path(get, path = "/api/v1/volumes", tag = "volumes",
    responses((status = 200, body = Vec<Volume>)))]
pub(super) async fn list(Active(shared): Active) -> Answer<Vec<Volume>> {
    Ok(Json(shared.view().await?.volumes()))
}

/// Show a volume
#[utoipa::path(get, path = "/api/v1/volumes/{name}", tag = "volumes",
    params(("name" = String, Path, description = "Name or UUID")),
    responses((status = 200, body = Volume), (status = "default", body = ErrorBody)))]
pub(super) async fn show(Active(shared): Active, Path(name): Path<String>) -> Answer<Volume> {
    Ok(Json(shared.view().await?.find_volume(&name)?))
}

/// Make a volume
///
/// Waits a few seconds for the nodes to make its replicas.
#[utoipa::path(post, path = "/api/v1/volumes", tag = "volumes", request_body = CreateVolume,
    responses((status = 200, body = VolumeChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn create(
    Active(shared): Active,
    Body(request): Body<CreateVolume>,
) -> Answer<VolumeChanged> {
    // What is wrong with the request itself is said before what is wrong with the disks.
    shared.db.check_new_volume(&request.name, request.size_bytes).await?;
    let replicas = request.replicas.unwrap_or(1);
    let min_in_sync = request.min_in_sync.unwrap_or(default_min_in_sync(replicas));
    check_replication(replicas, min_in_sync, request.size_bytes, request.shard_bytes)?;
    let (view, beliefs) = shared.view_and_beliefs().await?;
    let size_bytes = round_up(request.size_bytes);
    let shard_blocks = shard_blocks(replicas, request.shard_bytes);
    let shards = shard_sizes(size_bytes, shard_blocks);
    let disks = view.disks();
    let mut choice = match &request.disk {
        Some(disk) if replicas == 1 && shards.len() == 1 => {
            placement::named(&disks, disk, size_bytes)?
        }
        Some(_) => {
            let text = "a disk can be named only for a volume of one replica and one shard";
            return Err(Refusal::Malformed(text.to_owned()).into());
        }
        None => placement::choose(&disks, &beliefs, &shards, replicas)?,
    };
    let CreateVolume { name, .. } = request;
    let new = NewVolume {
        name: name.clone(),
        size_bytes,
        shard_blocks,
        min_in_sync,
        disks: choice.disks,
    };
    let decided = shared.db.create_replicated(&new, &beliefs).await?;
    note_rounding(&mut choice.notes, request.size_bytes);
    let outcome = shared.outcome(decided.revision, Concerned::Nodes(choice.nodes), choice.notes);
    changed(&shared, &name, outcome.await).await
}

/// A volume of one replica is one piece unless asked for otherwise.
fn shard_blocks(replicas: u8, wanted: Option<u64>) -> u64 {
    let usual = if replicas == 1 { NewVolume::WHOLE * BLOCK_BYTES } else { DEFAULT_SHARD_BYTES };
    wanted.unwrap_or(usual) / BLOCK_BYTES
}

fn shard_sizes(size_bytes: u64, shard_blocks: u64) -> Vec<u64> {
    let shard_bytes = shard_blocks.saturating_mul(BLOCK_BYTES);
    let count = size_bytes.div_ceil(shard_bytes);
    (0..count).map(|shard| (size_bytes - shard * shard_bytes).min(shard_bytes)).collect()
}

/// Let another node lead a volume
///
/// Hosts are not disturbed. The answer comes when it is decided; the move follows.
#[utoipa::path(post, path = "/api/v1/volumes/{name}/leader", tag = "volumes",
    request_body = LeadVolume,
    params(("name" = String, Path, description = "Name or UUID")),
    responses((status = 200, body = VolumeChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn lead(
    Active(shared): Active,
    Path(name): Path<String>,
    Body(LeadVolume { node }): Body<LeadVolume>,
) -> Answer<VolumeChanged> {
    let beliefs = shared.beliefs().await?;
    let decided = shared.db.lead(&name, &node, &beliefs).await?;
    let outcome = shared.outcome(decided.revision, Concerned::All, Vec::new()).await;
    changed(&shared, &decided.value.to_string(), outcome).await
}

/// Count one replica alone as in sync
///
/// For when the others are lost. If the replica is out of sync, acknowledged writes are lost. It is
/// refused then while a node with an in-sync replica is there.
#[utoipa::path(post, path = "/api/v1/volumes/{name}/force", tag = "volumes",
    request_body = ForceReplica,
    params(("name" = String, Path, description = "Name or UUID")),
    responses((status = 200, body = VolumeChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn force(
    Active(shared): Active,
    Path(name): Path<String>,
    Body(ForceReplica { replica }): Body<ForceReplica>,
) -> Answer<VolumeChanged> {
    let beliefs = shared.beliefs_with_loads().await?;
    let decided = shared.db.force_in_sync(&name, replica, &beliefs).await?;
    let outcome = shared.outcome(decided.revision, Concerned::All, Vec::new()).await;
    changed(&shared, &decided.value.to_string(), outcome).await
}

/// Set how many replicas must be in sync
///
/// With fewer, writes wait.
#[utoipa::path(post, path = "/api/v1/volumes/{name}/min-in-sync", tag = "volumes",
    request_body = SetMinInSync,
    params(("name" = String, Path, description = "Name or UUID")),
    responses((status = 200, body = VolumeChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn min_in_sync(
    Active(shared): Active,
    Path(name): Path<String>,
    Body(SetMinInSync { min_in_sync }): Body<SetMinInSync>,
) -> Answer<VolumeChanged> {
    let decided = shared.db.set_min_in_sync(&name, min_in_sync).await?;
    let outcome = shared.outcome(decided.revision, Concerned::All, Vec::new()).await;
    changed(&shared, &decided.value.to_string(), outcome).await
}

/// Grow a volume
///
/// Hosts see the new size with no reconnect.
#[utoipa::path(patch, path = "/api/v1/volumes/{name}", tag = "volumes",
    request_body = ResizeVolume,
    params(("name" = String, Path, description = "Name or UUID")),
    responses((status = 200, body = VolumeChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn resize(
    Active(shared): Active,
    Path(name): Path<String>,
    Body(request): Body<ResizeVolume>,
) -> Answer<VolumeChanged> {
    let ResizeVolume { size_bytes, version } = request;
    let (_, beliefs) = shared.view_and_beliefs().await?;
    let decided = shared.db.resize_volume(&name, size_bytes, version, &beliefs).await?;
    let mut notes = Vec::new();
    note_rounding(&mut notes, size_bytes);
    // All nodes, as each of them tells its hosts about the size.
    let outcome = shared.outcome(decided.revision, Concerned::All, notes).await;
    changed(&shared, &decided.value.to_string(), outcome).await
}

/// Delete a volume with all its data
///
/// Refused while it is exported.
#[utoipa::path(delete, path = "/api/v1/volumes/{name}", tag = "volumes",
    params(("name" = String, Path, description = "Name or UUID"), Version),
    responses((status = 200, body = VolumeChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn delete(
    Active(shared): Active,
    Path(name): Path<String>,
    Query(version): Query<Version>,
) -> Answer<VolumeChanged> {
    let view = shared.view().await?;
    let volume = view.find_volume(&name)?;
    let nodes: BTreeSet<String> = volume.replicas.into_iter().map(|replica| replica.node).collect();
    let decided = shared.db.delete_volume(&volume.uuid.to_string(), version.version).await?;
    let outcome = shared.outcome(decided.revision, Concerned::Nodes(nodes), Vec::new()).await;
    Ok(Json(VolumeChanged { volume: None, outcome }))
}

fn note_rounding(notes: &mut Vec<String>, asked: u64) {
    let got = round_up(asked);
    if got != asked {
        notes.push(format!(
            "size rounded up from {asked} to {got} bytes ({}), a multiple of 4K",
            human(got)
        ));
    }
}

/// The volume as it is now, with what its nodes had to say.
async fn changed(shared: &Shared, name: &str, mut outcome: Outcome) -> Answer<VolumeChanged> {
    let volume = shared.view().await?.find_volume(name).ok();
    let replicas = volume.iter().flat_map(|volume| &volume.replicas);
    let failed = replicas.filter(|replica| replica.state == Some(ReplicaState::Failed));
    outcome.problems = failed
        .map(|replica| {
            let error = replica.error.as_deref().unwrap_or("no reason given");
            format!("node {} could not do it: {error}", replica.node)
        })
        .collect();
    Ok(Json(VolumeChanged { volume, outcome }))
}
