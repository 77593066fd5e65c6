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
    /// UUID or path of the disk to use; chosen by free space when absent.
    #[serde(default)]
    pub disk: Option<String>,
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
    /// Its replica is ready on a node that is up.
    Online,
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
    /// Where its data is.
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
