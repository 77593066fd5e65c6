//! Calls that show the cluster.

use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::nodes::wait_bounded;
use crate::api::{Disk, ErrorBody, EventList, EventQuery, Node, Status, VersionInfo};
use crate::server::ApiState;
use crate::server::answer::Answer;
use crate::server::extract::{Path, Query};
use crate::server::front::Active;

const EVENTS_USUAL: u32 = 100;

/// List nodes
#[utoipa::path(get, path = "/api/v1/nodes", tag = "cluster",
    responses((status = 200, body = Vec<Node>)))]
pub(super) async fn nodes(Active(shared): Active) -> Answer<Vec<Node>> {
    Ok(Json(shared.view().await?.nodes()))
}

/// Show a node
#[utoipa::path(get, path = "/api/v1/nodes/{name}", tag = "cluster",
    params(("name" = String, Path, description = "Name")),
    responses((status = 200, body = Node), (status = "default", body = ErrorBody)))]
pub(super) async fn node(Active(shared): Active, Path(name): Path<String>) -> Answer<Node> {
    Ok(Json(shared.view().await?.find_node(&name)?))
}

/// List disks
#[utoipa::path(get, path = "/api/v1/disks", tag = "cluster",
    responses((status = 200, body = Vec<Disk>)))]
pub(super) async fn disks(Active(shared): Active) -> Answer<Vec<Disk>> {
    Ok(Json(shared.view().await?.disks()))
}

/// List events
///
/// With `after` and `wait` the call waits for one, so that a client can follow.
#[utoipa::path(get, path = "/api/v1/events", tag = "cluster", params(EventQuery),
    responses((status = 200, body = EventList), (status = "default", body = ErrorBody)))]
pub(super) async fn events(
    Active(shared): Active,
    Query(query): Query<EventQuery>,
) -> Answer<EventList> {
    let mut last = shared.db.last_event();
    if let (Some(after), Some(wait)) = (query.after, query.wait) {
        let wait = Duration::from_secs(wait);
        wait_bounded(&shared, wait, last.wait_for(|last| *last > after)).await?;
    }
    let last_id = *last.borrow();
    let limit = query.limit.unwrap_or(EVENTS_USUAL);
    let events = shared.db.events(query.after, limit).await?;
    Ok(Json(EventList { events, last_id }))
}

/// The cluster on one page
#[utoipa::path(get, path = "/api/v1/status", tag = "cluster",
    responses((status = 200, body = Status)))]
pub(super) async fn status(Active(shared): Active) -> Answer<Status> {
    let view = shared.view().await?;
    Ok(Json(view.status(&shared.db, shared.front.conductors())))
}

/// Whether the conductor works
///
/// One that stands by works, too.
#[utoipa::path(get, path = "/healthz", tag = "health",
    responses((status = 200, body = VersionInfo), (status = "default", body = ErrorBody)))]
pub(super) async fn healthz(State(front): State<ApiState>) -> Answer<VersionInfo> {
    let status = match front.term() {
        Some(shared) => {
            shared.db.check().await?;
            "ok"
        }
        None => "standby",
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Json(VersionInfo { status: status.to_owned(), version }))
}
