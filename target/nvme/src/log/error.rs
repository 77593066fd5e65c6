//! Error information (log 01h): the newest error first (CONFORMANCE 4.5).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One error (64 bytes). Start from `FromZeros::new_zeroed`.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ErrorEntry {
    /// Number of this error since the controller began, from 1; 0 marks an unused entry.
    pub error_count: U64,
    /// Submission queue of the command.
    pub sqid: U16,
    /// Identifier of the command.
    pub cid: U16,
    /// Status field of its completion.
    pub status: U16,
    /// Byte in 7:0 and bit in 10:8 of the wrong field; 0xffff when there is none.
    pub parameter_location: U16,
    /// First block with the error.
    pub lba: U64,
    /// Namespace.
    pub nsid: U32,
    /// Vendor specific log page, or 0.
    pub vendor: u8,
    /// Transport; see [`super::discovery::trtype`].
    pub trtype: u8,
    /// Command set.
    pub csi: u8,
    /// Opcode of the command.
    pub opcode: u8,
    /// Command specific.
    pub command_specific: U64,
    /// Transport specific.
    pub transport_specific: U16,
    /// Reserved.
    pub reserved42: [u8; 21],
    /// Version of the layout; 0 says that `csi` and `opcode` are not to be read.
    pub version: u8,
}

assert_layout!(ErrorEntry, 64, { error_count @ 0, sqid @ 8, cid @ 10, status @ 12, parameter_location @ 14, lba @ 16, nsid @ 24, vendor @ 28, trtype @ 29, csi @ 30, opcode @ 31, command_specific @ 32, transport_specific @ 40, reserved42 @ 42, version @ 63 });

/// `parameter_location` when no field is to blame.
pub const NO_PARAMETER: u16 = 0xffff;
