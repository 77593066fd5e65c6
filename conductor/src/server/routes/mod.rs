//! The calls of the API. Each is described where it is implemented, and the OpenAPI document is
//! made from those descriptions.

mod cluster;
mod decisions;
mod fleet;
mod hosts;
mod namespaces;
mod nodes;
mod subsystems;
mod volumes;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::ApiError;
use super::{ApiState, metrics};
use crate::refusal::Refusal;

/// Largest body of an operator's call.
const BODY_MAX: usize = 64 << 10;

/// Largest report: some 100,000 replicas.
const REPORT_MAX: usize = 32 << 20;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Afs conductor",
        description = "Volumes, subsystems, namespaces and hosts of an Afs cluster. \
            Errors of every kind are an ErrorBody. Sizes are bytes, times milliseconds since 1970."
    ),
    tags(
        (name = "volumes", description = "Thin volumes"),
        (name = "subsystems", description = "What hosts connect to"),
        (name = "cluster", description = "Nodes, disks, events"),
        (name = "nodes", description = "For nodes: reports and states"),
        (name = "health", description = "For monitoring"),
    )
)]
struct Description;

/// All calls, and the document that describes them.
pub(super) fn router() -> (OpenApiRouter<ApiState>, String) {
    let operators = OpenApiRouter::new()
        .routes(routes!(volumes::list, volumes::create))
        .routes(routes!(volumes::show, volumes::resize, volumes::delete))
        .routes(routes!(volumes::lead))
        .routes(routes!(volumes::force))
        .routes(routes!(volumes::min_in_sync))
        .routes(routes!(subsystems::list, subsystems::create))
        .routes(routes!(subsystems::show, subsystems::delete))
        .routes(routes!(namespaces::list, namespaces::add))
        .routes(routes!(namespaces::remove))
        .routes(routes!(hosts::list, hosts::allow))
        .routes(routes!(hosts::deny))
        .routes(routes!(hosts::connect_info))
        .routes(routes!(cluster::nodes))
        .routes(routes!(cluster::node, fleet::remove))
        .routes(routes!(fleet::drain))
        .routes(routes!(fleet::resume))
        .routes(routes!(cluster::disks))
        .routes(routes!(fleet::disk))
        .routes(routes!(fleet::retire))
        .routes(routes!(fleet::restore))
        .routes(routes!(cluster::events))
        .routes(routes!(cluster::status))
        .routes(routes!(cluster::healthz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(nodes::state))
        .routes(routes!(decisions::claim))
        .routes(routes!(decisions::renew))
        .routes(routes!(decisions::accuse))
        .routes(routes!(decisions::admit))
        .layer(DefaultBodyLimit::max(BODY_MAX));
    let reports = OpenApiRouter::new()
        .routes(routes!(nodes::report))
        .layer(DefaultBodyLimit::max(REPORT_MAX));
    let router = OpenApiRouter::with_openapi(Description::openapi())
        .merge(operators)
        .merge(reports)
        .routes(routes!(openapi));
    // A document of strings and lists always has a text; an empty one would fail the tests.
    let document = router.get_openapi().to_pretty_json().unwrap_or_default();
    (router, document)
}

/// Adds what every call goes through.
pub(super) fn finish(router: OpenApiRouter<ApiState>, state: ApiState) -> Router {
    let (router, _) = router.split_for_parts();
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(nothing_here)
        .layer(from_fn_with_state(state.clone(), metrics::measure))
        .with_state(state)
}

async fn nothing_here() -> ApiError {
    Refusal::NoSuchCall.into()
}

/// OpenAPI document
///
/// This API, for programs.
#[utoipa::path(get, path = "/openapi.json", tag = "health",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn openapi(State(front): State<ApiState>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], front.openapi.clone())
}
