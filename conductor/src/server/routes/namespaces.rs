//! Calls about namespaces.

use axum::Json;

use crate::api::{AddNamespace, ErrorBody, Namespace, NamespaceChanged, VolumeState};
use crate::server::answer::Answer;
use crate::server::extract::{Body, Path};
use crate::server::front::Active;
use crate::server::outcome::Concerned;

/// List the namespaces of a subsystem
#[utoipa::path(get, path = "/api/v1/subsystems/{nqn}/namespaces", tag = "subsystems",
    params(("nqn" = String, Path, description = "NQN")),
    responses((status = 200, body = Vec<Namespace>), (status = "default", body = ErrorBody)))]
pub(super) async fn list(
    Active(shared): Active,
    Path(nqn): Path<String>,
) -> Answer<Vec<Namespace>> {
    Ok(Json(shared.view().await?.find_subsystem(&nqn)?.namespaces))
}

/// Export a volume as a namespace
///
/// Connected hosts see it with no reconnect. A volume can be only one namespace.
#[utoipa::path(post, path = "/api/v1/subsystems/{nqn}/namespaces", tag = "subsystems",
    request_body = AddNamespace,
    params(("nqn" = String, Path, description = "NQN")),
    responses((status = 200, body = NamespaceChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn add(
    Active(shared): Active,
    Path(nqn): Path<String>,
    Body(request): Body<AddNamespace>,
) -> Answer<NamespaceChanged> {
    let AddNamespace { volume, nsid, read_only } = request;
    let decided = shared.db.add_namespace(&nqn, &volume, nsid, read_only).await?;
    let mut outcome = shared.outcome(decided.revision, Concerned::All, Vec::new()).await;
    let view = shared.view().await?;
    let subsystem = view.find_subsystem(&nqn).ok();
    if let Some(volume) =
        view.find_volume(&volume).ok().filter(|volume| volume.state == VolumeState::Failed)
    {
        let text = format!("volume {} has failed: conductor volume show {0}", volume.name);
        outcome.problems.push(text);
    }
    let closed = |subsystem: &&crate::api::Subsystem| {
        !subsystem.allow_any_host && subsystem.hosts.is_empty()
    };
    if subsystem.as_ref().filter(closed).is_some() {
        let text = format!("no host may use it yet: conductor host allow {nqn} HOSTNQN");
        outcome.notes.push(text);
    }
    let namespaces = subsystem.into_iter().flat_map(|subsystem| subsystem.namespaces);
    let namespace = namespaces.into_iter().find(|namespace| namespace.nsid == decided.value);
    Ok(Json(NamespaceChanged { namespace, outcome }))
}

/// Stop exporting a namespace
///
/// Its volume and data stay. Connected hosts lose the disk at once.
#[utoipa::path(delete, path = "/api/v1/subsystems/{nqn}/namespaces/{nsid}", tag = "subsystems",
    params(("nqn" = String, Path, description = "NQN"), ("nsid" = u32, Path, description = "NSID")),
    responses((status = 200, body = NamespaceChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn remove(
    Active(shared): Active,
    Path((nqn, nsid)): Path<(String, u32)>,
) -> Answer<NamespaceChanged> {
    let decided = shared.db.remove_namespace(&nqn, nsid).await?;
    let outcome = shared.outcome(decided.revision, Concerned::All, Vec::new()).await;
    Ok(Json(NamespaceChanged { namespace: None, outcome }))
}
