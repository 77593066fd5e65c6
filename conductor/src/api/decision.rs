//! What a node that leads a volume asks the conductor to decide.
//!
//! | call under `/api/v1/internal/volumes/{uuid}` | body | meaning |
//! |---|---|---|
//! | `POST claim` | [`ClaimRequest`] | a leader starts: every start takes a new epoch |
//! | `POST renew` | [`RenewRequest`] | a leader wants to seal again |
//! | `POST accuse` | [`AccuseRequest`] | a replica fails or is late: drop it |
//! | `POST admit` | [`AdmitRequest`] | a replica has everything: it is in sync |
//!
//! Each is answered with the newest configuration, granted or not.

use afs_decisions::{Denied, NodeId, VolumeConfig};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A leader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClaimRequest {
    /// The node.
    #[schema(value_type = u32)]
    pub node: NodeId,
    /// A random number of this start of the process, not 0.
    pub process: u64,
}

/// A leader wants to seal again, with the same sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RenewRequest {
    /// The node.
    #[schema(value_type = u32)]
    pub node: NodeId,
    /// The process that claimed.
    pub process: u64,
    /// The epoch that it serves in.
    pub epoch: u64,
}

/// A leader says that an in-sync replica fails or is late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccuseRequest {
    /// The node.
    #[schema(value_type = u32)]
    pub node: NodeId,
    /// The process that claimed.
    pub process: u64,
    /// The epoch that it serves in.
    pub epoch: u64,
    /// The shard.
    pub shard: u32,
    /// The replica.
    pub replica: Uuid,
    /// Whether its node could not be reached. Else the node answered, and the replica fails.
    pub unreachable: bool,
    /// All nodes that do not answer it just now. Who hears nobody is cut off itself.
    #[schema(value_type = Vec<u32>)]
    #[serde(default)]
    pub unheard: Vec<NodeId>,
}

/// A leader says that a replica has everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdmitRequest {
    /// The node.
    #[schema(value_type = u32)]
    pub node: NodeId,
    /// The process that claimed.
    pub process: u64,
    /// The epoch that it serves in.
    pub epoch: u64,
    /// The shard.
    pub shard: u32,
    /// The replica.
    pub replica: Uuid,
}

/// The answer to each of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DecisionAnswer {
    /// What is decided now.
    #[schema(value_type = Object)]
    pub config: VolumeConfig,
    /// Why what was asked for was not decided; absent when it was.
    #[schema(value_type = Option<Object>)]
    pub denied: Option<Denied>,
}
