//! The configuration of a volume: everything about it that is decided, and that changes only as a
//! whole (DESIGN 5: "leader, in-sync sets and epoch of a volume change only together").

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Bytes in a block (DESIGN 5, rule 15).
pub const BLOCK_BYTES: u64 = 4096;

/// Bytes in a shard unless the operator says otherwise.
pub const DEFAULT_SHARD_BYTES: u64 = 64 << 30;

/// Most replicas of a shard.
pub const REPLICAS_MAX: u8 = 5;

/// A node, for ever: given by MetaDB when it joins, never used twice (DESIGN 5, rule 12).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{}", self.0)
    }
}

/// What a replica is to its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Surely holds every acknowledged write.
    InSync,
    /// Is away, or is being resynchronised.
    OutOfSync,
}

/// One replica of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its identity, never used again.
    pub replica: Uuid,
    /// The node that holds it. Moving data makes another replica; only a disk that is carried to
    /// another node takes its replicas with it.
    pub node: NodeId,
    /// What it is to the shard.
    pub role: Role,
}

/// One shard. Its number is its place in [`VolumeConfig::shards`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shard {
    /// Its replicas, on distinct nodes.
    pub members: Vec<Member>,
}

impl Shard {
    /// The replicas that surely hold every acknowledged write.
    pub fn in_sync(&self) -> impl Iterator<Item = &Member> + '_ {
        self.members.iter().filter(|member| member.role == Role::InSync)
    }

    /// How many those are.
    pub fn in_sync_count(&self) -> usize {
        self.in_sync().count()
    }

    /// The member of this replica.
    pub fn member(&self, replica: Uuid) -> Option<&Member> {
        self.members.iter().find(|member| member.replica == replica)
    }

    /// The member on this node.
    pub fn on_node(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }
}

/// What is decided about one volume. Changes only as a whole, with `epoch` + 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeConfig {
    /// The volume.
    pub volume: Uuid,
    /// Rises by one with each decision.
    pub epoch: u64,
    /// The node that leads, or is to lead.
    pub leader: Option<NodeId>,
    /// The process of the leader that this reign was given to (random at each process start); 0:
    /// none has claimed it yet.
    pub leader_process: u64,
    /// The epoch with which this leader's reign began; drops and admissions keep it. 0: unclaimed.
    pub reign: u64,
    /// Nothing had failed when this leader's time began: the volume was made or grown, or its leader
    /// moved by plan; and since then no replica was dropped and nobody had to seal again. Who leads
    /// waits longer for the promises of the others, as it may have to connect to them first.
    #[serde(default)]
    pub planned: bool,
    /// Writes stall with fewer in-sync replicas than this.
    pub min_in_sync: u8,
    /// Size in blocks.
    pub blocks: u64,
    /// Blocks in each shard but the last, which may have fewer.
    pub shard_blocks: u64,
    /// The shards, in order.
    pub shards: Vec<Shard>,
}

impl VolumeConfig {
    /// How many shards a volume of this size has.
    pub fn shard_count(blocks: u64, shard_blocks: u64) -> u64 {
        blocks.div_ceil(shard_blocks.max(1))
    }

    /// Blocks in this shard: the last one has the rest.
    pub fn blocks_of_shard(&self, shard: u32) -> u64 {
        let start = u64::from(shard).saturating_mul(self.shard_blocks);
        self.blocks.saturating_sub(start).min(self.shard_blocks)
    }

    /// The shard and the block within it of a block of the volume.
    pub fn locate(&self, block: u64) -> Option<(u32, u64)> {
        if block >= self.blocks || self.shard_blocks == 0 {
            return None;
        }
        let shard = u32::try_from(block / self.shard_blocks).ok()?;
        Some((shard, block % self.shard_blocks))
    }

    /// All members with the number of their shard.
    pub fn members(&self) -> impl Iterator<Item = (u32, &Member)> + '_ {
        (0u32..)
            .zip(&self.shards)
            .flat_map(|(number, shard)| shard.members.iter().map(move |member| (number, member)))
    }

    /// Whether this node and process lead in this epoch.
    pub fn is_led_by(&self, node: NodeId, process: u64, epoch: u64) -> bool {
        process != 0
            && self.leader == Some(node)
            && self.leader_process == process
            && self.epoch == epoch
    }
}

/// `min_in_sync` unless the operator says otherwise (DESIGN 5, rule 1): 1 of 1, 1 of 2, 2 of 3.
pub fn default_min_in_sync(replicas: u8) -> u8 {
    replicas.div_ceil(2).max(1)
}
