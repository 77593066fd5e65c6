//! Subsystems and their namespaces, as operators see and change them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Nguid, Outcome};

/// Body of `POST /api/v1/subsystems`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSubsystem {
    /// The NQN, such as `nqn.2026-11.com.example:database`.
    pub nqn: String,
}

/// Body of `POST /api/v1/subsystems/{nqn}/namespaces`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddNamespace {
    /// Name or UUID of the volume.
    pub volume: String,
    /// The namespace id; the lowest that was never used when absent.
    #[serde(default)]
    pub nsid: Option<u32>,
    /// Whether hosts may only read.
    #[serde(default)]
    pub read_only: bool,
}

/// One subsystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subsystem {
    /// Its NQN.
    pub nqn: String,
    /// Its serial number, as hosts see it.
    pub serial: String,
    /// Its model number, as hosts see it.
    pub model: String,
    /// Whether any host may connect.
    pub allow_any_host: bool,
    /// NQNs of the hosts that may connect.
    pub hosts: Vec<String>,
    /// Its namespaces, in ascending order of NSID.
    pub namespaces: Vec<Namespace>,
    /// Rises with each change of the subsystem, its namespaces or its hosts.
    pub version: u64,
    /// When it was made: milliseconds since 1970, UTC.
    pub created_ms: u64,
}

/// One namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Namespace {
    /// Its id within the subsystem.
    pub nsid: u32,
    /// UUID of the volume behind it, and of the namespace.
    pub volume: Uuid,
    /// Name of that volume.
    pub volume_name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its NGUID.
    #[schema(value_type = String, example = "6ba7b8109dad11d180b400c04fd430c8")]
    pub nguid: Nguid,
    /// Whether hosts may only read.
    pub read_only: bool,
}

/// Answer to a change of a subsystem or of its hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubsystemChanged {
    /// The subsystem after the change; absent after it was deleted.
    pub subsystem: Option<Subsystem>,
    /// How far the change has come.
    pub outcome: Outcome,
}

/// Answer to a change of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceChanged {
    /// The namespace after the change; absent after it was removed.
    pub namespace: Option<Namespace>,
    /// How far the change has come.
    pub outcome: Outcome,
}
