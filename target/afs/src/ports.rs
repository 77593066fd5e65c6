//! Taking the hosts' ports early without answering on them: a port in use is found before any disk is recovered, and
//! until the tables are loaded the system refuses connections (CONFORMANCE M-41).

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody else has it.
    #[error(
        "{what} {address} is in use by another process; stop that (`ss -ltnp 'sport = :{port}'` shows it), or give another address with {flag}",
        port = address.port()
    )]
    InUse {
        /// What it is for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// This machine does not have it.
    #[error(
        "{what} {address} is not an address of this machine (`ip address` shows them); give one that is with {flag}"
    )]
    NotHere {
        /// What it is for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// Anything else.
    #[error("{what} {address} cannot be listened on: {error}; give another address with {flag}")]
    Io {
        /// What it is for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
        /// The flag that sets it.
        flag: &'static str,
    },
}

impl PortError {
    /// What `error` means for `address`.
    pub fn new(
        what: &'static str,
        address: SocketAddr,
        flag: &'static str,
        error: io::Error,
    ) -> PortError {
        match error.kind() {
            io::ErrorKind::AddrInUse => PortError::InUse { what, address, flag },
            io::ErrorKind::AddrNotAvailable => PortError::NotHere { what, address, flag },
            _ => PortError::Io { what, address, error, flag },
        }
    }
}

/// An address that is taken but not answered.
pub struct ReservedPort {
    socket: TcpListener,
}

impl ReservedPort {
    /// Takes `address`, for hosts. Another socket that sets `SO_REUSEADDR` may still bind and listen there.
    pub fn new(address: SocketAddr) -> Result<ReservedPort, PortError> {
        let bound =
            bind(address).map_err(|error| PortError::new("tcp://", address, "--listen", error))?;
        Ok(ReservedPort { socket: bound })
    }

    /// Where it is; tells the port where port 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_reserved_port_refuses_hosts_and_lets_its_owner_listen() {
        let reserved = ReservedPort::new("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = reserved.address().unwrap();
        assert_eq!(
            TcpStream::connect(address).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        let listening = afs_fabric::listen_tcp(address, 16).unwrap();
        assert_eq!(listening.local_address(), address);
        drop(reserved);
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_port_in_use_is_named_with_what_to_do() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let error = ReservedPort::new(address).err().unwrap().to_string();
        for part in [&address.to_string(), "in use", "--listen", "ss -ltnp"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_address_of_another_machine_is_said_to_be_that() {
        let error = ReservedPort::new("192.0.2.1:4420".parse().unwrap()).err().unwrap().to_string();
        assert!(error.contains("not an address of this machine"), "{error}");
    }
}
