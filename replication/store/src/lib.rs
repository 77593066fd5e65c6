//! One disk: thin replicas on a raw device or a file, with crash consistency.
//!
//! A disk is formatted once ([`Store::format`]), opened ([`Store::open`]) on one reactor, its home,
//! and attached to on others ([`Store::attach`]). The home runs [`Store::background`]. Data goes
//! through [`Replica`] handles. Offline there are [`inspect()`] and [`check()`].
//!
//! Everything touches the world only through [`afs_env::Disk`], so the same code runs over io_uring
//! and over the simulator's broken disks. All reactors share one chunk array (atomics) and one lock
//! (metadata, never held over an await).
//!
//! Promises, each with the tests that hold it (`afs-sim`, `tests/`):
//! - a write that returned is on stable media, and is read back until the block is written, trimmed
//!   or zeroed again;
//! - a write that did not return leaves each block old or new, whole;
//! - no read shows bytes that were not written to the same block of the same replica;
//! - damage is found and named, never silently repaired by forgetting.
//!
//! Not here: checksums of overwritten data at rest, snapshots (the format has layers, parents and
//! reference counts), and exclusion of reads against writes of the same block under way: such a
//! read may see either.
//!
//! Where to read on: the module `format` for the layout; the journal's module says why each moment
//! is safe.

mod apply;
mod check;
mod checkpoint;
mod chunk;
mod create;
mod error;

mod format;
mod fuzz;
mod generations;
mod ids;
mod inspect;
mod invariants;
mod journal;
mod label;
mod load;
mod map;
mod mutant;
mod open;
mod recover;
mod replica;
mod state;
mod stats;
mod store;
mod waiters;

pub use check::{CheckReport, check};
pub use create::{FormatOptions, format};
pub use error::{Damage, FormatError, OpenError, ReplicaError, StoreError};
pub use format::{BLOCK_BYTES, MAX_REPLICA_BLOCKS};
pub use fuzz::fuzz_journal;
pub use ids::{Generation, LayerId, ReplicaId};
pub use inspect::{Contents, DiskInfo, inspect};
pub use label::Label;
#[cfg(feature = "mutants")]
pub use mutant::{Mutant, plant};
pub use open::{Phase, Progress};
pub use replica::{Replica, Sum};
pub use stats::{ReplicaInfo, StopReason, StoreStats};
pub use store::{OpenDisks, OpenOptions, Store, StoreShared};
