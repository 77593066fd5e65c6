//! What a node should be doing: declarative, complete, with a revision.

use afs_decisions::{NodeId, VolumeConfig};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Nguid, Portal, PortalReport};

/// Highest NSID in any subsystem, the same on all nodes for ever: NN and MNAN of
/// `CONFORMANCE 4.3`.
pub const MAX_NSID: u32 = 1024;

/// The model number (MN) that every subsystem shows (`CONFORMANCE M-8`).
pub const MODEL: &str = "Afs";

/// Query of `GET /api/v1/nodes/{name}/state`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StateQuery {
    /// The revision that the node knows. The call waits while the newest revision equals this;
    /// any other, also a lower one, is answered at once.
    pub after: Option<u64>,
    /// Longest wait in seconds, 0 to 60; then the answer is 204 with no body.
    pub wait: Option<u64>,
}

/// Everything that one node should hold and export at one revision.
///
/// A replica that is neither in `volumes` nor in `retired` is to be left alone: absence is never a
/// reason to delete data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeState {
    /// Counts every decision of the cluster.
    pub revision: u64,
    /// The node that this is for.
    pub node: String,
    /// Its number, never used again.
    #[serde(default)]
    #[schema(value_type = u32)]
    pub id: NodeId,
    /// Identity of the cluster.
    pub cluster: Uuid,
    /// Replicas that the node should hold.
    pub volumes: Vec<VolumeAssignment>,
    /// Replicas that the node should delete, with their data, and name in `NodeReport::deleted`.
    pub retired: Vec<Uuid>,
    /// Subsystems that the node should export.
    pub subsystems: Vec<SubsystemState>,
    /// Listeners of all nodes, also of those that are down (`CONFORMANCE D-10`, `D-11`).
    pub portals: Vec<Portal>,
    /// What is decided about the volumes that the node is to lead. It has to claim each one before
    /// it does. Epochs may have moved on since; what a claim answers is newer.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub leads: Vec<VolumeConfig>,
    /// All nodes of the cluster, this one too.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

/// A node as others reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its number.
    #[schema(value_type = u32)]
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where it listens for other nodes.
    pub portals: Vec<PortalReport>,
}

/// One replica on one disk of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeAssignment {
    /// The volume.
    pub volume: Uuid,
    /// The replica to make or keep.
    pub replica: Uuid,
    /// The disk to hold it.
    pub disk: Uuid,
    /// Size of the replica, which is that of its shard: a multiple of 4096; it only grows.
    pub size_bytes: u64,
    /// The volume's name, for logs and metrics only.
    pub name: String,
    /// The shard that this is a replica of.
    #[serde(default)]
    pub shard: u32,
    /// Whether this replica is the whole volume: the only one of the only shard.
    #[serde(default = "yes")]
    pub whole: bool,
}

fn yes() -> bool {
    true
}

/// One subsystem as every node exports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubsystemState {
    /// The subsystem's NQN.
    pub nqn: String,
    /// Serial number (SN), at most 20 ASCII characters.
    pub serial: String,
    /// Model number (MN), at most 40 ASCII characters.
    pub model: String,
    /// First and last controller id that this node may give out (`CONFORMANCE F-5`).
    pub controller_ids: (u16, u16),
    /// Whether any host may connect.
    pub allow_any_host: bool,
    /// NQNs of the hosts that may connect.
    pub hosts: Vec<String>,
    /// Namespaces in ascending order of NSID.
    pub namespaces: Vec<NamespaceState>,
    /// NN and MNAN: always [`MAX_NSID`].
    pub max_nsid: u32,
}

/// One namespace as every node exports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceState {
    /// The namespace id, 1 to [`MAX_NSID`].
    pub nsid: u32,
    /// The volume behind it.
    pub volume: Uuid,
    /// NGUID, for ever.
    #[schema(value_type = String, example = "6ba7b8109dad11d180b400c04fd430c8")]
    pub nguid: Nguid,
    /// UUID, for ever.
    pub uuid: Uuid,
    /// Size: a multiple of 4096.
    pub size_bytes: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// The node that leads the volume: its paths are optimized, and others forward to it.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    pub leader: Option<NodeId>,
}
