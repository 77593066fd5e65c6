//! A portal: where hosts connect, and by which transport. Written `tcp://ADDR:PORT` or `rdma://ADDR:PORT`.

use std::fmt;
use std::net::SocketAddr;

use serde::{Serialize, Serializer};

pub use afs_fabric::Transport;

/// Every transport that there is. Its name is the scheme of a portal, `--transport` of nvme-cli, a label of metrics and a
/// word of the conductor's API.
pub const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Rdma];

/// The transport called `text`.
pub fn named(text: &str) -> Option<Transport> {
    TRANSPORTS.into_iter().find(|transport| transport.name() == text)
}

/// An address with its transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Portal {
    /// How hosts connect.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

impl Portal {
    /// The same portal with another address.
    #[must_use]
    pub const fn at(self, address: SocketAddr) -> Portal {
        Portal { address, ..self }
    }

    /// The name of its transport.
    pub const fn scheme(&self) -> &'static str {
        self.transport.name()
    }
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.address)
    }
}

impl Serialize for Portal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transport_has_its_own_name() {
        for transport in TRANSPORTS {
            assert_eq!(named(transport.name()), Some(transport));
        }
        assert_eq!([named("TCP"), named("fc"), named("")], [None; 3]);
    }

    #[test]
    fn a_portal_is_shown_as_it_is_typed() {
        let address = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 4420));
        let portal = Portal { transport: Transport::Rdma, address };
        assert_eq!(portal.to_string(), "rdma://[2001:db8::7]:4420");
    }
}
