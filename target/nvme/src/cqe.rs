//! The completion queue entry: what a controller answers to a command (CONFORMANCE 0).

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Status;

/// Submission queue head reported when the host disabled SQ flow control.
pub const SQ_HEAD_NO_FLOW_CONTROL: u16 = 0xffff;

/// A completion queue entry (16 bytes).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Cqe {
    /// Command result: DW0 in the low half, DW1 in the high half.
    pub result: U64,
    /// Submission queue head, or [`SQ_HEAD_NO_FLOW_CONTROL`].
    pub sq_head: U16,
    /// Submission queue that the command came from.
    pub sq_id: U16,
    /// Identifier of the command, bit for bit as it came (CONFORMANCE G-1).
    pub cid: U16,
    /// Status field; see [`Cqe::status`].
    pub status: U16,
}

assert_layout!(Cqe, 16, { result @ 0, sq_head @ 8, sq_id @ 10, cid @ 12, status @ 14 });

impl Cqe {
    /// A completion; the queue fills in its head and id.
    pub const fn new(cid: u16, status: Status, result: u64) -> Cqe {
        Cqe {
            result: U64::new(result),
            sq_head: U16::ZERO,
            sq_id: U16::ZERO,
            cid: U16::new(cid),
            status: U16::new(status.to_wire()),
        }
    }

    /// Identifier of the completed command.
    pub const fn cid(&self) -> u16 {
        self.cid.get()
    }

    /// Status of the completed command.
    pub const fn status(&self) -> Status {
        Status::from_wire(self.status.get())
    }

    /// Command result, DW0 and DW1.
    pub const fn result(&self) -> u64 {
        self.result.get()
    }

    /// Lower half of the result.
    pub const fn dw0(&self) -> u32 {
        let [a, b, c, d, ..] = self.result.to_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_bytes_lie_where_the_host_reads_them() {
        let mut cqe = Cqe::new(0xf01f, Status::INVALID_OPCODE.dnr(), 0x0807_0605_0403_0201);
        cqe.sq_head.set(0x0a09);
        cqe.sq_id.set(0x0c0b);
        let expected = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x1f, 0xf0, 0x02, 0x80];
        assert_eq!(cqe.as_bytes(), expected);
        assert_eq!(cqe.status(), Status::INVALID_OPCODE.dnr());
        assert_eq!((cqe.cid(), cqe.dw0()), (0xf01f, 0x0403_0201));
    }
}
