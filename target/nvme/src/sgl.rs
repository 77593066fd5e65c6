//! The data pointer of a command: one SGL descriptor, raw and parsed (NVMe Base 2.0 §4.3.2,
//! CONFORMANCE T-20, T-21, T-25, 2.2). The fabric decides from it how data travels.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Status;

/// An SGL descriptor as it lies at byte 24 of a command (16 bytes).
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
pub struct Sgl {
    /// Address, or offset into the capsule.
    pub address: U64,
    /// Length in bytes; a keyed descriptor has only the lower 24 bits of it for the length.
    pub length: U32,
    /// Reserved, or the upper three bytes of a key.
    pub rest: [u8; 3],
    /// Descriptor type in bits 7:4, subtype in 3:0.
    pub kind: u8,
}

assert_layout!(Sgl, 16, { address @ 0, length @ 8, rest @ 12, kind @ 15 });

/// Type byte: data block at an offset in the capsule.
pub const KIND_IN_CAPSULE: u8 = 0x01;
/// Type byte: transport data block, data travels by C2HData or R2T.
pub const KIND_TRANSPORT: u8 = 0x5a;
/// Type byte: keyed data block (RDMA).
pub const KIND_KEYED: u8 = 0x40;
/// Type byte: keyed data block whose key the target should invalidate with its response.
pub const KIND_KEYED_INVALIDATE: u8 = 0x4f;

const KEYED_LENGTH_MASK: u32 = 0x00ff_ffff;

/// What an SGL descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SglDescriptor {
    /// Data lies in the capsule.
    InCapsule {
        /// Bytes after the start of the in-capsule data; only 0 is legal while ICDOFF is 0.
        offset: u64,
        /// Bytes of data.
        length: u32,
    },
    /// Data travels in separate PDUs.
    Transport {
        /// Bytes of data, 0 for a command without any.
        length: u32,
    },
    /// Data lies in the host's registered memory (RDMA).
    Keyed {
        /// Remote address.
        address: u64,
        /// Bytes of data, below 2^24.
        length: u32,
        /// Remote key.
        key: u32,
        /// Invalidate the key with the response.
        invalidate: bool,
    },
}

impl Sgl {
    /// Data in the capsule, at its start.
    pub const fn in_capsule(length: u32) -> Sgl {
        Sgl::new(0, length, [0; 3], KIND_IN_CAPSULE)
    }

    /// Data in separate PDUs; length 0 says that there is none.
    pub const fn transport(length: u32) -> Sgl {
        Sgl::new(0, length, [0; 3], KIND_TRANSPORT)
    }

    const fn new(address: u64, length: u32, rest: [u8; 3], kind: u8) -> Sgl {
        Sgl { address: U64::new(address), length: U32::new(length), rest, kind }
    }

    /// Reads the descriptor.
    ///
    /// # Errors
    /// [`Status::SGL_DESCRIPTOR_TYPE_INVALID`] with DNR for every other type (CONFORMANCE T-76).
    pub fn parse(&self) -> Result<SglDescriptor, Status> {
        let length = self.length.get();
        match self.kind {
            KIND_IN_CAPSULE => Ok(SglDescriptor::InCapsule { offset: self.address.get(), length }),
            KIND_TRANSPORT => Ok(SglDescriptor::Transport { length }),
            KIND_KEYED | KIND_KEYED_INVALIDATE => Ok(self.keyed()),
            _ => Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.dnr()),
        }
    }

    /// Reads the descriptor of a command that came over TCP, where keyed ones are not legal.
    ///
    /// # Errors
    /// As [`Sgl::parse`], also for keyed descriptors (CONFORMANCE T-25).
    pub fn parse_tcp(&self) -> Result<SglDescriptor, Status> {
        match self.parse()? {
            SglDescriptor::Keyed { .. } => Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.dnr()),
            other => Ok(other),
        }
    }

    /// Reads the descriptor of a command that came over RDMA, where data lies in the capsule or in the host's memory.
    ///
    /// # Errors
    /// As [`Sgl::parse`], also for transport data blocks (CONFORMANCE R-20).
    pub fn parse_rdma(&self) -> Result<SglDescriptor, Status> {
        match self.parse()? {
            SglDescriptor::Transport { .. } => Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.dnr()),
            other => Ok(other),
        }
    }

    fn keyed(&self) -> SglDescriptor {
        let [_, _, _, lowest] = self.length.to_bytes();
        let [low, middle, high] = self.rest;
        SglDescriptor::Keyed {
            address: self.address.get(),
            length: self.length.get() & KEYED_LENGTH_MASK,
            key: u32::from_le_bytes([lowest, low, middle, high]),
            invalidate: self.kind == KIND_KEYED_INVALIDATE,
        }
    }
}

impl SglDescriptor {
    /// Bytes of data that the descriptor speaks of.
    pub const fn length(&self) -> u32 {
        match *self {
            SglDescriptor::InCapsule { length, .. }
            | SglDescriptor::Transport { length }
            | SglDescriptor::Keyed { length, .. } => length,
        }
    }

    /// The raw form. Of a keyed length only the lower 24 bits fit.
    pub fn to_sgl(self) -> Sgl {
        match self {
            SglDescriptor::InCapsule { offset, length } => {
                Sgl::new(offset, length, [0; 3], KIND_IN_CAPSULE)
            }
            SglDescriptor::Transport { length } => Sgl::transport(length),
            SglDescriptor::Keyed { address, length, key, invalidate } => {
                let [lowest, low, middle, high] = key.to_le_bytes();
                let word = (length & KEYED_LENGTH_MASK) | (u32::from(lowest) << 24);
                let kind = if invalidate { KIND_KEYED_INVALIDATE } else { KIND_KEYED };
                Sgl::new(address, word, [low, middle, high], kind)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_survive_their_raw_form() {
        let all = [
            SglDescriptor::InCapsule { offset: 7, length: 4096 },
            SglDescriptor::Transport { length: u32::MAX },
            SglDescriptor::Keyed {
                address: 1 << 40,
                length: 0xabcdef,
                key: 0x1234_5678,
                invalidate: true,
            },
            SglDescriptor::Keyed { address: 3, length: 1, key: u32::MAX, invalidate: false },
        ];
        for descriptor in all {
            assert_eq!(descriptor.to_sgl().parse(), Ok(descriptor));
        }
    }

    #[test]
    fn keyed_descriptor_has_length_at_8_and_key_at_11() {
        let sgl = SglDescriptor::Keyed {
            address: 0,
            length: 0x030201,
            key: 0x0706_0504,
            invalidate: false,
        };
        assert_eq!(sgl.to_sgl().as_bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 0x40]);
    }

    #[test]
    fn only_the_four_known_types_parse_tcp_takes_two_and_rdma_three() {
        for kind in 0..=255u8 {
            let sgl = Sgl { kind, ..Sgl::default() };
            let refused = Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.dnr());
            assert_eq!(sgl.parse().is_ok(), [0x01, 0x40, 0x4f, 0x5a].contains(&kind));
            assert!(sgl.parse().is_ok() || sgl.parse() == refused);
            let tcp = if [0x01, 0x5a].contains(&kind) { sgl.parse() } else { refused };
            assert_eq!(sgl.parse_tcp(), tcp);
            let rdma = if [0x01, 0x40, 0x4f].contains(&kind) { sgl.parse() } else { refused };
            assert_eq!(sgl.parse_rdma(), rdma);
        }
    }
}
