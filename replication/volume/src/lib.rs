//! One volume over several nodes: who leads it, who has its data, and in which order it is read and written.
//!
//! A volume is cut in shards, each on some replicas. One node leads: its [`Leader`] orders writes, serves reads, renews leases,
//! brings replicas back. Each replica is a [`ReplicaServer`] on its node, which takes messages of whoever has its promise. The
//! rules are those of DESIGN 5; where the code states an invariant it names the rule, and `afs-sim` has a planted bug for each.
//!
//! Where the design was changed:
//! - The in-sync set never falls below `min_in_sync` by itself. With fewer reachable the volume stalls, nothing is
//!   acknowledged, and whoever comes back still has every acknowledged write.
//! - Freed chunks leave no tombstones: replicas compare which chunks they have, and one that is allocated on one side only may
//!   differ.
//! - Every start of a process loses a replica's list of uncommitted writes, also after a clean end. A planned restart drops the
//!   replica and resynchronises it, which costs what changed meanwhile.
//!
//! Everything touches the world through [`Host`], [`Control`] and the traits of `afs_env`, so the simulator runs this code as
//! it is.

#![forbid(unsafe_code)]

mod control;
mod leader;
mod message;
mod mutant;
mod params;
mod range_locks;
mod replica;

pub use control::{Asker, Control, ControlError};
pub use leader::{Gone, Host, Leader, LeaderState, MemberView, Phase, VolumeError, VolumeView};
pub use message::{Outcome, VERSION, result_bytes, result_of, tick_of};
#[cfg(feature = "mutants")]
pub use mutant::{Mutant, plant};
pub use params::Params;
pub use range_locks::{RangeLocks, WriteGuard};
pub use replica::{ReplicaServer, ReplicaState};
