//! Where hosts connect: `tcp://ADDR:PORT`, and which address they are told.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The port that NVMe over TCP has at IANA.
const NVME_PORT: u16 = 4420;

/// One listening socket and the addresses by which hosts reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What the socket is bound to; may be a wildcard.
    pub listen: SocketAddr,
    /// What hosts are told: never empty, never a wildcard (CONFORMANCE D-7).
    pub advertise: Vec<SocketAddr>,
}

/// What is wrong with a listener.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `tcp://ADDR:PORT`.
    #[error(
        "`{0}` is not an address to listen on: write tcp://ADDR:PORT, such as tcp://192.0.2.7:4420 or tcp://[::1]:4420"
    )]
    Malformed(String),
    /// Another transport.
    #[error("`{0}`: only tcp:// is there in this version")]
    Transport(String),
    /// Hosts cannot connect to a wildcard.
    #[error("`{0}` cannot be advertised: hosts need one concrete address and port")]
    AdvertisedWildcard(String),
    /// Not the same family, which no host could use.
    #[error("`{advertise}` cannot be advertised for `{listen}`: one is IPv4, the other IPv6")]
    Family {
        /// The listener.
        listen: SocketAddr,
        /// The address for hosts.
        advertise: SocketAddr,
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
    Twice(SocketAddr),
    /// The machine has no address of that family.
    #[error(
        "`{0}` listens on every address, but this machine has none that hosts could be told: give --advertise"
    )]
    NoInterface(SocketAddr),
    /// The addresses of this machine cannot be read.
    #[error(
        "`{0}` listens on every address, but the addresses of this machine cannot be read ({1}): give --advertise"
    )]
    Interfaces(SocketAddr, String),
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
        let address = parse(text)?;
        if listeners.iter().any(|other| other.listen == address && address.port() != 0) {
            return Err(AddressError::Twice(address));
        }
        let advertise = match advertise.get(index) {
            Some(text) => vec![advertised(text, address)?],
            None if address.ip().is_unspecified() => {
                expand(address, &interface_addresses(address)?)?
            }
            None => vec![address],
        };
        listeners.push(Listener { listen: address, advertise });
    }
    Ok(listeners)
}

fn parse(text: &str) -> Result<SocketAddr, AddressError> {
    let malformed = || AddressError::Malformed(text.to_owned());
    let (transport, address) = text.split_once("://").ok_or_else(malformed)?;
    if transport != "tcp" {
        return Err(AddressError::Transport(text.to_owned()));
    }
    let bare = || {
        let ip =
            address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        ip.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, NVME_PORT))
    };
    address.parse().or_else(|_| bare()).or(Err(malformed()))
}

fn advertised(text: &str, listen: SocketAddr) -> Result<SocketAddr, AddressError> {
    let advertise = parse(text)?;
    if advertise.ip().is_unspecified() || advertise.port() == 0 {
        return Err(AddressError::AdvertisedWildcard(text.to_owned()));
    }
    if advertise.is_ipv4() != listen.is_ipv4() {
        return Err(AddressError::Family { listen, advertise });
    }
    Ok(advertise)
}

fn interface_addresses(listen: SocketAddr) -> Result<Vec<IpAddr>, AddressError> {
    let interfaces = if_addrs::get_if_addrs()
        .map_err(|error| AddressError::Interfaces(listen, error.to_string()))?;
    Ok(interfaces.iter().map(if_addrs::Interface::ip).collect())
}

/// A wildcard stands for every address of its family that another machine can use; for loopback where there is no other.
fn expand(listen: SocketAddr, interfaces: &[IpAddr]) -> Result<Vec<SocketAddr>, AddressError> {
    let usable = |ip: &&IpAddr| ip.is_ipv4() == listen.is_ipv4() && !is_link_local(ip);
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
    Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, listen.port())).collect())
}

/// Link-local addresses need the name of an interface beside them, which differs from host to host.
fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => Ipv6Addr::is_unicast_link_local(ip),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_address_without_port_gets_the_one_of_nvme() {
        for (text, address) in [
            ("tcp://192.0.2.7:4421", "192.0.2.7:4421"),
            ("tcp://192.0.2.7", "192.0.2.7:4420"),
            ("tcp://[2001:db8::7]:4421", "[2001:db8::7]:4421"),
            ("tcp://[2001:db8::7]", "[2001:db8::7]:4420"),
            ("tcp://2001:db8::7", "[2001:db8::7]:4420"),
        ] {
            assert_eq!(parse(text).unwrap(), address.parse().unwrap(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "4420", "127.0.0.1:4420", "tcp://", "tcp://host:4420", "tcp://1.2.3.4:99999"]
        {
            assert!(matches!(parse(text), Err(AddressError::Malformed(_))), "{text}");
        }
        assert!(matches!(parse("rdma://1.2.3.4:4420"), Err(AddressError::Transport(_))));
    }

    #[test]
    fn each_listener_advertises_its_own_address_unless_told_another() {
        let both = texts(&["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]);
        let own = listeners(&both, &[]).unwrap();
        assert_eq!(own[1].advertise, vec![own[1].listen]);
        let told = listeners(&both, &texts(&["tcp://192.0.2.1:1", "tcp://192.0.2.1:2"])).unwrap();
        assert_eq!(told[1].advertise, vec!["192.0.2.1:2".parse().unwrap()]);
    }

    #[test]
    fn what_no_host_could_reach_is_never_advertised() {
        let one = texts(&["tcp://0.0.0.0:4420"]);
        for (advertise, wanted) in
            [("tcp://0.0.0.0:4420", 0), ("tcp://192.0.2.1:0", 0), ("tcp://[::1]:4420", 1)]
        {
            let error = listeners(&one, &texts(&[advertise])).unwrap_err();
            let found = match error {
                AddressError::AdvertisedWildcard(_) => 0,
                AddressError::Family { .. } => 1,
                other => panic!("{advertise}: {other}"),
            };
            assert_eq!(found, wanted, "{advertise}");
        }
        let counts = listeners(&one, &texts(&["tcp://192.0.2.1:1", "tcp://192.0.2.1:2"]));
        assert_eq!(counts, Err(AddressError::Count { listen: 1, advertise: 2 }));
        let twice = texts(&["tcp://127.0.0.1:1", "tcp://127.0.0.1:1"]);
        assert!(matches!(listeners(&twice, &[]), Err(AddressError::Twice(_))));
    }

    #[test]
    fn a_wildcard_stands_for_the_addresses_of_its_family() {
        let all = ips(&[
            "127.0.0.1",
            "192.0.2.9",
            "192.0.2.3",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "2001:db8::1",
        ]);
        let v4 = expand("0.0.0.0:4420".parse().unwrap(), &all).unwrap();
        assert_eq!(v4, vec!["192.0.2.3:4420".parse().unwrap(), "192.0.2.9:4420".parse().unwrap()]);
        let v6 = expand("[::]:4420".parse().unwrap(), &all).unwrap();
        assert_eq!(v6, vec!["[2001:db8::1]:4420".parse().unwrap()]);
        let alone = expand("0.0.0.0:4420".parse().unwrap(), &ips(&["127.0.0.1"])).unwrap();
        assert_eq!(alone, vec!["127.0.0.1:4420".parse().unwrap()]);
        let none = expand("[::]:4420".parse().unwrap(), &ips(&["127.0.0.1", "fe80::1"]));
        assert!(matches!(none, Err(AddressError::NoInterface(_))));
    }
}
