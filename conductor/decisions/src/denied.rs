//! Why a decision is not made.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::config::NodeId;

/// Why a decision is not made. Nothing changed then; who asked should look at the newest
/// configuration, as what it asked for may have been done already.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Denied {
    /// Asked by a node that does not lead.
    #[error("{node} does not lead the volume")]
    NotLeader {
        /// Who asked.
        node: NodeId,
    },
    /// Asked by a process that did not claim, or whose claim is over.
    #[error("the asking process is not the one that leads")]
    OldProcess,
    /// Asked on the ground of an epoch that is over (or never was).
    #[error("epoch {asked} is not the present one, {current}")]
    OldEpoch {
        /// The epoch of who asked.
        asked: u64,
        /// The present one.
        current: u64,
    },
    /// The accuser reaches fewer of its peers than the accused does (DESIGN 5, rule 2).
    #[error("{accuser} is cut off itself, so its word against {accused} does not count")]
    Suspect {
        /// Who accused.
        accuser: NodeId,
        /// Who was accused.
        accused: NodeId,
    },
    /// Fewer than `min_in_sync` in-sync replicas would remain (DESIGN 5, rule 1).
    #[error("shard {shard} would keep only {left} in-sync replica(s) of the {min} that it needs")]
    BelowMin {
        /// The shard.
        shard: u32,
        /// What would remain.
        left: u32,
        /// What must remain.
        min: u8,
    },
    /// No shard of that number.
    #[error("there is no shard {shard}")]
    NoSuchShard {
        /// The number.
        shard: u32,
    },
    /// The shard has no such replica.
    #[error("shard {shard} has no replica {replica}")]
    NoSuchReplica {
        /// The shard.
        shard: u32,
        /// The replica.
        replica: Uuid,
    },
    /// The replica is out of sync already.
    #[error("replica {replica} is not in sync")]
    NotInSync {
        /// The replica.
        replica: Uuid,
    },
    /// The replica is in sync already.
    #[error("replica {replica} is in sync already")]
    AlreadyInSync {
        /// The replica.
        replica: Uuid,
    },
    /// The node holds a replica of the shard already.
    #[error("{node} holds a replica of shard {shard} already")]
    NodeTaken {
        /// The shard.
        shard: u32,
        /// The node.
        node: NodeId,
    },
    /// A replica's identity was used before.
    #[error("replica {replica} is a member already")]
    ReplicaTaken {
        /// The replica.
        replica: Uuid,
    },
    /// The leader is there, and nobody would serve the volume better.
    #[error("the leader is there")]
    LeaderLives,
    /// The node leads already.
    #[error("{node} leads the volume already")]
    AlreadyLeads {
        /// The node.
        node: NodeId,
    },
    /// The node is not there.
    #[error("{node} is not there")]
    NotAlive {
        /// The node.
        node: NodeId,
    },
    /// The node reaches fewer of the volume's replicas than another one.
    #[error(
        "{node} is cut off from other replicas of the volume; it may lead when it reaches them again"
    )]
    CutOff {
        /// The node.
        node: NodeId,
    },
    /// No node that is there can lead.
    #[error("no node that is there can lead the volume")]
    NoCandidate,
    /// An in-sync replica may still come back, or serve: forcing another would lose its writes.
    #[error("{node} holds an in-sync replica of shard {shard} and is there; force that one")]
    InSyncLives {
        /// The shard.
        shard: u32,
        /// The node.
        node: NodeId,
    },
    /// MetaDB is an older copy: the volume has moved on since, and who is in sync is not known here.
    #[error(
        "a replica promised epoch {promised}, and MetaDB knows only epoch {known}: it is an older copy"
    )]
    OlderCopy {
        /// The highest epoch that a replica promised.
        promised: u64,
        /// The epoch in MetaDB.
        known: u64,
    },
    /// A configuration that cannot be.
    #[error("{reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}
