//! The target's side of a queue pair: one task per connection reads capsules, polls the commands that they
//! start, and sends what those answer, all in rounds of one receive and one send.
//!
//! `afs` implements [`Service`]; everything else here is handed to it. It cannot tell what carries a queue pair, except
//! by asking [`Queue::transport`].
//!
//! Invariants:
//! 1. A command has one slot from its capsule until its completion has left towards the host; the slots
//!    bound everything that a queue pair can make us hold.
//! 2. No command completes while its data is on its way to us (CONFORMANCE T-33, R-15).
//! 3. After the connection is lost no command is started; those under way are polled to their end, as what is on its
//!    way to a disk cannot be called back (CONFORMANCE M-45, T-93).

mod admission;
mod close;
mod connection;
mod limits;
mod queue;
mod rdma;
mod request;
mod reserve;
mod service;
mod slots;
mod sq_head;
mod stall;
mod tcp;

pub use close::{CloseReason, QueueCloser};
pub use limits::{Limits, RdmaLimits};
pub use queue::{Queue, QueueCounters, QueueParameters, Transport};
pub use rdma::RdmaListener;
pub use request::{Request, TransferError};
pub use service::{Completion, Service};
pub use tcp::{Listener, listen_tcp, serve_tcp};
