//! Calls about volumes.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;

use crate::api::{
    CreateVolume, ErrorBody, Outcome, ReplicaState, ResizeVolume, Version, Volume, VolumeChanged,
};
use crate::placement;
use crate::server::answer::Answer;
use crate::server::extract::{Body, Path, Query};
use crate::server::outcome::Concerned;
use crate::server::{ApiState, Shared};
use crate::size::{human, round_up};

/// List volumes
#[utoipa::path(get, path = "/api/v1/volumes", tag = "volumes",
    responses((status = 200, body = Vec<Volume>)))]
pub(super) async fn list(State(shared): State<ApiState>) -> Answer<Vec<Volume>> {
    Ok(Json(shared.view().await?.volumes()))
}

/// Show a volume
#[utoipa::path(get, path = "/api/v1/volumes/{name}", tag = "volumes",
    params(("name" = String, Path, description = "Name or UUID")),
    responses((status = 200, body = Volume), (status = "default", body = ErrorBody)))]
pub(super) async fn show(
    State(shared): State<ApiState>,
    Path(name): Path<String>,
) -> Answer<Volume> {
    Ok(Json(shared.view().await?.find_volume(&name)?))
}

/// Make a volume
///
/// Waits a few seconds for the node to make its replica.
#[utoipa::path(post, path = "/api/v1/volumes", tag = "volumes", request_body = CreateVolume,
    responses((status = 200, body = VolumeChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn create(
    State(shared): State<ApiState>,
    Body(request): Body<CreateVolume>,
) -> Answer<VolumeChanged> {
    let CreateVolume { name, size_bytes, disk } = request;
    // What is wrong with the request itself is said before what is wrong with the disks.
    shared.db.check_new_volume(&name, size_bytes).await?;
    let disks = shared.view().await?.disks();
    let size = round_up(size_bytes);
    let mut choice = placement::choose(&disks, disk.as_deref(), size)?;
    let decided = shared.db.create_volume(&name, size_bytes, choice.disk).await?;
    note_rounding(&mut choice.notes, size_bytes);
    let concerned = Concerned::Nodes([choice.node].into());
    let outcome = shared.outcome(decided.revision, concerned, choice.notes).await;
    changed(&shared, &name, outcome).await
}

/// Grow a volume
///
/// Hosts see the new size with no reconnect.
#[utoipa::path(patch, path = "/api/v1/volumes/{name}", tag = "volumes",
    request_body = ResizeVolume,
    params(("name" = String, Path, description = "Name or UUID")),
    responses((status = 200, body = VolumeChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn resize(
    State(shared): State<ApiState>,
    Path(name): Path<String>,
    Body(request): Body<ResizeVolume>,
) -> Answer<VolumeChanged> {
    let ResizeVolume { size_bytes, version } = request;
    let decided = shared.db.resize_volume(&name, size_bytes, version).await?;
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
    State(shared): State<ApiState>,
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
