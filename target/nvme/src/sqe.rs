//! The submission queue entry: a raw command as it comes in a capsule (CONFORMANCE 0).
//! [`crate::command`] says what it means.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::opcode;
use crate::sgl::Sgl;

/// Flags of every command of a fabrics host: not fused, PSDT 01 (SGL).
pub const FLAGS_SGL: u8 = 0x40;
/// Bits of the flags that make a command fused.
pub const FLAGS_FUSE_MASK: u8 = 0x03;
/// Bits of the flags that say PRP or SGL.
pub const FLAGS_PSDT_MASK: u8 = 0xc0;

/// A submission queue entry (64 bytes).
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
pub struct Sqe {
    /// Opcode; see [`crate::opcode`].
    pub opcode: u8,
    /// Fused bits 1:0, PSDT 7:6; see [`crate::command::check_flags`].
    pub flags: u8,
    /// Command identifier: 16 opaque bits (CONFORMANCE G-1).
    pub cid: U16,
    /// Namespace; its lowest byte is the command type of a fabrics command.
    pub nsid: U32,
    /// Command dword 2.
    pub cdw2: U32,
    /// Command dword 3.
    pub cdw3: U32,
    /// Metadata pointer.
    pub mptr: U64,
    /// Where the data is.
    pub sgl: Sgl,
    /// Command dword 10.
    pub cdw10: U32,
    /// Command dword 11.
    pub cdw11: U32,
    /// Command dword 12.
    pub cdw12: U32,
    /// Command dword 13.
    pub cdw13: U32,
    /// Command dword 14.
    pub cdw14: U32,
    /// Command dword 15.
    pub cdw15: U32,
}

assert_layout!(Sqe, 64, {
    opcode @ 0, flags @ 1, cid @ 2, nsid @ 4, cdw2 @ 8, cdw3 @ 12, mptr @ 16, sgl @ 24,
    cdw10 @ 40, cdw11 @ 44, cdw12 @ 48, cdw13 @ 52, cdw14 @ 56, cdw15 @ 60,
});

/// Which way the data of a command goes, by the two lowest bits of its opcode (of FCTYPE for a
/// fabrics command).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transfer {
    /// No data.
    None,
    /// Host to controller, like a write.
    HostToController,
    /// Controller to host, like a read.
    ControllerToHost,
    /// Both ways; no command that is served here does this.
    Bidirectional,
}

impl Transfer {
    /// The direction that an opcode or a fabrics command type encodes.
    pub const fn of_opcode(opcode: u8) -> Transfer {
        match opcode & 3 {
            0 => Transfer::None,
            1 => Transfer::HostToController,
            2 => Transfer::ControllerToHost,
            _ => Transfer::Bidirectional,
        }
    }
}

impl Sqe {
    /// An empty command with the flags of a fabrics host, no data, command identifier 0.
    pub const fn new(opcode: u8) -> Sqe {
        Sqe {
            opcode,
            flags: FLAGS_SGL,
            cid: U16::ZERO,
            nsid: U32::ZERO,
            cdw2: U32::ZERO,
            cdw3: U32::ZERO,
            mptr: U64::ZERO,
            sgl: Sgl::transport(0),
            cdw10: U32::ZERO,
            cdw11: U32::ZERO,
            cdw12: U32::ZERO,
            cdw13: U32::ZERO,
            cdw14: U32::ZERO,
            cdw15: U32::ZERO,
        }
    }

    /// Command identifier.
    pub const fn cid(&self) -> u16 {
        self.cid.get()
    }

    /// Namespace identifier; meaningless in a fabrics command.
    pub const fn nsid(&self) -> u32 {
        self.nsid.get()
    }

    /// Command dword 10.
    pub const fn cdw10(&self) -> u32 {
        self.cdw10.get()
    }

    /// Command dword 11.
    pub const fn cdw11(&self) -> u32 {
        self.cdw11.get()
    }

    /// Command dword 12.
    pub const fn cdw12(&self) -> u32 {
        self.cdw12.get()
    }

    /// Command dword 13.
    pub const fn cdw13(&self) -> u32 {
        self.cdw13.get()
    }

    /// Command dword 14.
    pub const fn cdw14(&self) -> u32 {
        self.cdw14.get()
    }

    /// Command dword 15.
    pub const fn cdw15(&self) -> u32 {
        self.cdw15.get()
    }

    /// Command dwords 10 and 11 as one number, such as a starting LBA.
    pub const fn cdw10_11(&self) -> u64 {
        ((self.cdw11.get() as u64) << 32) | self.cdw10.get() as u64
    }

    /// Whether this is a fabrics command, told from others by its opcode.
    pub const fn is_fabrics(&self) -> bool {
        self.opcode == opcode::FABRICS
    }

    /// Fabrics command type, byte 4.
    pub const fn fctype(&self) -> u8 {
        let [fctype, ..] = self.nsid.to_bytes();
        fctype
    }

    /// Which way this command's data goes.
    pub const fn transfer(&self) -> Transfer {
        Transfer::of_opcode(if self.is_fabrics() { self.fctype() } else { self.opcode })
    }

    /// Sets command dwords 10 and 11 from one number.
    pub fn set_cdw10_11(&mut self, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.cdw10 = U32::from_bytes([a, b, c, d]);
        self.cdw11 = U32::from_bytes([e, f, g, h]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direction_comes_from_the_opcode_or_from_fctype() {
        let mut connect = Sqe::new(opcode::FABRICS);
        connect.nsid.set(u32::from(opcode::fabrics::CONNECT));
        assert_eq!(connect.transfer(), Transfer::HostToController);
        connect.nsid.set(u32::from(opcode::fabrics::PROPERTY_GET));
        assert_eq!(connect.transfer(), Transfer::None);
        assert_eq!(Sqe::new(opcode::admin::IDENTIFY).transfer(), Transfer::ControllerToHost);
        assert_eq!(Sqe::new(opcode::io::COMPARE).transfer(), Transfer::HostToController);
        assert_eq!(Sqe::new(opcode::io::WRITE_ZEROES).transfer(), Transfer::None);
    }

    #[test]
    fn starting_lba_spans_two_dwords() {
        let mut sqe = Sqe::new(opcode::io::READ);
        sqe.set_cdw10_11(0x1122_3344_5566_7788);
        assert_eq!((sqe.cdw10(), sqe.cdw11()), (0x5566_7788, 0x1122_3344));
        assert_eq!(sqe.cdw10_11(), 0x1122_3344_5566_7788);
    }
}
