//! Connect: its submission entry, its 1024 bytes of data, and its results (CONFORMANCE 3.1).
//! Properties are in [`crate::property`] and visible here too.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::{ControllerId, HostId};
use crate::nqn::{FIELD_BYTES, Nqn, NqnError};
use crate::opcode;
use crate::sgl::Sgl;
use crate::sqe::FLAGS_SGL;

pub use crate::property::{
    Cap, Cc, Csts, PropertyOffset, PropertySize, ShutdownNotice, ShutdownStatus,
};

/// CATTR bit 2: the host disables SQ flow control.
pub const CATTR_DISABLE_SQ_FLOW: u8 = 1 << 2;

/// Connect's submission entry, field by field (64 bytes).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ConnectCommand {
    /// [`opcode::FABRICS`].
    pub opcode: u8,
    /// Flags, as in [`crate::Sqe`].
    pub flags: u8,
    /// Command identifier.
    pub cid: U16,
    /// [`opcode::fabrics::CONNECT`].
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 19],
    /// Where the data is.
    pub sgl: Sgl,
    /// Record format; 0.
    pub recfmt: U16,
    /// Queue to create; 0 is the admin queue.
    pub qid: U16,
    /// Entries of the queue less one.
    pub sqsize: U16,
    /// Attributes; see [`CATTR_DISABLE_SQ_FLOW`].
    pub cattr: u8,
    /// Reserved.
    pub reserved47: u8,
    /// Keep-alive timeout in milliseconds; 0 is none.
    pub kato: U32,
    /// Reserved.
    pub reserved52: [u8; 12],
}

assert_layout!(ConnectCommand, 64, {
    opcode @ 0, flags @ 1, cid @ 2, fctype @ 4, reserved5 @ 5, sgl @ 24, recfmt @ 40, qid @ 42,
    sqsize @ 44, cattr @ 46, reserved47 @ 47, kato @ 48, reserved52 @ 52,
});

impl ConnectCommand {
    /// A Connect whose data is in the capsule; `sqsize` is the number of entries less one.
    pub fn new(qid: u16, sqsize: u16, cattr: u8, kato_ms: u32) -> ConnectCommand {
        ConnectCommand {
            opcode: opcode::FABRICS,
            flags: FLAGS_SGL,
            cid: U16::ZERO,
            fctype: opcode::fabrics::CONNECT,
            reserved5: [0; 19],
            sgl: Sgl::in_capsule(CONNECT_DATA_BYTES),
            recfmt: U16::ZERO,
            qid: qid.into(),
            sqsize: sqsize.into(),
            cattr,
            reserved47: 0,
            kato: kato_ms.into(),
            reserved52: [0; 12],
        }
    }
}

/// Bytes of [`ConnectData`]; a Connect with any other length is refused (CONFORMANCE F-1).
pub const CONNECT_DATA_BYTES: u32 = 1024;

/// Data of a Connect command (1024 bytes).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ConnectData {
    /// Identity of the host.
    pub hostid: [u8; 16],
    /// Controller to join, or [`ControllerId::DYNAMIC`].
    pub cntlid: U16,
    /// Reserved.
    pub reserved18: [u8; 238],
    /// Subsystem, NUL-terminated.
    pub subnqn: [u8; FIELD_BYTES],
    /// Host, NUL-terminated.
    pub hostnqn: [u8; FIELD_BYTES],
    /// Reserved.
    pub reserved768: [u8; 256],
}

assert_layout!(ConnectData, 1024, {
    hostid @ 0, cntlid @ 16, reserved18 @ 18, subnqn @ 256, hostnqn @ 512, reserved768 @ 768,
});

impl ConnectData {
    /// Data of a Connect command.
    pub fn new(hostid: HostId, cntlid: ControllerId, subnqn: &Nqn, hostnqn: &Nqn) -> ConnectData {
        ConnectData {
            hostid: hostid.0,
            cntlid: cntlid.0.into(),
            reserved18: [0; 238],
            subnqn: subnqn.to_field(),
            hostnqn: hostnqn.to_field(),
            reserved768: [0; 256],
        }
    }

    /// Identity of the host.
    pub const fn hostid(&self) -> HostId {
        HostId(self.hostid)
    }

    /// Controller to join.
    pub const fn cntlid(&self) -> ControllerId {
        ControllerId(self.cntlid.get())
    }

    /// Subsystem to connect to.
    ///
    /// # Errors
    /// See [`NqnError`]; answer [`InvalidParameter::SUBNQN`].
    pub fn subnqn(&self) -> Result<Nqn, NqnError> {
        Nqn::from_field(&self.subnqn)
    }

