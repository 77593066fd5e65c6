//! Which host may use which subsystem, and what a user types to connect.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Portal;

/// Body of `POST /api/v1/subsystems/{nqn}/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowHost {
    /// The host's NQN (on the host: `/etc/nvme/hostnqn`), or `any`.
    pub host: String,
}

/// Who may use a subsystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostAccess {
    /// NQN of the subsystem.
    pub nqn: String,
    /// Whether any host may connect.
    pub allow_any_host: bool,
    /// NQNs of the hosts that may connect.
    pub hosts: Vec<String>,
}

/// Query of `GET /api/v1/connect-info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ConnectQuery {
    /// NQN of the subsystem.
    pub nqn: String,
    /// NQN of the host that is to connect.
    pub host: Option<String>,
}

/// Answer of `GET /api/v1/connect-info`: what a user types on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConnectInfo {
    /// NQN of the subsystem.
    pub nqn: String,
    /// The host that was asked about.
    pub host: Option<String>,
    /// Whether that host may connect; without one, whether any host may.
    pub allowed: bool,
    /// Every listener, one path each.
    pub portals: Vec<Portal>,
    /// Commands to paste, in order.
    pub commands: Vec<String>,
    /// What a person should know first.
    pub notes: Vec<String>,
}
