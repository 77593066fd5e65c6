//! Nodes, their disks and their listeners, as operators see them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{DiskKind, DiskState, Outcome};

/// One listener of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Portal {
    /// The node that listens.
    pub node: String,
    /// Unique in the cluster, never given to another listener (`CONFORMANCE D-10`).
    pub portal_id: u16,
    /// `tcp` or `rdma`.
    pub transport: String,
    /// IP address in its canonical text form (`CONFORMANCE M-53`).
    pub address: String,
    /// Port number.
    pub service: String,
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeLiveness {
    /// Reported lately.
    Up,
    /// Has not reported for a while.
    Down,
    /// Has not reported since this conductor started, which was just now.
    Unknown,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its number, never used again.
    pub id: u32,
    /// Where it stands, if labelled.
    pub rack: Option<String>,
    /// Whether it is being emptied.
    pub draining: bool,
    /// Volumes that it leads.
    pub leads: u32,
    /// Replicas that it holds.
    pub replicas: u32,
    /// Nodes that it does not reach, by its own word.
    pub unreachable: Vec<String>,
    /// Whether it is there.
    pub state: NodeLiveness,
    /// The revision that it has put into effect, if it reported since the conductor started.
    pub applied_revision: Option<u64>,
    /// Milliseconds since its last report.
    pub last_report_ms: Option<u64>,
    /// Address of its HTTP server.
    pub http: Option<String>,
    /// Version of its software.
    pub version: Option<String>,
    /// Its listeners.
    pub portals: Vec<Portal>,
    /// Its disks.
    pub disks: Vec<Disk>,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// Its identity.
    pub uuid: Uuid,
    /// The node that has it.
    pub node: String,
    /// What it is.
    pub kind: DiskKind,
    /// Path on that node.
    pub path: String,
    /// Bytes that volumes can use in all.
    pub total_bytes: u64,
    /// Bytes not yet allocated; absent while its node is not up.
    pub free_bytes: Option<u64>,
    /// Sum of the sizes of the volumes on it. More than `total_bytes` is fine: volumes are thin.
    pub provisioned_bytes: u64,
    /// Whether it is being emptied.
    pub retired: bool,
    /// Replicas on it.
    pub replicas: u32,
    /// Whether it works; absent while its node is not up.
    pub state: Option<DiskState>,
    /// Why it does not work.
    pub error: Option<String>,
}

/// Answer to a change of a node or a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetChanged {
    /// How far the change has come.
    pub outcome: Outcome,
}
