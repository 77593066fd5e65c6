//! The whole cluster on one page.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Answer of `GET /api/v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Whether every volume has all its replicas in sync, on nodes that are up.
    pub data_safe: bool,
    /// Which volumes do not, why, and until when; one sentence each.
    pub data: Vec<String>,
    /// Volumes that serve with fewer replicas than they should have.
    pub volumes_degraded: u64,
    /// Volumes whose I/O waits for replicas.
    pub volumes_stalled: u64,
    /// Volumes of one replica, which no other one backs.
    pub volumes_alone: u64,
    /// Whether `problems` and `data` are empty.
    pub healthy: bool,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// Identity of the cluster.
    pub cluster: Uuid,
    /// Version of the conductor.
    pub version: String,
    /// Number of decisions made so far.
    pub revision: u64,
    /// Nodes known.
    pub nodes: u64,
    /// Nodes that are up.
    pub nodes_up: u64,
    /// Disks known.
    pub disks: u64,
    /// Bytes on all disks whose nodes are up.
    pub disk_total_bytes: u64,
    /// Of these not yet allocated.
    pub disk_free_bytes: u64,
    /// Volumes.
    pub volumes: u64,
    /// Sum of their sizes.
    pub volume_bytes: u64,
    /// Subsystems.
    pub subsystems: u64,
    /// Namespaces.
    pub namespaces: u64,
    /// All conductors, the active one first.
    #[serde(default)]
    pub conductors: Vec<ConductorStatus>,
}

/// A conductor of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConductorStatus {
    /// Where its API is.
    pub api: String,
    /// The machine that it runs on.
    pub host: String,
    /// Version of its software.
    pub version: String,
    /// What it is.
    pub state: ConductorState,
}

/// What a conductor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConductorState {
    /// It decides.
    Active,
    /// It takes over when the active one is gone.
    Standby,
}

/// Answer of `GET /healthz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionInfo {
    /// `ok`, or `standby` for a conductor that is not the active one; one that is and cannot reach
    /// MetaDB answers with an error instead.
    pub status: String,
    /// Version of the conductor.
    pub version: String,
}
