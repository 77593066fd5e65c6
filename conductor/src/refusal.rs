//! Why the conductor says no, with what the person can do about it.
//!
//! MetaDB's decisions return these; the server turns them into [`ErrorBody`], the CLI prints that.

use afs_decisions::{Denied, REPLICAS_MAX};
use thiserror::Error;

use crate::api::{ErrorBody, ErrorCode, MAX_NSID};
use crate::names::NqnFault;
use crate::size::{MAX_VOLUME_BYTES, human};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A volume, by name or UUID.
    Volume,
    /// A subsystem, by NQN.
    Subsystem,
    /// A namespace, by NSID.
    Namespace,
    /// A host on a subsystem's list.
    Host,
    /// A node, by name.
    Node,
    /// A disk, by UUID or path.
    Disk,
    /// A replica, by UUID.
    Replica,
}

impl Kind {
    /// The word that people and the CLI use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Subsystem => "subsystem",
            Self::Namespace => "namespace",
            Self::Host => "host",
            Self::Node => "node",
            Self::Disk => "disk",
            Self::Replica => "replica",
        }
    }
}

/// A request that was understood and refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The request itself is malformed.
    #[error("{0}")]
    Malformed(String),
    /// A body larger than the call accepts.
    #[error("the request is larger than this call accepts")]
    BodyTooLarge,
    /// No such address.
    #[error("there is nothing at this address")]
    NoSuchCall,
    /// A volume or node name out of the allowed form.
    #[error("`{name}` cannot be the name of a {}", kind.word())]
    BadName {
        /// What was to be named.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// An NQN out of its form.
    #[error("`{nqn}` is not an NQN that can be used here: {fault}")]
    BadNqn {
        /// The text.
        nqn: String,
        /// What is wrong with it.
        fault: NqnFault,
    },
    /// A volume of no bytes.
    #[error("a volume cannot have size 0")]
    SizeZero,
    /// A volume above the largest size.
    #[error("{} is more than the largest volume, {}", human(*bytes), human(MAX_VOLUME_BYTES))]
    SizeTooLarge {
        /// The size asked for.
        bytes: u64,
    },
    /// A resize to less than the present size.
    #[error("volume {name} has {}; it cannot shrink to {}", human(*from), human(*to))]
    Shrink {
        /// The volume.
        name: String,
        /// Its size.
        from: u64,
        /// The size asked for.
        to: u64,
    },
    /// An NSID out of range.
    #[error("{nsid} is not an NSID that can be used: they go from 1 to {MAX_NSID}")]
    BadNsid {
        /// The number.
        nsid: u64,
    },
    /// The named object is not there.
    #[error("there is no {} `{name}`{}", kind.word(), within(context))]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// By which name.
        name: String,
        /// In which subsystem, if in one.
        context: Option<String>,
        /// A known name that is near.
        nearest: Option<String>,
    },
    /// The name is taken.
    #[error("there is a {} `{name}` already", kind.word())]
    Exists {
        /// What was to be made.
        kind: Kind,
        /// Under which name.
        name: String,
    },
    /// The object changed since the caller read it.
    #[error("{} `{name}` was changed by somebody else meanwhile", kind.word())]
    Changed {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Another decision won.
    #[error("somebody else changed the cluster at the same moment")]
    Collision,
    /// The volume is exported and must not go.
    #[error("volume {volume} is in use: it is namespace {nsid} of {nqn}")]
    Exported {
        /// The volume.
        volume: String,
        /// The subsystem.
        nqn: String,
        /// The namespace.
        nsid: u64,
    },
    /// The volume is exported and must not be exported twice (`CONFORMANCE M-6`).
    #[error("volume {volume} is namespace {nsid} of {nqn} already, and can be only one namespace")]
    AlreadyExported {
        /// The volume.
        volume: String,
        /// The subsystem that has it.
        nqn: String,
        /// The namespace.
        nsid: u64,
    },
    /// The subsystem still has namespaces.
    #[error("subsystem {nqn} still has {count} namespace(s)")]
    HasNamespaces {
        /// The subsystem.
        nqn: String,
        /// How many.
        count: usize,
    },
    /// The NSID is another volume's.
    #[error("namespace {nsid} of {nqn} is volume {volume}")]
    NsidTaken {
        /// The subsystem.
        nqn: String,
        /// The NSID.
        nsid: u64,
        /// Its volume.
        volume: String,
    },
    /// The NSID was another volume's, and hosts may still know it (`CONFORMANCE A-23`).
    #[error("namespace {nsid} of {nqn} was volume {volume}; hosts may still know it as that")]
    NsidRemembered {
        /// The subsystem.
        nqn: String,
        /// The NSID.
        nsid: u64,
        /// The volume that it meant.
        volume: String,
    },
    /// No NSID is left.
    #[error("every NSID of {nqn} is in use or may still be known to hosts")]
    NsidsExhausted {
        /// The subsystem.
        nqn: String,
    },
    /// No controller ids are left for a further node (`CONFORMANCE F-5`).
    #[error("{nqn} has no controller ids left for a further node")]
    ControllerIdsExhausted {
        /// The subsystem.
        nqn: String,
    },
    /// No portal id is left.
    #[error("all 65535 portal ids have been used")]
    PortalsExhausted,
    /// No node with a working disk is up.
    #[error("no node with a working disk is up, so there is nowhere to put the volume")]
    NoDisk,
    /// The disk asked for cannot be used now.
    #[error("disk {disk} on node {node} cannot be used: {reason}")]
    DiskUnusable {
        /// The disk.
        disk: String,
        /// Its node.
        node: String,
        /// Why.
        reason: String,
    },
    /// Several nodes have a disk of that path.
    #[error("`{path}` is a disk on several nodes: {}", nodes.join(", "))]
    DiskAmbiguous {
        /// The path.
        path: String,
        /// The nodes.
        nodes: Vec<String>,
    },
    /// A host is not on the list, but everyone may connect anyway.
    #[error("{host} is not on the list of {nqn}, but any host may connect to it")]
    AnyHostAllowed {
        /// The subsystem.
        nqn: String,
        /// The host.
        host: String,
    },
    /// A number of replicas that cannot be.
    #[error("{replicas} is not a number of replicas that can be: 1 to {REPLICAS_MAX}")]
    BadReplicas {
        /// The number asked for.
        replicas: u8,
    },
    /// A minimum of in-sync replicas that cannot be.
    #[error("{min} of {replicas} replica(s) cannot be the least that must be in sync")]
    BadMinInSync {
        /// The minimum asked for.
        min: u8,
        /// The replicas that there are to be.
        replicas: u8,
    },
    /// A shard size that cannot be.
    #[error("{} is not a size for shards", human(*bytes))]
    BadShardSize {
        /// The size asked for.
        bytes: u64,
    },
    /// Shards too small for the volume.
    #[error("the volume would have {count} shards; {max} is the most")]
    TooManyShards {
        /// Shards that it would have.
        count: u64,
        /// The most that it can have.
        max: u64,
    },
    /// Replicas must be on distinct nodes.
    #[error("{wanted} nodes with a working disk are needed, and {found} are there")]
    TooFewNodes {
        /// Replicas asked for.
        wanted: u8,
        /// Nodes that could take one.
        found: usize,
    },
    /// The rules of replication do not allow it.
    #[error("this cannot be done with volume {volume}: {reason}")]
    Denied {
        /// The volume.
        volume: String,
        /// Why.
        reason: Denied,
    },
    /// The node still has something to do.
    #[error("node {node} still holds {holds} replica(s) and leads {leads} volume(s)")]
    NodeInUse {
        /// The node.
        node: String,
        /// Replicas on it.
        holds: u64,
        /// Volumes that it leads.
        leads: u64,
    },
    /// A node that reports would join again at once.
    #[error("node {node} still reports")]
    NodeUp {
        /// The node.
        node: String,
    },
    /// A node belongs to another cluster, or reports something that cannot be.
    #[error("the report of node {node} cannot be accepted: {reason}")]
    BadReport {
        /// The node.
        node: String,
        /// What is wrong.
        reason: String,
    },
}

