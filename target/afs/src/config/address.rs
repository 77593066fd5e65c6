//! Where hosts and other nodes connect, `tcp://ADDR:PORT` or `rdma://ADDR:PORT`, and which address they are told.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::portal::{self, Portal, TRANSPORTS, Transport};
use crate::queue::Door;

/// The port that NVMe over Fabrics has at IANA, for either transport.
const NVME_PORT: u16 = 4420;

/// Where the node listens, and the addresses by which it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// For whom.
    pub door: Door,
    /// What is listened on; may be a wildcard.
    pub listen: Portal,
    /// What they are told: never empty, never a wildcard (CONFORMANCE D-7), all of the same transport.
    pub advertise: Vec<Portal>,
}

/// What is wrong with a listener.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `TRANSPORT://ADDR:PORT`.
    #[error(
        "`{0}` is not an address to listen on: write tcp://ADDR:PORT or rdma://ADDR:PORT, such as tcp://192.0.2.7:4420 or rdma://[2001:db8::7]:4420"
    )]
    Malformed(String),
    /// Another transport.
    #[error(
        "`{text}`: there is no transport `{scheme}`{}; there are tcp:// and rdma://",
        suggestion(scheme)
    )]
    Transport {
        /// As written.
        text: String,
        /// What is before `://`.
        scheme: String,
    },
    /// Hosts cannot connect to a wildcard.
    #[error("`{0}` cannot be advertised: hosts need one concrete address and port")]
    AdvertisedWildcard(String),
    /// Not the same transport, so nothing would answer.
    #[error("`{advertise}` cannot be advertised for `{listen}`: the transports differ")]
    Transports {
        /// The listener.
        listen: Portal,
        /// The address for hosts.
        advertise: Portal,
    },
    /// Not the same family, which no host could use.
    #[error("`{advertise}` cannot be advertised for `{listen}`: one is IPv4, the other IPv6")]
    Family {
        /// The listener.
        listen: Portal,
        /// The address for hosts.
        advertise: Portal,
    },
    /// The lists have different lengths.
    #[error(
        "{listen} addresses to listen on but {advertise} to advertise: give one --advertise for each --listen, in the same order"
    )]
    Count {
        /// How many listeners.
        listen: usize,
        /// How many advertised.
        advertise: usize,
    },
    /// The same address twice.
    #[error("`{0}` is given twice")]
    Twice(Portal),
    /// The machine has no address of that family.
    #[error(
        "`{0}` listens on every address, but this machine has none that hosts could be told: give --advertise"
    )]
    NoInterface(Portal),
    /// The addresses of this machine cannot be read.
    #[error(
        "`{0}` listens on every address, but the addresses of this machine cannot be read ({1}): give --advertise"
    )]
    Interfaces(Portal, String),
    /// Which addresses have an RDMA device changes while the node runs.
    #[error(
        "`{0}` listens on every RDMA device, and which addresses those have is not known beforehand: give each address its own --listen, or one of them with --advertise"
    )]
    RdmaWildcard(Portal),
    /// Hosts must be told a port before the device may be there.
    #[error("`{0}`: an rdma:// address needs its port; 0 is for tcp:// alone")]
    RdmaPort(Portal),
    /// Other nodes are told the address as it is written.
    #[error(
        "`{0}` is not an address for other nodes: write tcp://ADDR:PORT or rdma://ADDR:PORT with an address and a port by which they reach this one, such as tcp://10.0.0.7:4430"
    )]
    Peers(String),
}

/// Names this short are told apart by one wrong letter, or two in the wrong order.
fn suggestion(scheme: &str) -> String {
    let written = scheme.to_ascii_lowercase();
    let meant = |name: &&str| strsim::osa_distance(&written, name) <= 1;
    match TRANSPORTS.map(Transport::name).iter().find(|name| meant(name)) {
        Some(name) => format!(" (did you mean {name}:// ?)"),
        None => String::new(),
    }
}

/// Reads the lists as given; with no listener, the default.
pub(super) fn listeners(
    listen: &[String],
    advertise: &[String],
) -> Result<Vec<Listener>, AddressError> {
    let default = [super::DEFAULT_LISTEN.to_owned()];
    let listen = if listen.is_empty() { &default } else { listen };
    if !advertise.is_empty() && advertise.len() != listen.len() {
        return Err(AddressError::Count { listen: listen.len(), advertise: advertise.len() });
    }
    let mut listeners: Vec<Listener> = Vec::with_capacity(listen.len());
    for (index, text) in listen.iter().enumerate() {
        let portal = parse(text)?;
        if listeners.iter().any(|other| other.listen == portal && portal.address.port() != 0) {
            return Err(AddressError::Twice(portal));
        }
        let advertise = advertise.get(index).map(String::as_str);
        let advertise = told(portal, advertise)?;
        listeners.push(Listener { door: Door::Hosts, listen: portal, advertise });
    }
    Ok(listeners)
}

