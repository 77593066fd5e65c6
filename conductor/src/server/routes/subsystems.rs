//! Calls about subsystems.

use axum::Json;

use crate::api::{CreateSubsystem, ErrorBody, Subsystem, SubsystemChanged, Version};
use crate::server::answer::Answer;
use crate::server::extract::{Body, Path, Query};
use crate::server::front::Active;
use crate::server::outcome::Concerned;

/// List subsystems
#[utoipa::path(get, path = "/api/v1/subsystems", tag = "subsystems",
    responses((status = 200, body = Vec<Subsystem>)))]
pub(super) async fn list(Active(shared): Active) -> Answer<Vec<Subsystem>> {
    Ok(Json(shared.view().await?.subsystems()))
}

/// Show a subsystem
#[utoipa::path(get, path = "/api/v1/subsystems/{nqn}", tag = "subsystems",
    params(("nqn" = String, Path, description = "NQN")),
    responses((status = 200, body = Subsystem), (status = "default", body = ErrorBody)))]
pub(super) async fn show(Active(shared): Active, Path(nqn): Path<String>) -> Answer<Subsystem> {
    Ok(Json(shared.view().await?.find_subsystem(&nqn)?))
}

/// Make a subsystem
///
/// No host may use it until one is allowed.
#[utoipa::path(post, path = "/api/v1/subsystems", tag = "subsystems",
    request_body = CreateSubsystem,
    responses((status = 200, body = SubsystemChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn create(
    Active(shared): Active,
    Body(request): Body<CreateSubsystem>,
) -> Answer<SubsystemChanged> {
    let decided = shared.db.create_subsystem(&request.nqn).await?;
    let outcome = shared.outcome(decided.revision, Concerned::All, Vec::new()).await;
    let subsystem = shared.view().await?.find_subsystem(&request.nqn).ok();
    Ok(Json(SubsystemChanged { subsystem, outcome }))
}

/// Delete a subsystem
///
/// Refused while it has namespaces.
#[utoipa::path(delete, path = "/api/v1/subsystems/{nqn}", tag = "subsystems",
    params(("nqn" = String, Path, description = "NQN"), Version),
    responses((status = 200, body = SubsystemChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn delete(
    Active(shared): Active,
    Path(nqn): Path<String>,
    Query(version): Query<Version>,
) -> Answer<SubsystemChanged> {
    let decided = shared.db.delete_subsystem(&nqn, version.version).await?;
    let outcome = shared.outcome(decided.revision, Concerned::All, Vec::new()).await;
    Ok(Json(SubsystemChanged { subsystem: None, outcome }))
}
