//! Identify Namespace in its three forms (CNS 00h, 05h, 08h; CONFORMANCE 4.2, 4.4).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Identify Namespace (4096 bytes). Start from `FromZeros::new_zeroed`.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// Size in blocks; equal on all paths.
    pub nsze: U64,
    /// Capacity in blocks; equal to `nsze`, never 0 while active.
    pub ncap: U64,
    /// Blocks in use.
    pub nuse: U64,
    /// Features; see [`nsfeat`].
    pub nsfeat: u8,
    /// LBA formats, less one.
    pub nlbaf: u8,
    /// LBA format in use.
    pub flbas: u8,
    /// Metadata capabilities; 0.
    pub mc: u8,
    /// Protection capabilities; 0.
    pub dpc: u8,
    /// Protection settings; 0.
    pub dps: u8,
    /// Sharing; see [`nmic`].
    pub nmic: u8,
    /// Reservation capabilities.
    pub rescap: u8,
    /// Format progress.
    pub fpi: u8,
    /// What deallocated blocks read as; see [`dlfeat`].
    pub dlfeat: u8,
    /// Atomic write unit in blocks, less one.
    pub nawun: U16,
    /// Atomic write unit under power failure in blocks, less one.
    pub nawupf: U16,
    /// Atomic compare and write unit in blocks, less one.
    pub nacwu: U16,
    /// Atomic boundary in blocks, less one; 0 is none.
    pub nabsn: U16,
    /// Offset of the first atomic boundary; 0.
    pub nabo: U16,
    /// Atomic boundary under power failure.
    pub nabspf: U16,
    /// Stripe in blocks; 0 unless crossing it costs.
    pub noiob: U16,
    /// Size in bytes.
    pub nvmcap: U128,
    /// Preferred write granularity in blocks, less one.
    pub npwg: U16,
    /// Preferred write alignment in blocks, less one.
    pub npwa: U16,
    /// Preferred deallocate granularity in blocks, less one.
    pub npdg: U16,
    /// Preferred deallocate alignment in blocks, less one.
    pub npda: U16,
    /// Optimal write size in blocks, less one.
    pub nows: U16,
    /// Most blocks of one copy source range.
    pub mssrl: U16,
    /// Most blocks of one copy command.
    pub mcl: U32,
    /// Most copy source ranges, less one.
    pub msrc: u8,
    /// Reserved.
    pub reserved81: [u8; 11],
    /// ANA group; 1 to ANAGRPMAX.
    pub anagrpid: U32,
    /// Reserved.
    pub reserved96: [u8; 3],
    /// Attributes; see [`nsattr`].
    pub nsattr: u8,
    /// NVM set.
    pub nvmsetid: U16,
    /// Endurance group.
    pub endgid: U16,
    /// NGUID, most significant byte first.
    pub nguid: [u8; 16],
    /// EUI-64, most significant byte first, or 0.
    pub eui64: [u8; 8],
    /// LBA formats.
    pub lbaf: [LbaFormat; 64],
    /// Vendor specific.
    pub vendor: [u8; 3712],
}

assert_layout!(IdentifyNamespace, 4096, { nsze @ 0, ncap @ 8, nuse @ 16, nsfeat @ 24, nlbaf @ 25, flbas @ 26, mc @ 27, dpc @ 28, dps @ 29, nmic @ 30, rescap @ 31, fpi @ 32, dlfeat @ 33, nawun @ 34, nawupf @ 36, nacwu @ 38, nabsn @ 40, nabo @ 42, nabspf @ 44, noiob @ 46, nvmcap @ 48, npwg @ 64, npwa @ 66, npdg @ 68, npda @ 70, nows @ 72, mssrl @ 74, mcl @ 76, msrc @ 80, reserved81 @ 81, anagrpid @ 92, reserved96 @ 96, nsattr @ 99, nvmsetid @ 100, endgid @ 102, nguid @ 104, eui64 @ 120, lbaf @ 128, vendor @ 384 });

/// An LBA format (4 bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LbaFormat {
    /// Metadata bytes per block; 0.
    pub ms: U16,
    /// Bytes of a block, 2^n.
    pub lbads: u8,
    /// Relative performance, 0 is best.
    pub rp: u8,
}

assert_layout!(LbaFormat, 4, { ms @ 0, lbads @ 2, rp @ 3 });

/// Identify Namespace independent of command sets (4096 bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyIndependentNamespace {
    /// Common features.
    pub nsfeat: u8,
    /// Sharing; see [`nmic`].
    pub nmic: u8,
    /// Reservation capabilities.
    pub rescap: u8,
    /// Format progress.
    pub fpi: u8,
    /// ANA group.
    pub anagrpid: U32,
    /// Attributes; see [`nsattr`].
    pub nsattr: u8,
    /// Reserved.
    pub reserved9: u8,
    /// NVM set.
    pub nvmsetid: U16,
    /// Endurance group.
    pub endgid: U16,
    /// State; see [`nstat`].
    pub nstat: u8,
    /// Reserved.
    pub reserved15: [u8; 4081],
}

assert_layout!(IdentifyIndependentNamespace, 4096, { nsfeat @ 0, nmic @ 1, rescap @ 2, fpi @ 3, anagrpid @ 4, nsattr @ 8, reserved9 @ 9, nvmsetid @ 10, endgid @ 12, nstat @ 14, reserved15 @ 15 });

/// Identify Namespace of the NVM command set (4096 bytes); all zero without protection information.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyNvmNamespace {
    /// Storage tag mask; 0.
    pub lbstm: U64,
    /// Protection capabilities; 0.
    pub pic: u8,
    /// Reserved.
    pub reserved9: [u8; 3],
    /// Extended LBA formats; 0.
    pub elbaf: [U32; 64],
    /// Reserved.
    pub reserved268: [u8; 3828],
}

assert_layout!(IdentifyNvmNamespace, 4096, { lbstm @ 0, pic @ 8, reserved9 @ 9, elbaf @ 12, reserved268 @ 268 });

/// Bits of `nsfeat` in [`IdentifyNamespace`].
pub mod nsfeat {
    /// Thin: capacity is allocated on writing.
    pub const THIN: u8 = 1;
    /// NAWUN, NAWUPF and NACWU are defined for this namespace.
    pub const ATOMICS: u8 = 1 << 1;
    /// Reads of deallocated blocks may fail with an error; Afs never does that.
    pub const DEALLOCATED_ERROR: u8 = 1 << 2;
    /// NPWG, NPWA, NPDG, NPDA and NOWS are defined.
    pub const OPTIMAL_IO: u8 = 1 << 4;
}

/// Bits of `nmic`.
pub mod nmic {
    /// The namespace may have several controllers at once.
    pub const SHARED: u8 = 1;
}

/// Bits of `dlfeat`.
pub mod dlfeat {
    /// Bits 2:0: deallocated blocks read as zero.
    pub const READS_ZERO: u8 = 0b001;
    /// Write zeroes with DEAC deallocates.
    pub const WRITE_ZEROES_DEALLOCATE: u8 = 1 << 3;
}

/// Bits of `nsattr`.
pub mod nsattr {
    /// Write protected.
    pub const WRITE_PROTECTED: u8 = 1;
}

/// Bits of `nstat`.
pub mod nstat {
    /// Ready.
    pub const READY: u8 = 1;
}
