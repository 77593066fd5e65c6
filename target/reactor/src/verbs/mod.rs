//! RDMA: safe objects over libibverbs and librdmacm, which are opened at run time. The fabric
//! uses them for queue pairs over NVMe/RDMA, on the passive side and on the active one.
//!
//! - [`Verbs`]: the libraries, and whether there is any RDMA on this machine.
//! - [`CmChannel`], [`CmId`], [`CmEvent`]: connection management, on any thread.
//! - [`RdmaDevice`]: a device as one reactor uses it, with its registered memory, its completion
//!   queue and its shared receives.
//! - [`QueuePair`]: a connection: messages in and out, RDMA READ and WRITE.
//!
//! Invariants that the unsafe code rests on:
//! 1. A C object is destroyed once, by the `Drop` of the one Rust object that owns it, after all
//!    that refer to it: queue pairs, then the shared receive queue, the completion queues, their
//!    channels, registrations, the protection domain. A context outlives its device, because the
//!    device holds an id of the connection manager that librdmacm keeps the context open for.
//! 2. Memory that a work request names is owned by the table of works (or of receives) until the
//!    completion of that request was seen, or until the queue it was posted to is destroyed.
//! 3. Queue pairs and devices stay on their reactor's thread. What other threads may touch (the
//!    state of a queue pair while it connects, asynchronous events) is behind a lock.
//! 4. Every event of librdmacm and libibverbs is acknowledged by the function that fetched it,
//!    so a destroy, which waits for that, waits for a moment only.

mod address;
mod cm;
mod context;
mod device;
mod error;
#[cfg(any(test, feature = "fake-verbs"))]
pub mod fake;
mod library;
mod queue_pair;
mod removed;
#[cfg(test)]
mod tests;

pub use cm::{CmChannel, CmEvent, CmEventKind, CmId, CmKey, CmWatch, ConnectRequest, PrivateData};
pub(crate) use device::Devices;
pub use device::{DeviceFigures, DeviceLimits, DeviceOptions, RdmaDevice, RemoteAccess};
pub use error::{WorkCause, WorkError, WorkOperation};
pub use library::{Unavailable, Verbs};
pub use queue_pair::{QueuePair, QueuePairEvent, QueuePairOptions};

/// Memory of the peer that it has opened for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteMemory {
    /// Where it begins, in the peer's terms.
    pub address: u64,
    /// The key that opens it.
    pub key: u32,
}
