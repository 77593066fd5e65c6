//! A host's queue pair over RDMA.
//!
//! The controller gets a key to the whole buffer pool of the reactor, not to one buffer: that costs no work request per
//! command, and suits peers that trust each other, as nodes of one cluster do. Do not use it against others.

mod driver;
mod link;
mod open;

pub(super) use link::RdmaLink;
pub(super) use open::open;
