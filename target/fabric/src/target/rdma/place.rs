//! Where on this machine an address is.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// How often a listener looks where its address is, or tries to listen when no device had it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Interfaces, by number and name. One that is made anew under its old name has another number.
pub(super) type Interfaces = BTreeSet<(Option<u32>, String)>;

type LookUp = Box<dyn Fn(IpAddr) -> io::Result<Interfaces> + Send>;

/// Looks where an address is.
pub(super) struct Lookout {
    pub(super) every: Duration,
    look_up: LookUp,
}

impl Lookout {
    /// For tests, which have a machine of their own.
    #[cfg(test)]
    pub(super) fn new(every: Duration, look_up: LookUp) -> Lookout {
        Lookout { every, look_up }
    }

    /// The interfaces that have `address` now.
    pub(super) fn look_up(&self, address: IpAddr) -> io::Result<Interfaces> {
        (self.look_up)(address)
    }
}

impl Default for Lookout {
    fn default() -> Lookout {
        Lookout { every: LOOK_EVERY, look_up: Box::new(interfaces_with) }
    }
}

/// Asks the kernel, which answers at once.
fn interfaces_with(address: IpAddr) -> io::Result<Interfaces> {
    let all = if_addrs::get_if_addrs()?;
    let with = all.into_iter().filter(|interface| interface.ip() == address);
    Ok(with.map(|interface| (interface.index, interface.name)).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_where_it_is_and_nowhere_else() {
        let loopback = interfaces_with(IpAddr::from([127, 0, 0, 1])).unwrap();
        assert!(loopback.iter().any(|(index, _)| index.is_some()), "{loopback:?}");
        // For documentation alone (RFC 5737).
        assert!(interfaces_with(IpAddr::from([192, 0, 2, 1])).unwrap().is_empty());
    }
}
