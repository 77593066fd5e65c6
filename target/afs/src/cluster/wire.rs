//! How messages between nodes travel: vendor commands on I/O queues of the peers' subsystem.
//!
//! A call is one command. Its header lies in the dwords that NVMe leaves to a command (CDW2, CDW3, MPTR, CDW10 to CDW15), its
//! data goes where a command's data goes, and NSID names the service: a number that [`ATTACH`] gave for this queue. The answer's
//! status is the code of a vendor status (SCT 7), its eight bytes are DW0 and DW1.

use std::ops::Range;

use afs_env::{HEADER_BYTES, LinkError};
use afs_nvme::{Sqe, Status};
use uuid::Uuid;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A call without data.
pub const CALL: u8 = 0xc0;
/// A call with data to the peer.
pub const CALL_OUT: u8 = 0xc1;
/// A call whose answer has data.
pub const CALL_IN: u8 = 0xc2;
/// Gives a service its number; the data is a [`ServiceName`].
pub const ATTACH: u8 = 0xc5;

/// Vendor specific statuses are `VENDOR | code`.
const VENDOR: u16 = 0x700;
/// The service is not on this node.
pub const UNKNOWN_SERVICE: u8 = 0xf0;

/// Services that one queue may attach to.
pub const SERVICES_MAX: usize = 65_536;
/// NQN of the subsystem that nodes offer each other. Hosts never see it: it is served on the peers' listeners alone.
pub const PEERS_NQN: &str = "nqn.2026-11.io.afs.internal:peers";

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// A replica of a shard.
    Replica(Uuid),
    /// A volume, at its leader.
    Volume(Uuid),
}

/// A service as [`ATTACH`] carries it.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ServiceName {
    version: U32,
    kind: U32,
    uuid: [u8; 16],
}

const _: () = assert!(size_of::<ServiceName>() == 24);

impl From<Service> for ServiceName {
    fn from(service: Service) -> ServiceName {
        let (kind, uuid) = match service {
            Service::Replica(uuid) => (1, uuid),
            Service::Volume(uuid) => (2, uuid),
        };
        ServiceName { version: U32::new(1), kind: U32::new(kind), uuid: uuid.into_bytes() }
    }
}

impl ServiceName {
    /// Which one it is; `None` for what this version does not know.
    pub fn service(&self) -> Option<Service> {
        let uuid = Uuid::from_bytes(self.uuid);
        match (self.version.get(), self.kind.get()) {
            (1, 1) => Some(Service::Replica(uuid)),
            (1, 2) => Some(Service::Volume(uuid)),
            _ => None,
        }
    }
}

/// Where the header lies in a command: CDW2, CDW3 and MPTR, then CDW10 to CDW15.
const PLACES: [Range<usize>; 2] = [8..24, 40..64];
const _: () = assert!(24 - 8 + 64 - 40 == HEADER_BYTES);

/// The command that carries a call.
pub fn command(opcode: u8, service: u32, header: &[u8; HEADER_BYTES]) -> Sqe {
    let mut sqe = Sqe::new(opcode);
    sqe.nsid = service.into();
    let mut rest = header.as_slice();
    for place in PLACES {
        let (part, after) = rest.split_at(place.len());
        sqe.as_mut_bytes()[place].copy_from_slice(part);
        rest = after;
    }
    sqe
}

/// The header that a command carries.
pub fn header(sqe: &Sqe) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let mut rest = header.as_mut_slice();
    for place in PLACES {
        let (part, after) = rest.split_at_mut(place.len());
        part.copy_from_slice(&sqe.as_bytes()[place]);
        rest = after;
    }
    header
}

/// The status of an answer.
pub fn status(code: u8) -> Status {
    if code == 0 { Status::SUCCESS } else { Status::from_code(VENDOR | u16::from(code)) }
}

/// What a status says: a code of the protocol above, or that the call was not carried out.
pub fn code(status: Status) -> Result<u8, LinkError> {
    let code = status.code();
    match code.to_be_bytes() {
        _ if status.is_success() => Ok(0),
        [7, UNKNOWN_SERVICE] => Err(LinkError::Unreachable),
        [7, code] => Ok(code),
        // The fabric's own: it may have failed on the way there or back.
        _ => Err(LinkError::Lost),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_command() {
        let mut bytes = [0; HEADER_BYTES];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = index as u8 + 1;
        }
        let sqe = command(CALL_OUT, 77, &bytes);
        assert_eq!((sqe.nsid(), header(&sqe)), (77, bytes));
    }

    #[test]
    fn statuses_of_the_protocol_are_told_from_those_of_the_fabric() {
        assert_eq!(code(status(0)), Ok(0));
        assert_eq!(code(status(9)), Ok(9));
        assert_eq!(code(status(UNKNOWN_SERVICE)), Err(LinkError::Unreachable));
        assert_eq!(code(Status::ABORTED_SQ_DELETION), Err(LinkError::Lost));
    }

    #[test]
    fn names_of_services_come_back_and_unknown_ones_do_not() {
        for service in [Service::Replica(Uuid::from_u128(5)), Service::Volume(Uuid::from_u128(6))] {
            assert_eq!(ServiceName::from(service).service(), Some(service));
        }
        let mut other = ServiceName::from(Service::Volume(Uuid::nil()));
        other.kind = 3.into();
        assert_eq!(other.service(), None);
    }
}