    /// The connecting host.
    ///
    /// # Errors
    /// See [`NqnError`]; answer [`InvalidParameter::HOSTNQN`].
    pub fn hostnqn(&self) -> Result<Nqn, NqnError> {
        Nqn::from_field(&self.hostnqn)
    }
}

/// Which field made a Connect fail with [`crate::Status::CONNECT_INVALID_PARAMETERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidParameter {
    /// Byte offset of the field.
    pub offset: u16,
    /// Whether the offset is in the data, else in the submission entry.
    pub in_data: bool,
}

impl InvalidParameter {
    /// QID in the submission entry.
    pub const QID: InvalidParameter = InvalidParameter { offset: 42, in_data: false };
    /// SQSIZE in the submission entry.
    pub const SQSIZE: InvalidParameter = InvalidParameter { offset: 44, in_data: false };
    /// Host identifier in the data.
    pub const HOSTID: InvalidParameter = InvalidParameter { offset: 0, in_data: true };
    /// Controller id in the data.
    pub const CNTLID: InvalidParameter = InvalidParameter { offset: 16, in_data: true };
    /// Subsystem name in the data.
    pub const SUBNQN: InvalidParameter = InvalidParameter { offset: 256, in_data: true };
    /// Host name in the data.
    pub const HOSTNQN: InvalidParameter = InvalidParameter { offset: 512, in_data: true };

    /// The completion's result: IPO in 15:0, IATTR in bit 16.
    pub const fn result(self) -> u64 {
        self.offset as u64 | (self.in_data as u64) << 16
    }

    /// Reads the field from a completion's result.
    pub const fn from_result(dw0: u32) -> InvalidParameter {
        #[allow(clippy::cast_possible_truncation, reason = "the offset is in the lower 16 bits")]
        let offset = dw0 as u16;
        InvalidParameter { offset, in_data: dw0 & 1 << 16 != 0 }
    }
}

/// Result of a successful Connect: the controller's id, and bit 17 when the host has to
/// authenticate (ATR). ASCR, bit 18, is never set: hosts fail on it.
pub const fn connect_result(controller: ControllerId, authenticate: bool) -> u64 {
    controller.0 as u64 | (authenticate as u64) << 17
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Sqe;

    #[test]
    fn connect_bytes_lie_where_conformance_says() {
        let command = ConnectCommand::new(0x0102, 0x0304, CATTR_DISABLE_SQ_FLOW, 0x0506_0708);
        let bytes = command.as_bytes();
        assert_eq!((bytes[0], bytes[1], bytes[4]), (0x7f, 0x40, 1));
        assert_eq!(bytes[40..52], [0, 0, 2, 1, 4, 3, 4, 0, 8, 7, 6, 5]);
        let sqe = Sqe::read_from_bytes(bytes).unwrap();
        assert_eq!(sqe.sgl, Sgl::in_capsule(1024));
        assert_eq!(sqe.fctype(), opcode::fabrics::CONNECT);
    }

    #[test]
    fn connect_data_gives_back_who_connects_to_what() {
        let host = Nqn::new("nqn.2014-08.org.nvmexpress:uuid:1").unwrap();
        let data =
            ConnectData::new(HostId([7; 16]), ControllerId::DYNAMIC, &Nqn::discovery(), &host);
        let copy = ConnectData::read_from_bytes(data.as_bytes()).unwrap();
        assert_eq!(copy.hostnqn(), Ok(host));
        assert!(copy.subnqn().unwrap().is_discovery());
        assert_eq!((copy.hostid(), copy.cntlid()), (HostId([7; 16]), ControllerId(0xffff)));
    }

    #[test]
    fn results_tell_the_field_and_where_it_is() {
        assert_eq!(InvalidParameter::QID.result(), 42);
        assert_eq!(InvalidParameter::SQSIZE.result(), 44);
        assert_eq!(InvalidParameter::CNTLID.result(), 0x1_0010);
        assert_eq!(InvalidParameter::SUBNQN.result(), 0x1_0100);
        assert_eq!(InvalidParameter::HOSTNQN.result(), 0x1_0200);
        assert_eq!(InvalidParameter::from_result(0x1_0010), InvalidParameter::CNTLID);
        assert_eq!(connect_result(ControllerId(5), false), 5);
        assert_eq!(connect_result(ControllerId(5), true), 0x2_0005);
    }
}
