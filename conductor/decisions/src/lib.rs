//! What may be decided about a replicated volume: who leads it, in which epoch, which replicas are
//! in sync, and where they live. Pure functions over plain values: no I/O, no clock, no randomness.
//!
//! The conductor calls them inside a transaction and writes the result with a compare-and-swap on
//! the epoch; the simulator calls the same code; `afs-volume` and `afs` share the types.
//!
//! A decision takes the present [`VolumeConfig`] and returns the next one, or why it is [`Denied`].
//! What the conductor believes about nodes comes in as a [`ClusterView`]. A belief may be wrong:
//! **no safety rests on it**, only on the rules below (DESIGN 5, rules 1, 2, 3 and 11).
//!
//! Invariants of every decision (checked by [`VolumeConfig::check`] and [`check_step`]):
//! 1. The epoch rises by exactly one; nothing changes without that.
//! 2. The in-sync set of a shard is never empty.
//! 3. It never falls below `min_in_sync` of itself; only [`force_in_sync`], the operator's explicit
//!    word, makes it smaller.
//! 4. A replica becomes in sync only by its leader's word ([`admit`]) or by force.
//! 5. Only the node, process and epoch that lead now are believed ([`drop_member`], [`admit`],
//!    [`renew`]).
//! 6. The members of a shard are on distinct nodes, and no replica is named twice.
//! 7. A leader that has not claimed its volume has process 0 and no reign.
//!
//! Where this departs from DESIGN 5: with fewer than `min_in_sync` replicas in reach a shard's set
//! stays as it is and the volume stalls, rather than going on with fewer after a grace period. So
//! whoever comes back still has every acknowledged write.

#![forbid(unsafe_code)]

mod change;
mod check;
mod config;
mod denied;
mod directory;
mod elect;
mod mutant;
mod placement;
mod view;

pub use change::{
    Asker, Claim, NewVolume, Place, add_member, admit, claim, create, drop_member, force_in_sync,
    grow, move_leader, relocate, remove_member, renew, set_min_in_sync,
};
pub use check::{Broken, Step, check_step};
pub use config::{
    BLOCK_BYTES, DEFAULT_SHARD_BYTES, Member, NodeId, REPLICAS_MAX, Role, Shard, VolumeConfig,
    default_min_in_sync,
};
pub use denied::Denied;
pub use directory::Directory;
pub use elect::{Election, elect, elect_all, needs_election};
pub use mutant::Mutant;
#[cfg(feature = "mutants")]
pub use mutant::plant;
pub use placement::{DiskPlace, PlacementError, place, place_one};
pub use view::{ClusterView, DiskView, EVIDENCE_FRESH_MS, NodeState, NodeView, Verdict};