/// Adds the listeners for other nodes to `listeners`. Nothing is assumed about their port: hosts have that of NVMe.
pub(super) fn add_peers(
    listeners: &mut Vec<Listener>,
    listen: &[String],
) -> Result<(), AddressError> {
    for text in listen {
        let portal = parse(text)?;
        let whole = text.split_once("://").is_some_and(|(_, at)| at.parse::<SocketAddr>().is_ok());
        if !whole || portal.address.ip().is_unspecified() {
            return Err(AddressError::Peers(text.clone()));
        }
        if listeners.iter().any(|other| other.listen == portal && portal.address.port() != 0) {
            return Err(AddressError::Twice(portal));
        }
        listeners.push(Listener {
            door: Door::Peers,
            listen: portal,
            advertise: told(portal, None)?,
        });
    }
    Ok(())
}

/// What hosts are told about a listener.
fn told(listen: Portal, advertise: Option<&str>) -> Result<Vec<Portal>, AddressError> {
    let rdma = listen.transport == Transport::Rdma;
    if rdma && listen.address.port() == 0 {
        return Err(AddressError::RdmaPort(listen));
    }
    match advertise {
        Some(text) => Ok(vec![advertised(text, listen)?]),
        None if !listen.address.ip().is_unspecified() => Ok(vec![listen]),
        None if rdma => Err(AddressError::RdmaWildcard(listen)),
        None => expand(listen, &interface_addresses(listen)?),
    }
}

fn parse(text: &str) -> Result<Portal, AddressError> {
    let malformed = || AddressError::Malformed(text.to_owned());
    let (scheme, address) = text.split_once("://").ok_or_else(malformed)?;
    let transport = portal::named(scheme).ok_or_else(|| AddressError::Transport {
        text: text.to_owned(),
        scheme: scheme.to_owned(),
    })?;
    let bare = || {
        let ip =
            address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        ip.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, NVME_PORT))
    };
    let address = address.parse().or_else(|_| bare()).or(Err(malformed()))?;
    Ok(Portal { transport, address })
}

fn advertised(text: &str, listen: Portal) -> Result<Portal, AddressError> {
    let advertise = parse(text)?;
    if advertise.address.ip().is_unspecified() || advertise.address.port() == 0 {
        return Err(AddressError::AdvertisedWildcard(text.to_owned()));
    }
    if advertise.transport != listen.transport {
        return Err(AddressError::Transports { listen, advertise });
    }
    if advertise.address.is_ipv4() != listen.address.is_ipv4() {
        return Err(AddressError::Family { listen, advertise });
    }
    Ok(advertise)
}

fn interface_addresses(listen: Portal) -> Result<Vec<IpAddr>, AddressError> {
    let interfaces = if_addrs::get_if_addrs()
        .map_err(|error| AddressError::Interfaces(listen, error.to_string()))?;
    Ok(interfaces.iter().map(if_addrs::Interface::ip).collect())
}

/// A wildcard stands for every address of its family that another machine can use; for loopback where there is no other.
fn expand(listen: Portal, interfaces: &[IpAddr]) -> Result<Vec<Portal>, AddressError> {
    let family = |ip: &IpAddr| ip.is_ipv4() == listen.address.is_ipv4();
    let usable = |ip: &&IpAddr| family(ip) && !is_link_local(ip);
    let (loopback, mut addresses): (Vec<IpAddr>, Vec<IpAddr>) =
        interfaces.iter().filter(usable).partition(|ip| ip.is_loopback());
    if addresses.is_empty() {
        addresses = loopback;
    }
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(AddressError::NoInterface(listen));
    }
    let port = listen.address.port();
    Ok(addresses.into_iter().map(|ip| listen.at(SocketAddr::new(ip, port))).collect())
}

/// Link-local addresses need the name of an interface beside them, which differs from host to host.
fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => Ipv6Addr::is_unicast_link_local(ip),
    }
}

#[cfg(test)]
mod tests;
