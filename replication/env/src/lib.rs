//! What the replication code sees of the world: a clock, randomness and disks, each a small trait.
//! Everything under `replication/` touches time, chance and storage only through these, so that
//! the simulator can run the real code with virtual time and broken disks. The real
//! implementations stand beside the traits.

mod clock;
mod disk;
mod link;
mod memory_disk;
mod random;
mod ring_disk;

pub use afs_reactor::{Buffer, BufferMut, BufferPool, DiskError, MAX_BUFFER_BYTES, RingDisk};
pub use clock::{Clock, SystemClock};
pub use disk::{BLOCK_BYTES, Disk};
pub use link::{Answer, HEADER_BYTES, Link, LinkError};
pub use memory_disk::MemDisk;
pub use random::{OsRandom, Random};
