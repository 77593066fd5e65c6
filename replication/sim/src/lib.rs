//! Simulated disks and time: broken on purpose, from a seed. Tests run the real store on them, in
//! one thread, with no runtime and no sleeping, and get the same run for the same seed.
//!
//! - [`Sim`]: a small executor. When every task waits, it lets one disk operation (chosen by the
//!   seed) happen, or moves time on.
//! - [`SimDisk`]: an [`afs_env::Disk`] that remembers what was written, synced and is on its way,
//!   so that a power cut at any moment can be tried in several ways: [`SimDisk::cut`].
//! - [`model`]: what a correct store may hold after a cut, for tests that compare.

mod clock;
mod disk;
mod executor;
pub mod model;
mod random;

pub use clock::SimClock;
pub use disk::{DiskConfig, Loss, SimDisk, Snapshot};
pub use executor::{Sim, Stuck};
pub use random::SimRandom;
