//! NVMe-oF queue pairs over TCP and RDMA, both ends: capsules in, capsules out.
//!
//! - [`codec`]: PDUs as pure state machines, with every answer that a broken or hostile peer gets.
//! - [`target`]: serves queue pairs. `afs` implements [`Service`], and [`serve_tcp`], a [`Listener`] or an
//!   [`RdmaListener`] feeds it one [`Request`] per command capsule.
//! - [`host`]: opens queue pairs and controllers. Tests, benchmarks and replication use it.
//! - [`fuzz`]: ways in for fuzzers, replayed by the tests.
//!
//! What it does not do: TLS, and anything that needs to know what a command means.

#![forbid(unsafe_code)]

mod area;
pub mod codec;
pub mod fuzz;
pub mod host;
mod socket;
pub mod target;
mod transmit;

pub use codec::{Digests, WireLimits};
pub use host::{
    ConnectRequest, ControllerOptions, Endpoint, HostController, HostCounters, HostData, HostError,
    HostOptions, HostQueue, read_discovery_log,
};
pub use target::{
    CloseReason, Completion, Limits, Listener, Queue, QueueCloser, QueueCounters, QueueParameters,
    RdmaLimits, RdmaListener, Request, Service, TransferError, Transport, listen_tcp, serve_tcp,
};
