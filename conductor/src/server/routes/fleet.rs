//! Calls that change nodes and disks.

use axum::Json;

use crate::api::{Disk, ErrorBody, FleetChanged, NodeLiveness};
use crate::placement;
use crate::refusal::Refusal;
use crate::server::Shared;
use crate::server::answer::Answer;
use crate::server::extract::Path;
use crate::server::front::Active;
use crate::server::outcome::Concerned;

/// Empty a node
///
/// It gets nothing new; its volumes get other leaders, and its replicas move to other nodes.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/drain", tag = "cluster",
    params(("name" = String, Path, description = "Name")),
    responses((status = 200, body = FleetChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn drain(
    Active(shared): Active,
    Path(name): Path<String>,
) -> Answer<FleetChanged> {
    let decided = shared.db.set_draining(&name, true).await?;
    changed(&shared, decided.revision).await
}

/// Let a node take part again
#[utoipa::path(post, path = "/api/v1/nodes/{name}/resume", tag = "cluster",
    params(("name" = String, Path, description = "Name")),
    responses((status = 200, body = FleetChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn resume(
    Active(shared): Active,
    Path(name): Path<String>,
) -> Answer<FleetChanged> {
    let decided = shared.db.set_draining(&name, false).await?;
    changed(&shared, decided.revision).await
}

/// Forget a node
///
/// Refused while it reports, holds replicas or leads volumes.
#[utoipa::path(delete, path = "/api/v1/nodes/{name}", tag = "cluster",
    params(("name" = String, Path, description = "Name")),
    responses((status = 200, body = FleetChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn remove(
    Active(shared): Active,
    Path(name): Path<String>,
) -> Answer<FleetChanged> {
    if shared.view().await?.find_node(&name)?.state == NodeLiveness::Up {
        return Err(Refusal::NodeUp { node: name }.into());
    }
    let decided = shared.db.remove_node(&name).await?;
    shared.live.forget(&name);
    changed(&shared, decided.revision).await
}

/// Show a disk
#[utoipa::path(get, path = "/api/v1/disks/{uuid}", tag = "cluster",
    params(("uuid" = String, Path, description = "UUID or path")),
    responses((status = 200, body = Disk), (status = "default", body = ErrorBody)))]
pub(super) async fn disk(Active(shared): Active, Path(uuid): Path<String>) -> Answer<Disk> {
    Ok(Json(placement::find(&shared.view().await?.disks(), &uuid)?.clone()))
}

/// Empty a disk
///
/// It gets nothing new, and its replicas move to other disks.
#[utoipa::path(post, path = "/api/v1/disks/{uuid}/retire", tag = "cluster",
    params(("uuid" = String, Path, description = "UUID or path")),
    responses((status = 200, body = FleetChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn retire(
    Active(shared): Active,
    Path(uuid): Path<String>,
) -> Answer<FleetChanged> {
    set_retired(&shared, &uuid, true).await
}

/// Let a disk be used again
#[utoipa::path(post, path = "/api/v1/disks/{uuid}/restore", tag = "cluster",
    params(("uuid" = String, Path, description = "UUID or path")),
    responses((status = 200, body = FleetChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn restore(
    Active(shared): Active,
    Path(uuid): Path<String>,
) -> Answer<FleetChanged> {
    set_retired(&shared, &uuid, false).await
}

async fn set_retired(shared: &Shared, wanted: &str, retired: bool) -> Answer<FleetChanged> {
    let uuid = placement::find(&shared.view().await?.disks(), wanted)?.uuid;
    let decided = shared.db.set_disk_retired(uuid, retired).await?;
    changed(shared, decided.revision).await
}

async fn changed(shared: &Shared, revision: u64) -> Answer<FleetChanged> {
    let outcome = shared.outcome(revision, Concerned::Nodes([].into()), Vec::new()).await;
    Ok(Json(FleetChanged { outcome }))
}
