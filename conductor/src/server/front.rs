//! What lasts as long as the process: its address, its metrics, its place among the conductors. A
//! term in office ([`Shared`]) comes and goes, and with it everything that decides.

use std::sync::Arc;

use afs_coordination::{Coordination, Link};
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::{LOCATION, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use parking_lot::RwLock;

use super::metrics::Metrics;
use super::{ConductorConfig, Shared};
use crate::api::{ConductorState, ConductorStatus, ErrorBody, ErrorCode};

/// The process's own part, which also a conductor that stands by has.
pub(super) struct Front {
    pub(super) config: ConductorConfig,
    pub(super) coordination: Coordination,
    pub(super) metrics: Metrics,
    pub(super) openapi: String,
    /// Where others find the API.
    pub(super) api: String,
    term: RwLock<Option<Arc<Shared>>>,
}

impl Front {
    pub(super) fn new(
        config: ConductorConfig,
        coordination: Coordination,
        metrics: Metrics,
        openapi: String,
        api: String,
    ) -> Self {
        let term = RwLock::new(None);
        Self { config, coordination, metrics, openapi, api, term }
    }

    /// The term in office, while there is one.
    pub(super) fn term(&self) -> Option<Arc<Shared>> {
        self.term.read().clone()
    }

    pub(super) fn set_term(&self, term: Option<Arc<Shared>>) {
        *self.term.write() = term;
    }

    /// Whether it is connected to ZooKeeper; nothing when it uses none.
    pub(super) fn zookeeper_connected(&self) -> Option<bool> {
        match *self.coordination.link().borrow() {
            Link::NotUsed => None,
            Link::Away => Some(false),
            Link::Connected => Some(true),
        }
    }

    /// All conductors, the active one first.
    pub(super) fn conductors(&self) -> Vec<ConductorStatus> {
        let conductors = self.coordination.conductors().borrow().clone();
        let active = conductors.active().map(|active| active.api.clone());
        let conductors = conductors.0.iter().map(|record| ConductorStatus {
            api: record.api.clone(),
            host: record.host.clone(),
            version: record.software.clone(),
            state: match active.as_ref() == Some(&record.api) {
                true => ConductorState::Active,
                false => ConductorState::Standby,
            },
        });
        conductors.collect()
    }

    /// Where the active conductor is, if that is another one.
    fn active_elsewhere(&self) -> Option<String> {
        let conductors = self.coordination.conductors().borrow().clone();
        conductors.active().map(|active| active.api.clone()).filter(|api| *api != self.api)
    }
}

/// Extracts the term in office. Without one the call goes to where there is one.
pub(super) struct Active(pub(super) Arc<Shared>);

impl FromRequestParts<Arc<Front>> for Active {
    type Rejection = NotActive;

    async fn from_request_parts(parts: &mut Parts, front: &Arc<Front>) -> Result<Self, NotActive> {
        front.term().map(Self).ok_or_else(|| NotActive {
            active: front.active_elsewhere(),
            path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        })
    }
}

/// What a conductor that stands by answers: a redirect to the active one, or that there is none.
pub(super) struct NotActive {
    active: Option<String>,
    path: String,
}

impl IntoResponse for NotActive {
    fn into_response(self) -> Response {
        let body = |message: String, hint: String| {
            Json(ErrorBody { error: ErrorCode::Standby, message, hint })
        };
        let location = self.active.as_ref().and_then(|active| {
            let url = format!("{}{}", active.trim_end_matches('/'), self.path);
            HeaderValue::try_from(url).ok()
        });
        match (self.active, location) {
            (Some(active), Some(location)) => {
                let message = format!("this conductor stands by; {active} is the active one");
                let body = body(message, format!("ask that one: --api {active}"));
                // The only redirect after which clients repeat a call with its method and body.
                (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)], body).into_response()
            }
            _ => {
                let message = "no conductor is active now; this one stands by".to_owned();
                let hint = "try again in a few seconds; if it stays so, the logs of the \
                            conductors say what they wait for (ZooKeeper, MetaDB)";
                let retry = [(RETRY_AFTER, HeaderValue::from_static("1"))];
                (StatusCode::SERVICE_UNAVAILABLE, retry, body(message, hint.to_owned()))
                    .into_response()
            }
        }
    }
}
