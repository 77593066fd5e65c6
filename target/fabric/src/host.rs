//! The host's side: queue pairs, controllers and discovery, for benchmarks, tests and replication.
//!
//! A [`HostQueue`] is one connection with a task of its own on the reactor that opened it. Submissions of one
//! scheduling round leave in one send; one receive takes as many completions as have come.

mod connect;
mod controller;
mod discovery;
mod endpoint;
mod error;
mod options;
mod queue;
mod rdma;
mod table;
mod tcp;

pub use connect::ConnectRequest;
pub use controller::{ControllerOptions, HostController};
pub use discovery::{DiscoveryLog, read_discovery_log};
pub use endpoint::Endpoint;
pub use error::HostError;
pub use options::HostOptions;
pub use queue::{HostCounters, HostData, HostQueue};
