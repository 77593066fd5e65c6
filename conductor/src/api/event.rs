//! What happened in the cluster, in order.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something was done as asked.
    Info,
    /// Somebody should look at it.
    Warning,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Rises by one with each event.
    pub id: u64,
    /// When: milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// The revision after it.
    pub revision: u64,
    /// How much it matters.
    pub severity: Severity,
    /// What kind of thing happened, such as `volume_created`.
    pub kind: String,
    /// Name of the volume, subsystem or node that it is about.
    pub subject: String,
    /// What happened, for a person.
    pub message: String,
}

/// Query of `GET /api/v1/events`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only events with a higher id; without it the newest ones.
    pub after: Option<u64>,
    /// At most this many, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// With `after`: wait up to this many seconds, 0 to 60, for an event.
    pub wait: Option<u64>,
}

/// Answer of `GET /api/v1/events`, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// The events.
    pub events: Vec<Event>,
    /// Id of the newest event of all: pass it, or the last one's, as `after` next time.
    pub last_id: u64,
}
