//! The whole cluster on one page.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Answer of `GET /api/v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Whether `problems` is empty.
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
