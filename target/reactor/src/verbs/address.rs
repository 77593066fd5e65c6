//! Socket addresses as C has them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{AF_INET, AF_INET6, sa_family_t, sockaddr_in, sockaddr_in6, sockaddr_storage};

/// The address in C's form.
pub(super) fn to_c(address: SocketAddr) -> sockaddr_storage {
    // SAFETY: all of these structs are plain numbers, for which zero is a value.
    let mut storage: sockaddr_storage = unsafe { std::mem::zeroed() };
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: as above.
            let mut raw: sockaddr_in = unsafe { std::mem::zeroed() };
            raw.sin_family = family(AF_INET);
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            // SAFETY: a storage has room for any address and its alignment.
            unsafe { (&raw mut storage).cast::<sockaddr_in>().write(raw) };
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let mut raw: sockaddr_in6 = unsafe { std::mem::zeroed() };
            raw.sin6_family = family(AF_INET6);
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_scope_id = v6.scope_id();
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<sockaddr_in6>().write(raw) };
        }
    }
    storage
}

/// The address that C's form holds; `None` when it is no IP address (not bound yet, say).
///
/// # Safety
/// `storage` points to a readable `sockaddr_storage`.
pub(super) unsafe fn from_c(storage: *const sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: readable, says the caller.
    let family = i32::from(unsafe { (*storage).ss_family });
    match family {
        AF_INET => {
            // SAFETY: the family says which struct it is.
            let raw = unsafe { storage.cast::<sockaddr_in>().read() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { storage.cast::<sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), 0, raw.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn family(family: i32) -> sa_family_t {
    sa_family_t::try_from(family).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_c_and_back() {
        for text in ["10.77.0.1:4420", "[fe80::1%3]:4420", "[2001:db8::7]:1"] {
            let address: SocketAddr = text.parse().expect("an address");
            let storage = to_c(address);
            // SAFETY: a storage on the stack.
            assert_eq!(unsafe { from_c(&raw const storage) }, Some(address));
        }
    }
}
