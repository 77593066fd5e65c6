//! Numbers that would hurt when mixed up, each as its own type.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> $name {
                $name(value)
            }
        }
    };
}

number! {
    /// A controller of one subsystem; [`ControllerId::MIN`] to [`ControllerId::MAX`]
    /// (CONFORMANCE F-5).
    ControllerId(u16)
}

number! {
    /// A namespace of one subsystem; 0 and [`Nsid::BROADCAST`] are not namespaces.
    Nsid(u32)
}

number! {
    /// A queue pair of one controller; 0 is the admin queue.
    QueueId(u16)
}

impl ControllerId {
    /// Lowest id that a controller may have.
    pub const MIN: ControllerId = ControllerId(1);
    /// Highest id that a controller may have.
    pub const MAX: ControllerId = ControllerId(0xffef);
    /// "Give me a new one" in Connect data; "any" in discovery entries.
    pub const DYNAMIC: ControllerId = ControllerId(0xffff);

    /// Whether a controller may have this id.
    pub const fn is_valid(self) -> bool {
        Self::MIN.0 <= self.0 && self.0 <= Self::MAX.0
    }
}

impl Nsid {
    /// "All namespaces", where a command allows it.
    pub const BROADCAST: Nsid = Nsid(u32::MAX);

    /// Whether this may be the number of a namespace.
    pub const fn is_valid(self) -> bool {
        self.0 != 0 && self.0 < u32::MAX - 1
    }
}

impl QueueId {
    /// The admin queue.
    pub const ADMIN: QueueId = QueueId(0);

    /// Whether this is the admin queue.
    pub const fn is_admin(self) -> bool {
        self.0 == 0
    }
}

/// Identity of a host: 16 bytes, a UUID on Linux. Together with the host's NQN it tells hosts apart
/// (CONFORMANCE F-7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub [u8; 16]);

impl HostId {
    /// Whether all bytes are zero: legal only for a host that does not use reservations.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_id_prints_as_a_uuid() {
        let id = HostId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(id.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert!(!id.is_zero());
    }

    #[test]
    fn reserved_numbers_are_not_ids() {
        assert!(!ControllerId(0).is_valid() && ControllerId(0xffef).is_valid());
        assert!(!ControllerId(0xfff0).is_valid() && !ControllerId::DYNAMIC.is_valid());
        assert!(!Nsid(0).is_valid() && Nsid(0xffff_fffd).is_valid());
        assert!(!Nsid(0xffff_fffe).is_valid() && !Nsid::BROADCAST.is_valid());
    }
}
