//! Calls that nodes make.

use std::future::Future;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::api::{ErrorBody, NodeReport, NodeState, ReportAnswer, StateQuery};
use crate::refusal::{Kind, Refusal};
use crate::server::Shared;
use crate::server::answer::{Answer, ApiError};
use crate::server::extract::{Body, Path, Query};
use crate::server::front::Active;

/// Longest wait for news.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Report what a node has and did
///
/// The first report makes the node known.
#[utoipa::path(put, path = "/api/v1/nodes/{name}/report", tag = "nodes",
    request_body = NodeReport,
    params(("name" = String, Path, description = "Name of the node")),
    responses((status = 200, body = ReportAnswer), (status = "default", body = ErrorBody)))]
pub(super) async fn report(
    Active(shared): Active,
    Path(name): Path<String>,
    Body(report): Body<NodeReport>,
) -> Answer<ReportAnswer> {
    Ok(Json(crate::server::nodes::take_in(&shared, &name, report).await?))
}

/// What a node should do
///
/// Waits while the newest revision is `after`.
#[utoipa::path(get, path = "/api/v1/nodes/{name}/state", tag = "nodes",
    params(("name" = String, Path, description = "Name of the node"), StateQuery),
    responses((status = 200, body = NodeState),
        (status = 204, description = "Nothing changed within `wait`"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn state(
    Active(shared): Active,
    Path(name): Path<String>,
    Query(query): Query<StateQuery>,
) -> Result<Response, ApiError> {
    if let Some(after) = query.after {
        let mut revision = shared.db.revision();
        let wait = Duration::from_secs(query.wait.unwrap_or(0));
        let changed = revision.wait_for(|revision| *revision != after);
        if !wait_bounded(&shared, wait, changed).await? {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
    match shared.db.node_state(&name).await? {
        Some(state) => Ok(([(CONTENT_TYPE, "application/json")], state).into_response()),
        None => Err(Refusal::not_found(Kind::Node, &name, []).into()),
    }
}

/// Waits for something, within bounds and not beyond the conductor's stop. Whether it happened.
pub(super) async fn wait_bounded<T, E>(
    shared: &Shared,
    wait: Duration,
    news: impl Future<Output = Result<T, E>>,
) -> Result<bool, ApiError> {
    tokio::select! {
        biased;
        news = news => Ok(news.is_ok()),
        () = shared.stopped() => Err(ApiError::stopping()),
        () = tokio::time::sleep(wait.min(WAIT_MAX)) => Ok(false),
    }
}
