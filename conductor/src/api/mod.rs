//! The types of the conductor's HTTP + JSON API, for nodes and for operators.
//!
//! The server answers with them, the CLI and the node's agent read them, and the OpenAPI document
//! at `/openapi.json` is generated from them. Unknown fields are ignored when reading, so that a
//! newer peer can add some; a field is never given a second meaning.
//!
//! | who | call | meaning |
//! |---|---|---|
//! | node | `PUT /api/v1/nodes/{name}/report` with [`NodeReport`] → [`ReportAnswer`] | "this is what I have and did"; the first one creates the node |
//! | node | `GET /api/v1/nodes/{name}/state?after=REV&source=UUID&wait=SECONDS` → [`StateNews`] | what the node should do; 204 when nothing changed within `wait` |
//! | leader | four calls under `/api/v1/internal/volumes/{uuid}` → [`DecisionAnswer`] | claims a volume, accuses and admits replicas |
//! | operator | everything else under `/api/v1` | see `/openapi.json` |
//!
//! Every error, whatever its HTTP status, is an [`ErrorBody`]. Of several conductors, one that
//! stands by answers with a redirect to the active one.

mod access;
mod common;
mod decision;
mod event;
mod node;
mod node_state;
mod report;
mod status;
mod subsystem;
mod volume;

pub use access::{AllowHost, ConnectInfo, ConnectQuery, HostAccess};
pub use common::{ErrorBody, ErrorCode, Nguid, NguidError, Outcome, Version};
pub use decision::{AccuseRequest, AdmitRequest, ClaimRequest, DecisionAnswer, RenewRequest};
pub use event::{Event, EventList, EventQuery, Severity};
pub use node::{Disk, FleetChanged, Node, NodeLiveness, Portal};
pub use node_state::{
    MAX_NSID, MODEL, NamespaceState, NodeState, Peer, StateNews, StateQuery, SubsystemNews,
    SubsystemState, VolumeAssignment,
};
pub use report::{
    DiskKind, DiskReport, DiskState, NodeReport, PortalReport, ReplicaState, ReportAnswer,
    ResyncReport, VolumeReport,
};
pub use status::{ConductorState, ConductorStatus, Status, VersionInfo};
pub use subsystem::{
    AddNamespace, CreateSubsystem, Namespace, NamespaceChanged, Subsystem, SubsystemChanged,
};
pub use volume::{
    CreateVolume, Export, ForceReplica, LeadVolume, Replica, ResizeVolume, Resync, SetMinInSync,
    Volume, VolumeChanged, VolumeState,
};

/// Where the conductor listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:49180";

/// Where the CLI looks for the conductor unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:49180";
