//! Calls about hosts: who may connect, and how.

use axum::Json;

use crate::api::{
    AllowHost, ConnectInfo, ConnectQuery, ErrorBody, HostAccess, Subsystem, SubsystemChanged,
};
use crate::connect::connect_info as info;
use crate::names::check_nqn;
use crate::refusal::Refusal;
use crate::server::Shared;
use crate::server::answer::Answer;
use crate::server::extract::{Body, Path, Query};
use crate::server::front::Active;
use crate::server::outcome::Concerned;

/// List who may use a subsystem
#[utoipa::path(get, path = "/api/v1/subsystems/{nqn}/hosts", tag = "subsystems",
    params(("nqn" = String, Path, description = "NQN")),
    responses((status = 200, body = HostAccess), (status = "default", body = ErrorBody)))]
pub(super) async fn list(Active(shared): Active, Path(nqn): Path<String>) -> Answer<HostAccess> {
    let Subsystem { nqn, allow_any_host, hosts, .. } = shared.view().await?.find_subsystem(&nqn)?;
    Ok(Json(HostAccess { nqn, allow_any_host, hosts }))
}

/// Let a host, or `any`, use a subsystem
#[utoipa::path(post, path = "/api/v1/subsystems/{nqn}/hosts", tag = "subsystems",
    request_body = AllowHost,
    params(("nqn" = String, Path, description = "NQN")),
    responses((status = 200, body = SubsystemChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn allow(
    Active(shared): Active,
    Path(nqn): Path<String>,
    Body(request): Body<AllowHost>,
) -> Answer<SubsystemChanged> {
    let decided = shared.db.allow_host(&nqn, &request.host).await?;
    changed(&shared, &nqn, decided.revision).await
}

/// Take a host, or `any`, off the list
#[utoipa::path(delete, path = "/api/v1/subsystems/{nqn}/hosts/{host}", tag = "subsystems",
    params(("nqn" = String, Path, description = "NQN"),
        ("host" = String, Path, description = "NQN of the host, or `any`")),
    responses((status = 200, body = SubsystemChanged), (status = "default", body = ErrorBody)))]
pub(super) async fn deny(
    Active(shared): Active,
    Path((nqn, host)): Path<(String, String)>,
) -> Answer<SubsystemChanged> {
    let decided = shared.db.deny_host(&nqn, &host).await?;
    changed(&shared, &nqn, decided.revision).await
}

/// What to type on a host
#[utoipa::path(get, path = "/api/v1/connect-info", tag = "subsystems", params(ConnectQuery),
    responses((status = 200, body = ConnectInfo), (status = "default", body = ErrorBody)))]
pub(super) async fn connect_info(
    Active(shared): Active,
    Query(query): Query<ConnectQuery>,
) -> Answer<ConnectInfo> {
    if let Some(host) = &query.host {
        check_nqn(host).map_err(|fault| Refusal::BadNqn { nqn: host.clone(), fault })?;
    }
    let view = shared.view().await?;
    let subsystem = view.find_subsystem(&query.nqn)?;
    Ok(Json(info(&subsystem, query.host.as_deref(), &view.portals())))
}

async fn changed(shared: &Shared, nqn: &str, revision: u64) -> Answer<SubsystemChanged> {
    let outcome = shared.outcome(revision, Concerned::All, Vec::new()).await;
    let subsystem = shared.view().await?.find_subsystem(nqn).ok();
    Ok(Json(SubsystemChanged { subsystem, outcome }))
}