fn within(context: &Option<String>) -> String {
    context.as_ref().map(|nqn| format!(" in {nqn}")).unwrap_or_default()
}

impl Refusal {
    /// An unknown name, with the nearest of the known ones.
    pub fn not_found<'a>(kind: Kind, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let nearest = crate::names::nearest(name, known).map(str::to_owned);
        Self::NotFound { kind, name: name.to_owned(), context: None, nearest }
    }

    /// For programs.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed(_)
            | Self::BadName { .. }
            | Self::BadNqn { .. }
            | Self::SizeZero
            | Self::SizeTooLarge { .. }
            | Self::Shrink { .. }
            | Self::BadNsid { .. }
            | Self::DiskAmbiguous { .. }
            | Self::BadReplicas { .. }
            | Self::BadMinInSync { .. }
            | Self::BadShardSize { .. }
            | Self::TooManyShards { .. }
            | Self::BadReport { .. } => ErrorCode::Invalid,
            Self::BodyTooLarge => ErrorCode::TooLarge,
            Self::NotFound { .. } | Self::NoSuchCall => ErrorCode::NotFound,
            Self::Exists { .. } => ErrorCode::Exists,
            Self::Changed { .. } | Self::Collision | Self::Denied { .. } => ErrorCode::Conflict,
            Self::Exported { .. }
            | Self::AlreadyExported { .. }
            | Self::HasNamespaces { .. }
            | Self::NsidTaken { .. }
            | Self::NsidRemembered { .. }
            | Self::NodeInUse { .. }
            | Self::NodeUp { .. }
            | Self::AnyHostAllowed { .. } => ErrorCode::InUse,
            Self::NsidsExhausted { .. }
            | Self::ControllerIdsExhausted { .. }
            | Self::PortalsExhausted
            | Self::NoDisk
            | Self::TooFewNodes { .. }
            | Self::DiskUnusable { .. } => ErrorCode::NoSpace,
        }
    }

    /// What the person can do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Malformed(_) => "/openapi.json describes every call".to_owned(),
            Self::NoSuchCall => "/openapi.json lists every call".to_owned(),
            Self::BodyTooLarge => "send less at once".to_owned(),
            Self::BadName { .. } => {
                "use 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit".to_owned()
            }
            Self::BadNqn { .. } => "an example: nqn.2026-11.com.example:database".to_owned(),
            Self::SizeZero => "give a size such as 10G".to_owned(),
            Self::SizeTooLarge { .. } => "make several volumes".to_owned(),
            Self::Shrink { .. } => {
                "shrinking would cut off data; make a smaller volume and copy to it".to_owned()
            }
            Self::BadNsid { .. } => "leave it out to get the next free one".to_owned(),
            Self::NotFound { kind, nearest, context, .. } => {
                not_found_hint(*kind, nearest.as_deref(), context.as_deref())
            }
            Self::Exists { kind, name } => {
                format!("`conductor {} show {name}` shows it; choose another name", kind.word())
            }
            Self::Changed { kind, name } => {
                format!("look at it with `conductor {} show {name}` and try again", kind.word())
            }
            Self::Collision => "try again".to_owned(),
            Self::Exported { nqn, nsid, .. } => {
                format!("remove it first: conductor namespace remove {nqn} --nsid {nsid}")
            }
            Self::AlreadyExported { nqn, nsid, .. } => format!(
                "hosts would take two namespaces with one identity for damage; \
                 to move it: conductor namespace remove {nqn} --nsid {nsid}"
            ),
            Self::HasNamespaces { nqn, .. } => format!(
                "remove them first: conductor namespace remove {nqn} --nsid N \
                 (`conductor subsystem show {nqn}` lists them)"
            ),
            Self::NsidTaken { .. } | Self::NsidRemembered { .. } => {
                "leave out --nsid to get one that was never used".to_owned()
            }
            Self::NsidsExhausted { .. } => {
                "use another subsystem; an NSID is free again a week after its removal".to_owned()
            }
            Self::ControllerIdsExhausted { .. } => "use another subsystem".to_owned(),
            Self::PortalsExhausted => "this cluster cannot learn further listeners".to_owned(),
            Self::NoDisk => {
                "see `conductor node list` and `conductor disk list`; start a node with --disk"
                    .to_owned()
            }
            Self::DiskUnusable { .. } => "`conductor disk list` shows the others".to_owned(),
            Self::DiskAmbiguous { .. } => {
                "name the disk by its UUID, from `conductor disk list`".to_owned()
            }
            Self::AnyHostAllowed { nqn, .. } => {
                format!("to let only listed hosts in: conductor host deny {nqn} any")
            }
            Self::BadReplicas { .. } => "leave it out to get 1; 3 survive two failures".to_owned(),
            Self::BadMinInSync { .. } => {
                "leave it out to get 1 of 1, 1 of 2, 2 of 3, 2 of 4 or 3 of 5".to_owned()
            }
            Self::BadShardSize { .. } => {
                "give whole gigabytes, such as 64G, or leave it out".to_owned()
            }
            Self::TooManyShards { .. } => "make the volume with larger shards".to_owned(),
            Self::TooFewNodes { .. } => {
                "each replica needs a node of its own; see `conductor node list`".to_owned()
            }
            Self::Denied { volume, .. } => {
                format!("`conductor volume show {volume}` shows its replicas and its leader")
            }
            Self::NodeInUse { node, .. } => {
                format!("empty it first: conductor node drain {node}")
            }
            Self::NodeUp { .. } => "stop it first; a node that reports joins again".to_owned(),
            Self::BadReport { .. } => "correct the node's configuration".to_owned(),
        }
    }

    /// The answer to send.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.code(), message: self.to_string(), hint: self.hint() }
    }
}

fn not_found_hint(kind: Kind, nearest: Option<&str>, context: Option<&str>) -> String {
    if let Some(nearest) = nearest {
        return format!("did you mean `{nearest}`?");
    }
    match (kind, context) {
        (Kind::Namespace, Some(nqn)) => {
            format!("`conductor subsystem show {nqn}` lists the namespaces that are there")
        }
        (Kind::Host, Some(nqn)) => format!("`conductor host list {nqn}` lists who is"),
        _ => format!("`conductor {} list` lists what is there", kind.word()),
    }
}
