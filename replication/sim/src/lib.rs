//! A simulated world: machines, disks, a network and time, broken on purpose, from a seed. Tests run
//! the real code of many nodes in it, in one thread, with no runtime and no sleeping, and get the
//! same run for the same seed.
//!
//! - [`Sim`]: an executor. When every task waits, it lets the next event happen. Tasks belong to
//!   a [`Process`], which can be stopped, resumed and killed.
//! - [`MachineClock`]: a machine's own view of the time, with an offset and a drift.
//! - [`SimDisk`]: an [`afs_env::Disk`] that remembers what was written, synced and is on its way,
//!   so that a power cut at any moment can be tried in several ways: [`SimDisk::cut`].
//! - [`SimNet`]: calls between machines, with all that can become of them; [`SimLink`] is an
//!   [`afs_env::Link`] over it.
//! - [`faults`]: what goes wrong, drawn from the seed.
//! - [`history`]: what clients saw, and whether a disk that works could have shown it.
//! - [`cluster`]: all of it put together.
//! - [`model`]: what a correct store may hold after a cut, for tests that compare.

mod clock;
pub mod cluster;
mod disk;
mod executor;
pub mod faults;
pub mod history;
pub mod model;
mod net;
mod random;

pub use clock::{Drift, MachineClock, SimClock};
pub use disk::{DiskConfig, Loss, SimDisk, Snapshot};
pub use executor::{Order, Process, ProcessId, Sim, Stuck};
pub use net::{
    Address, Closed, Cut, LinkMessage, NetConfig, NetCounts, PathState, SimLink, SimNet,
};
pub use random::SimRandom;
