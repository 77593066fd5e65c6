//! Where a controller is, and what carries queue pairs to it.

use std::net::SocketAddr;

use afs_reactor::verbs::Verbs;

/// One port of a controller.
#[derive(Clone)]
pub enum Endpoint {
    /// NVMe/TCP at this address.
    Tcp(SocketAddr),
    /// NVMe/RDMA at this address.
    Rdma {
        /// The libraries.
        verbs: Verbs,
        /// The address.
        address: SocketAddr,
    },
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp(address)
    }
}
