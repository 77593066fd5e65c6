//! Calls that nodes make.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, sleep_until};

use crate::api::{ErrorBody, NodeReport, ReportAnswer, StateNews, StateQuery};
use crate::db::{Concern, Known};
use crate::refusal::{Kind, Refusal};
use crate::server::Shared;
use crate::server::answer::{Answer, ApiError};
use crate::server::extract::{Body, Path, Query};
use crate::server::front::Active;

/// Longest wait for news.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest that a revision which changes nothing for a node is kept from it, and half of the shortest.
const UNHURRIED: Duration = Duration::from_secs(2);
/// The same of a state that is most probably what the node knows already.
const UNHURRIED_ALL: Duration = Duration::from_secs(24);

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
/// Waits while the newest revision is `after`. One that changes nothing for this node is told some time later.
#[utoipa::path(get, path = "/api/v1/nodes/{name}/state", tag = "nodes",
    params(("name" = String, Path, description = "Name of the node"), StateQuery),
    responses((status = 200, body = StateNews),
        (status = 204, description = "Nothing changed within `wait`"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn state(
    Active(shared): Active,
    Path(name): Path<String>,
    Query(query): Query<StateQuery>,
) -> Result<Response, ApiError> {
    let known = query.after.map(|revision| Known { revision, source: query.source });
    if let Some(known) = known {
        let wait = Duration::from_secs(query.wait.unwrap_or(0));
        match wait_bounded(&shared, wait, news(&shared, &name, known)).await? {
            Some(news) => news?,
            None if shared.db.concern(&name, known).await? == Concern::Number => {}
            None => return Ok(StatusCode::NO_CONTENT.into_response()),
        }
    }
    match shared.db.node_state(&name, known).await? {
        Some(state) => Ok(([(CONTENT_TYPE, "application/json")], state).into_response()),
        None => Err(Refusal::not_found(Kind::Node, &name, []).into()),
    }
}

/// Waits for something to tell a node. A decision may wake a thousand nodes, of which it concerns three: those go first.
async fn news(shared: &Shared, node: &str, known: Known) -> Result<(), ApiError> {
    let mut revision = shared.db.revision();
    let mut latest: Option<Instant> = None;
    loop {
        revision.borrow_and_update();
        let within = match shared.db.concern(node, known).await? {
            Concern::Duties => return Ok(()),
            Concern::Number => Some(UNHURRIED),
            // All of it, to all nodes, after each change of the conductor.
            Concern::Source => Some(UNHURRIED_ALL),
            Concern::Nothing => None,
        };
        let at = within.map(|within| Instant::now() + within.mul_f64((1.0 + share(node)) / 2.0));
        latest = latest.into_iter().chain(at).min();
        tokio::select! {
            changed = revision.changed() => changed.map_err(|_| ApiError::stopping())?,
            () = sleep_until(latest.unwrap_or_else(Instant::now)), if latest.is_some() => return Ok(()),
        }
    }
}

/// The same part of 1 for a node at all times, so that not all come at once.
fn share(node: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    f64::from(u8::try_from(hasher.finish() >> 56).unwrap_or_default()) / 256.0
}

/// Waits for something, within bounds and not beyond the conductor's stop. Nothing if it did not happen.
pub(super) async fn wait_bounded<T>(
    shared: &Shared,
    wait: Duration,
    news: impl Future<Output = T>,
) -> Result<Option<T>, ApiError> {
    tokio::select! {
        biased;
        news = news => Ok(Some(news)),
        () = shared.stopped() => Err(ApiError::stopping()),
        () = tokio::time::sleep(wait.min(WAIT_MAX)) => Ok(None),
    }
}
