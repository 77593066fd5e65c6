//! The invariants, as code. The property tests, the simulator and the conductor's own writes call
//! these after each step.

use std::collections::BTreeSet;

use thiserror::Error;
use uuid::Uuid;

use crate::config::{REPLICAS_MAX, Role, VolumeConfig};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Broken {
    /// Invariant 1.
    #[error("the epoch went from {from} to {to}")]
    Epoch {
        /// Before.
        from: u64,
        /// After.
        to: u64,
    },
    /// Invariant 2.
    #[error("shard {0} has no in-sync replica")]
    Empty(u32),
    /// Invariant 3.
    #[error("the in-sync set of shard {0} fell below the minimum")]
    BelowMin(u32),
    /// Invariant 4.
    #[error("replica {0} became in sync without its leader's word")]
    InSyncUnasked(Uuid),
    /// Invariant 6.
    #[error("two members of shard {0} are on one node")]
    SameNode(u32),
    /// Invariant 6.
    #[error("replica {0} is named twice, or moved")]
    Replica(Uuid),
    /// Invariant 7.
    #[error("the leader, its process and its reign do not fit")]
    Reign,
    /// A number of shards, replicas or blocks that cannot be.
    #[error("{0}")]
    Shape(&'static str),
}

/// What kind of decision a step was, as far as the invariants care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`crate::admit`]: one replica more is in sync.
    Admit,
    /// [`crate::force_in_sync`]: exactly one replica of one shard is in sync.
    Force,
    /// [`crate::grow`]: shards were added.
    Grow,
    /// [`crate::relocate`]: a replica is on another node.
    Relocate,
    /// Everything else: no replica becomes in sync.
    Other,
}

impl VolumeConfig {
    /// The invariants of a configuration by itself (2, 6, 7 and its shape).
    pub fn check(&self) -> Result<(), Broken> {
        self.check_shape()?;
        let mut replicas = BTreeSet::new();
        for (number, shard) in (0u32..).zip(&self.shards) {
            if shard.in_sync_count() == 0 {
                return Err(Broken::Empty(number));
            }
            let nodes: BTreeSet<_> = shard.members.iter().map(|member| member.node).collect();
            if nodes.len() != shard.members.len() {
                return Err(Broken::SameNode(number));
            }
            for member in &shard.members {
                if !replicas.insert(member.replica) {
                    return Err(Broken::Replica(member.replica));
                }
            }
        }
        let claimed = self.leader_process != 0;
        let fits = claimed == (self.reign != 0)
            && self.reign <= self.epoch
            && (!claimed || self.leader.is_some());
        if fits { Ok(()) } else { Err(Broken::Reign) }
    }

    fn check_shape(&self) -> Result<(), Broken> {
        if self.epoch == 0 || self.blocks == 0 || self.shard_blocks == 0 {
            return Err(Broken::Shape("an epoch, a size or a shard size of 0"));
        }
        if self.min_in_sync == 0 {
            return Err(Broken::Shape("a minimum of 0 in-sync replicas"));
        }
        if Self::shard_count(self.blocks, self.shard_blocks) != self.shards.len() as u64 {
            return Err(Broken::Shape("the shards do not cover the volume exactly"));
        }
        let range = usize::from(self.min_in_sync)..=usize::from(REPLICAS_MAX) + 1;
        if !self.shards.iter().all(|shard| range.contains(&shard.members.len())) {
            return Err(Broken::Shape("a shard has too few or too many replicas"));
        }
        Ok(())
    }
}

/// The invariants of a decision (1, 3 and 4), and those of what it led to.
pub fn check_step(before: &VolumeConfig, after: &VolumeConfig, step: Step) -> Result<(), Broken> {
    after.check()?;
    if before.epoch.checked_add(1) != Some(after.epoch) || before.volume != after.volume {
        return Err(Broken::Epoch { from: before.epoch, to: after.epoch });
    }
    let mut admitted = 0;
    for (number, (old, new)) in (0u32..).zip(before.shards.iter().zip(&after.shards)) {
        let floor = old.in_sync_count().min(usize::from(before.min_in_sync));
        if step != Step::Force && new.in_sync_count() < floor {
            return Err(Broken::BelowMin(number));
        }
        for member in new.in_sync() {
            let was = old.member(member.replica);
            if step != Step::Relocate && was.is_some_and(|was| was.node != member.node) {
                return Err(Broken::Replica(member.replica));
            }
            if was.map(|was| was.role) == Some(Role::InSync) {
                continue;
            }
            admitted += 1;
            let alone = new.in_sync_count() == 1;
            let asked = step == Step::Admit || (step == Step::Force && alone);
            if was.is_none() || admitted > 1 || !asked {
                return Err(Broken::InSyncUnasked(member.replica));
            }
        }
    }
    if step != Step::Grow && before.shards.len() != after.shards.len() {
        return Err(Broken::Shape("shards came or went"));
    }
    Ok(())
}
