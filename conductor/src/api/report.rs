//! What a node tells the conductor: its listeners, disks, and the state of its replicas.

use afs_decisions::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Body of `PUT /api/v1/nodes/{name}/report`.
///
/// A node sends one when it starts, whenever something in it changed, and at least every
/// [`ReportAnswer::report_every_ms`]. It always describes the whole node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeReport {
    /// The node's name; must equal the name in the path.
    pub node: String,
    /// The last revision that the node has fully put into effect; 0 before the first.
    ///
    /// "In effect" includes replicas that could not be made: those carry an error in `volumes`.
    pub applied_revision: u64,
    /// Every address at which hosts reach this node. Concrete IP addresses only, never a wildcard
    /// (`CONFORMANCE D-7`).
    pub portals: Vec<PortalReport>,
    /// Every disk that the node was given, working or not.
    pub disks: Vec<DiskReport>,
    /// Every replica that the node holds or was asked to hold.
    pub volumes: Vec<VolumeReport>,
    /// Replicas out of `NodeState::retired` that are durably gone, or that the node does not have.
    /// Keep naming one until it leaves `retired`.
    pub deleted: Vec<Uuid>,
    /// The address of the node's own HTTP server (`/metrics`), such as `127.0.0.1:49181`.
    pub http: Option<String>,
    /// Version of the node's software.
    #[serde(default)]
    pub version: String,
    /// Where other nodes reach this one, if not at `portals`.
    #[serde(default)]
    pub peer_portals: Vec<PortalReport>,
    /// Nodes that this one does not reach now.
    #[serde(default)]
    #[schema(value_type = Vec<u32>)]
    pub unreachable: Vec<NodeId>,
    /// Where it stands: replicas of a shard are put in distinct racks.
    #[serde(default)]
    pub rack: Option<String>,
    /// Replicas that this node, as a leader, is filling.
    #[serde(default)]
    pub resyncs: Vec<ResyncReport>,
}

/// How far a replica has been filled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResyncReport {
    /// The volume.
    pub volume: Uuid,
    /// The shard.
    pub shard: u32,
    /// The replica.
    pub replica: Uuid,
    /// Bytes that had to be looked at in all.
    pub total_bytes: u64,
    /// Of these still to do.
    pub left_bytes: u64,
    /// Bytes done in the last second, on average; 0 when not known.
    pub bytes_per_second: u64,
}

/// One address at which hosts reach the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct PortalReport {
    /// `tcp` or `rdma`.
    pub transport: String,
    /// IPv4 or IPv6 address, without brackets.
    pub address: String,
    /// Port number.
    pub service: String,
}

/// What a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskKind {
    /// A file or block device in the store's format.
    Store,
    /// Keeps nothing; for measuring the fabric alone.
    Null,
}

/// Whether a disk works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Serves I/O.
    Online,
    /// Is being opened or recovered.
    Starting,
    /// Was stopped after errors, or could not be opened.
    Failed,
}

/// One disk of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskReport {
    /// The disk's own identity, kept in its superblock.
    pub uuid: Uuid,
    /// What it is.
    pub kind: DiskKind,
    /// Path of the file or device, or `null:SIZE`.
    pub path: String,
    /// Bytes that volumes can use in all.
    pub total_bytes: u64,
    /// Bytes not yet allocated.
    pub free_bytes: u64,
    /// Whether it works.
    pub state: DiskState,
    /// Why it does not.
    #[serde(default)]
    pub error: Option<String>,
}

/// Whether a replica can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Exists with the size asked for.
    Ready,
    /// Is being made or resized.
    Creating,
    /// Could not be made or opened; see the error.
    Failed,
}

/// One replica on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeReport {
    /// The volume it belongs to.
    pub volume: Uuid,
    /// The replica.
    pub replica: Uuid,
    /// Bytes that it takes on its disk.
    pub allocated_bytes: u64,
    /// Whether it can be used.
    pub state: ReplicaState,
    /// Why not.
    #[serde(default)]
    pub error: Option<String>,
    /// The highest epoch of the volume that the replica promised; 0 if none.
    #[serde(default)]
    pub promised: u64,
}

/// Answer to a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportAnswer {
    /// The newest revision: a node that has applied less should fetch its state.
    pub revision: u64,
    /// Report again within this many milliseconds, or be taken for dead.
    pub report_every_ms: u64,
    /// Identity of the cluster. It never changes; a node that finds another must not converge.
    pub cluster: Uuid,
}
