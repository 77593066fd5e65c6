//! Taking the hosts' ports early without answering on them: a port in use is found before any disk is recovered, and
//! until the tables are loaded the system refuses connections (CONFORMANCE M-41).
//!
//! This is for TCP. RDMA's connection manager has no port that is taken and silent, so an RDMA listener learns only when
//! it listens whether it can.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::config::Listener;
use crate::portal::{self, Portal, Transport};
use crate::queue::Door;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody else has it.
    #[error(
        "{scheme}://{address} is in use by another process; stop that (`{}` shows it), or give another address with {flag}",
        who_has(scheme, address.port())
    )]
    InUse {
        /// How it is spoken to.
        scheme: &'static str,
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// This machine does not have it.
    #[error(
        "{scheme}://{address} is not an address of this machine (`ip address` shows them); give one that is with {flag}"
    )]
    NotHere {
        /// How it is spoken to.
        scheme: &'static str,
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// Anything else.
    #[error(
        "{scheme}://{address} cannot be listened on: {error}; give another address with {flag}"
    )]
    Io {
        /// How it is spoken to.
        scheme: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
        /// The flag that sets it.
        flag: &'static str,
    },
}

fn who_has(scheme: &str, port: u16) -> String {
    match portal::named(scheme) {
        Some(Transport::Rdma) => "rdma resource show cm_id".to_owned(),
        _ => format!("ss -ltnp 'sport = :{port}'"),
    }
}

impl PortError {
    /// What `error` means for an HTTP server on `address`, which `flag` sets.
    pub fn http(address: SocketAddr, flag: &'static str, error: io::Error) -> PortError {
        PortError::new("http", address, flag, error)
    }

    /// What `error` means for a listener on `portal`.
    pub fn listen(portal: Portal, door: Door, error: io::Error) -> PortError {
        PortError::new(portal.scheme(), portal.address, door.flag(), error)
    }

    fn new(
        scheme: &'static str,
        address: SocketAddr,
        flag: &'static str,
        error: io::Error,
    ) -> PortError {
        match error.kind() {
            io::ErrorKind::AddrInUse => PortError::InUse { scheme, address, flag },
            io::ErrorKind::AddrNotAvailable => PortError::NotHere { scheme, address, flag },
            _ => PortError::Io { scheme, address, error, flag },
        }
    }
}

/// What a node has of its listeners before it answers hosts.
#[derive(Default)]
pub struct Ports {
    /// TCP ports: ours, and refusing.
    pub tcp: Vec<(ReservedPort, Door)>,
    /// RDMA portals: only their addresses.
    pub rdma: Vec<(Portal, Door)>,
}

impl Ports {
    /// Takes what can be taken for `listeners`, and writes the ports into them that the system chose for port 0.
    ///
    /// # Errors
    /// When a TCP port cannot be had.
    pub fn take(listeners: &mut [Listener]) -> Result<Ports, PortError> {
        let mut ports = Ports::default();
        for listener in listeners {
            match listener.listen.transport {
                Transport::Rdma => ports.rdma.push((listener.listen, listener.door)),
                Transport::Tcp => {
                    let reserved = ReservedPort::new(listener.listen.address, listener.door)?;
                    choose_port(listener, reserved.address.port());
                    ports.tcp.push((reserved, listener.door));
                }
            }
        }
        Ok(ports)
    }
}

fn choose_port(listener: &mut Listener, port: u16) {
    for portal in std::iter::once(&mut listener.listen).chain(&mut listener.advertise) {
        if portal.address.port() == 0 {
            portal.address.set_port(port);
        }
    }
}

/// A TCP address that is taken but not answered.
pub struct ReservedPort {
    address: SocketAddr,
    _socket: TcpListener,
}

impl ReservedPort {
    /// Takes `address`. Another socket that sets `SO_REUSEADDR` may still bind and listen there.
    pub fn new(address: SocketAddr, door: Door) -> Result<ReservedPort, PortError> {
        let portal = Portal { transport: Transport::Tcp, address };
        let failed = |error| PortError::listen(portal, door, error);
        let socket = bind(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(ReservedPort { address, _socket: socket })
    }

    /// Where it is; tells the port where port 0 was asked for.
    pub fn portal(&self) -> Portal {
        Portal { transport: Transport::Tcp, address: self.address }
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
        let reserved = ReservedPort::new("127.0.0.1:0".parse().unwrap(), Door::Hosts).unwrap();
        let address = reserved.portal().address;
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
        for (door, flag) in [(Door::Hosts, " --listen"), (Door::Peers, " --peer-listen")] {
            let error = ReservedPort::new(address, door).err().unwrap().to_string();
            for part in [&address.to_string(), "in use", flag, "ss -ltnp"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn an_rdma_port_in_use_is_looked_for_among_those_of_rdma() {
        let address = "192.0.2.1:4420".parse().unwrap();
        let portal = Portal { transport: Transport::Rdma, address };
        let error =
            PortError::listen(portal, Door::Hosts, io::ErrorKind::AddrInUse.into()).to_string();
        for part in ["rdma://192.0.2.1:4420 is in use", "rdma resource show cm_id", "--listen"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn only_tcp_ports_are_taken_and_the_chosen_one_is_what_hosts_are_told() {
        let listener = |transport, address: &str| {
            let portal = Portal { transport, address: address.parse().unwrap() };
            Listener { door: Door::Hosts, listen: portal, advertise: vec![portal] }
        };
        let mut listeners =
            [listener(Transport::Tcp, "127.0.0.1:0"), listener(Transport::Rdma, "192.0.2.1:4420")];
        let ports = Ports::take(&mut listeners).unwrap();
        let rdma = [(listeners[1].listen, Door::Hosts)];
        assert_eq!((ports.tcp.len(), ports.rdma.as_slice()), (1, &rdma[..]));
        let chosen = ports.tcp[0].0.portal();
        assert_ne!(chosen.address.port(), 0);
        assert_eq!((listeners[0].listen, &listeners[0].advertise[..]), (chosen, &[chosen][..]));
    }

    #[test]
    fn an_address_of_another_machine_is_said_to_be_that() {
        let error = ReservedPort::new("192.0.2.1:4420".parse().unwrap(), Door::Hosts)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("not an address of this machine"), "{error}");
    }
}
