//! What is supported: commands and effects (log 05h), log pages (00h), features (12h), and the
//! firmware slots (03h) (CONFORMANCE 4.5).

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Commands supported and their effects (4096 bytes). Start from `FromZeros::new_zeroed`.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EffectsLog {
    /// By opcode: admin commands.
    pub admin: [U32; 256],
    /// By opcode: I/O commands.
    pub io: [U32; 256],
    /// Reserved.
    pub reserved2048: [u8; 2048],
}

assert_layout!(EffectsLog, 4096, { admin @ 0, io @ 1024, reserved2048 @ 2048 });

/// Bits of an entry of [`EffectsLog`]. Bits 18:16 (execution restrictions) stay 0: hosts freeze all
/// I/O for them; bits 2 and 3 (capability changes) cause rescans.
pub mod effect {
    /// CSUPP: supported.
    pub const SUPPORTED: u32 = 1;
    /// LBCC: may change the content of blocks.
    pub const CHANGES_BLOCKS: u32 = 1 << 1;
}

/// Supported log pages (1024 bytes). Start from `FromZeros::new_zeroed`.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SupportedLogPages {
    /// By log page: [`page`] bits, page specific in 31:16.
    pub pages: [U32; 256],
}

assert_layout!(SupportedLogPages, 1024, { pages @ 0 });

/// Bits of an entry of [`SupportedLogPages`].
pub mod page {
    /// LSUPP: supported.
    pub const SUPPORTED: u32 = 1;
    /// IOS: the offset may count entries.
    pub const INDEX_OFFSET: u32 = 1 << 1;
}

/// Supported features and their effects (1024 bytes). Start from `FromZeros::new_zeroed`.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FeatureEffectsLog {
    /// By feature: [`feature`] bits.
    pub features: [U32; 256],
}

assert_layout!(FeatureEffectsLog, 1024, { features @ 0 });

/// Bits of an entry of [`FeatureEffectsLog`].
pub mod feature {
    /// FSUPP: supported.
    pub const SUPPORTED: u32 = 1;
    /// Scope, bit 20: the namespace.
    pub const SCOPE_NAMESPACE: u32 = 1 << 20;
    /// Scope, bit 21: the controller.
    pub const SCOPE_CONTROLLER: u32 = 1 << 21;
}

/// Firmware slots (512 bytes). Start from `FromZeros::new_zeroed`.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FirmwareSlotLog {
    /// Active slot in 2:0, slot of the next reset in 6:4.
    pub afi: u8,
    /// Reserved.
    pub reserved1: [u8; 7],
    /// Revision in each slot, padded with spaces; zero when empty.
    pub revisions: [[u8; 8]; 7],
    /// Reserved.
    pub reserved64: [u8; 448],
}

assert_layout!(FirmwareSlotLog, 512, { afi @ 0, reserved1 @ 1, revisions @ 8, reserved64 @ 64 });
