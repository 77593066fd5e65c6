//! The target's side of a queue pair: one task per connection reads capsules, polls the commands that they
//! start, and sends what those answer, all in rounds of one receive and one send.
//!
//! `afs` implements [`Service`]; everything else here is handed to it.
//!
//! Invariants:
//! 1. A command has one slot from its capsule until its completion has left towards the socket; the slots
//!    bound everything that a queue pair can make us hold.
//! 2. No command completes while its R2T is unsatisfied (CONFORMANCE T-33).
//! 3. After the connection is lost no command is started and none is polled again (CONFORMANCE M-45).

mod admission;
mod close;
mod connection;
mod incoming;
mod limits;
mod listener;
mod queue;
mod request;
mod responses;
mod serve;
mod service;
mod slots;
mod stall;

pub use close::{CloseReason, QueueCloser};
pub use limits::Limits;
pub use listener::{Listener, listen_tcp};
pub use queue::{Queue, QueueCounters, QueueParameters};
pub use request::{Request, TransferError};
pub use serve::serve_tcp;
pub use service::{Completion, Service};
