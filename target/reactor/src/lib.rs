//! The machine's edge: a runtime per core ([`Reactors`]), page-aligned buffers ([`BufferPool`]),
//! disks on an io_uring ([`DiskFile`], [`RingDisk`]), sockets whose system calls are counted
//! ([`socket`]) and RDMA ([`verbs`]). All hand-written `unsafe` of the project lives in this crate, but
//! for four one-line functions of `afs-verbs-sys`.
//!
//! The fabric and the store run on reactors and use their buffers; the replication code above
//! sees disks only through the traits of `afs_env`.

pub mod buffer;
pub mod clock;
pub mod counters;
pub mod disk;
mod fifo;
mod idle;
mod memory;
mod pacer;
mod reactor;
mod ring;
pub mod socket;
pub mod verbs;

pub use buffer::{Buffer, BufferMut, BufferPool, MAX_BUFFER_BYTES};
pub use counters::{Counters, ReactorStats};
pub use disk::{DiskError, DiskFile, DiskOptions, Durability, OpenError, RingDisk};
pub use reactor::{Local, ReactorConfig, ReactorGone, ReactorHandle, Reactors};
pub use ring::Ring;
pub use socket::Socket;
