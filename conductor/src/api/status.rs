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
}

/// Answer of `GET /healthz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionInfo {
    /// Always `ok`; a conductor that cannot reach MetaDB answers with an error instead.
    pub status: String,
    /// Version of the conductor.
    pub version: String,
}
