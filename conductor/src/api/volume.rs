//! Volumes, as operators see and change them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Nguid, Outcome, ReplicaState};

/// Body of `POST /api/v1/volumes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// 1 to 63 characters out of `a-z 0-9 . _ -`, beginning with a letter or digit.
    pub name: String,
    /// Rounded up to a multiple of 4096.
    pub size_bytes: u64,
    /// UUID or path of the disk to use; chosen by free space when absent. Only with one replica.
    #[serde(default)]
    pub disk: Option<String>,
    /// Replicas of each block, on as many nodes, 1 to 5; 1 when absent.
    #[serde(default)]
    pub replicas: Option<u8>,
    /// Writes stall with fewer in-sync replicas; 1 of 1, 1 of 2, 2 of 3 and so on when absent.
    #[serde(default)]
    pub min_in_sync: Option<u8>,
    /// Size of the pieces that are placed each by itself: a multiple of 1 GiB. When absent: 64 GiB,
    /// or the whole volume with one replica.
    #[serde(default)]
    pub shard_bytes: Option<u64>,
}

/// Body of `POST /api/v1/volumes/{name}/leader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeadVolume {
    /// Name of the node that is to lead.
    pub node: String,
}

/// Body of `POST /api/v1/volumes/{name}/force`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForceReplica {
    /// The replica that alone is to count as in sync from now on.
    pub replica: Uuid,
}

/// Body of `POST /api/v1/volumes/{name}/min-in-sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetMinInSync {
    /// Writes stall with fewer in-sync replicas.
    pub min_in_sync: u8,
}

/// Body of `PATCH /api/v1/volumes/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// Rounded up to a multiple of 4096; must not be less than the present size.
    pub size_bytes: u64,
    /// Refuse with `conflict` unless the volume still has this version.
    #[serde(default)]
    pub version: Option<u64>,
}

/// Whether a volume can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Its replicas are ready on nodes that are up.
    Online,
    /// It serves, but some replicas are away or not in sync.
    Degraded,
    /// Fewer replicas than needed are there: I/O waits for them.
    Stalled,
    /// A node is still working on it.
    Pending,
    /// Its node could not make or open it.
    Failed,
    /// Its node is not up.
    Unavailable,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Its identity, never used again; also the UUID of its namespace.
    pub uuid: Uuid,
    /// Its name, unique among the volumes that exist.
    pub name: String,
    /// Size that hosts see.
    pub size_bytes: u64,
    /// NGUID of its namespace.
    #[schema(value_type = String, example = "6ba7b8109dad11d180b400c04fd430c8")]
    pub nguid: Nguid,
    /// Whether it can be used.
    pub state: VolumeState,
    /// Bytes taken on disk, if its node is up.
    pub allocated_bytes: Option<u64>,
    /// The node that leads it, or is to.
    pub leader: Option<String>,
    /// Whether the leader has claimed it: then it serves, or is about to.
    pub claimed: bool,
    /// Counts the decisions about leader and replicas.
    pub epoch: u64,
    /// Replicas that each shard should have.
    pub copies: u8,
    /// Writes stall with fewer in-sync replicas.
    pub min_in_sync: u8,
    /// Size of each shard but the last; the volume's size where there is one shard.
    pub shard_bytes: u64,
    /// Number of shards.
    pub shards: u32,
    /// Where its data is, by shard.
    pub replicas: Vec<Replica>,
    /// The namespace that it is exported as.
    pub export: Option<Export>,
    /// Rises with each change of the volume.
    pub version: u64,
    /// When it was made: milliseconds since 1970, UTC.
    pub created_ms: u64,
}

/// One replica of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replica {
    /// Its identity, never used again.
    pub uuid: Uuid,
    /// Its shard, from 0.
    pub shard: u32,
    /// Whether it surely holds every acknowledged write.
    pub in_sync: bool,
    /// How far it has been filled, while its leader fills it.
    pub resync: Option<Resync>,
    /// The node that holds it.
    pub node: String,
    /// The disk that holds it.
    pub disk: Uuid,
    /// What its node last reported, if the node is up and has.
    pub state: Option<ReplicaState>,
    /// Why it cannot be used.
    pub error: Option<String>,
}

/// How hosts see a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Export {
    /// NQN of the subsystem.
    pub nqn: String,
    /// Namespace id within it.
    pub nsid: u32,
}

/// Answer to a change of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeChanged {
    /// The volume after the change; absent after it was deleted.
    pub volume: Option<Volume>,
    /// How far the change has come.
    pub outcome: Outcome,
}

/// How far a replica has been filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resync {
    /// Bytes to look at in all.
    pub total_bytes: u64,
    /// Of these still to do.
    pub left_bytes: u64,
    /// Seconds until it is done, if known.
    pub left_seconds: Option<u64>,
}
