//! NVMe/TCP PDU headers: types, flags, lengths and layouts (CONFORMANCE 1.1, 1.7).
//! `afs_fabric`'s codec checks received headers against the tables here before it reads on.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::cqe::Cqe;
use crate::sqe::Sqe;

/// Bytes of a header or data digest (CRC32C).
pub const DIGEST_BYTES: u32 = 4;
/// Largest data offset alignment: (31 + 1) * 4 bytes.
pub const ALIGNMENT_BYTES_MAX: u32 = 128;
/// In-capsule data that a host may always send on the admin queue and with every fabrics command,
/// whatever IOCCSZ says (CONFORMANCE T-23).
pub const ADMIN_IN_CAPSULE_BYTES: u32 = 8192;
/// Largest HPDA or CPDA value.
pub const PDA_MAX: u8 = 31;
/// DGST bit of IC PDUs: header digest.
pub const DGST_HEADER: u8 = 1;
/// DGST bit of IC PDUs: data digest.
pub const DGST_DATA: u8 = 1 << 1;
/// Longest copy of an offending header in a TermReq.
pub const TERM_DATA_BYTES_MAX: u32 = 128;

/// Flags of the common header.
pub mod flags {
    /// HDGSTF: a header digest follows the header.
    pub const HEADER_DIGEST: u8 = 1;
    /// DDGSTF: a data digest follows the data.
    pub const DATA_DIGEST: u8 = 1 << 1;
    /// LAST: last data PDU of a command or of an R2T.
    pub const LAST: u8 = 1 << 2;
    /// SUCCESS: with LAST on C2HData, no CapsuleResp follows.
    pub const SUCCESS: u8 = 1 << 3;
}

/// PDU types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PduType {
    /// Initialize connection request.
    IcReq = 0x00,
    /// Initialize connection response.
    IcResp = 0x01,
    /// The host ends the connection.
    H2cTermReq = 0x02,
    /// The controller ends the connection.
    C2hTermReq = 0x03,
    /// A command, perhaps with data.
    CapsuleCmd = 0x04,
    /// A completion.
    CapsuleResp = 0x05,
    /// Data to the controller.
    H2cData = 0x06,
    /// Data to the host.
    C2hData = 0x07,
    /// Ready to transfer.
    R2t = 0x09,
}

impl PduType {
    /// The type of a byte; `None` for unknown ones.
    pub const fn from_byte(byte: u8) -> Option<PduType> {
        match byte {
            0x00 => Some(PduType::IcReq),
            0x01 => Some(PduType::IcResp),
            0x02 => Some(PduType::H2cTermReq),
            0x03 => Some(PduType::C2hTermReq),
            0x04 => Some(PduType::CapsuleCmd),
            0x05 => Some(PduType::CapsuleResp),
            0x06 => Some(PduType::H2cData),
            0x07 => Some(PduType::C2hData),
            0x09 => Some(PduType::R2t),
            _ => None,
        }
    }

    /// The only legal header length, in bytes and without digest.
    pub const fn hlen(self) -> u8 {
        match self {
            PduType::IcReq | PduType::IcResp => 128,
            PduType::CapsuleCmd => 72,
            _ => 24,
        }
    }

    /// Whether hosts send this type; the others come from controllers.
    pub const fn is_from_host(self) -> bool {
        matches!(
            self,
            PduType::IcReq | PduType::H2cTermReq | PduType::CapsuleCmd | PduType::H2cData
        )
    }

    /// Whether digests never apply to this type, even when negotiated.
    pub const fn is_without_digest(self) -> bool {
        matches!(self, PduType::IcReq | PduType::IcResp | PduType::H2cTermReq | PduType::C2hTermReq)
    }

    /// Whether this type may carry data.
    pub const fn may_have_data(self) -> bool {
        matches!(self, PduType::CapsuleCmd | PduType::H2cData | PduType::C2hData)
    }

    /// Largest legal PLEN, to be checked before anything is allocated (CONFORMANCE T-68). Which
    /// digests and paddings were negotiated makes it smaller, never larger.
    ///
    /// `data_bytes_max` bounds the data of the types that carry any: in-capsule data of a
    /// CapsuleCmd (never taken as less than [`ADMIN_IN_CAPSULE_BYTES`]), MAXH2CDATA for H2CData,
    /// what is left of the command for C2HData. It has no bearing on other types.
    pub const fn plen_max(self, data_bytes_max: u32) -> u32 {
        let hlen = self.hlen() as u32;
        match self {
            PduType::IcReq | PduType::IcResp => hlen,
            PduType::H2cTermReq | PduType::C2hTermReq => hlen + TERM_DATA_BYTES_MAX,
            PduType::CapsuleResp | PduType::R2t => hlen + DIGEST_BYTES,
            PduType::CapsuleCmd if data_bytes_max < ADMIN_IN_CAPSULE_BYTES => {
                with_data(hlen, ADMIN_IN_CAPSULE_BYTES)
            }
            PduType::CapsuleCmd | PduType::H2cData | PduType::C2hData => {
                with_data(hlen, data_bytes_max)
            }
        }
    }
}

const fn with_data(hlen: u32, data_bytes: u32) -> u32 {
    (hlen + DIGEST_BYTES + ALIGNMENT_BYTES_MAX + DIGEST_BYTES).saturating_add(data_bytes)
}

/// Fatal error status of a TermReq: why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Fes {
    /// A field of a PDU header is wrong; FEI is its byte offset.
    InvalidHeaderField = 0x01,
    /// A PDU came when it must not.
    PduSequence = 0x02,
    /// Header digest mismatch; FEI is the digest that came.
    HeaderDigest = 0x03,
    /// Data outside the range that was asked for; FEI is the field's byte offset.
    DataOutOfRange = 0x04,
    /// More R2Ts or more data than allowed.
    LimitExceeded = 0x05,
    /// Unsupported parameter; FEI is its byte offset.
    UnsupportedParameter = 0x06,
}

impl Fes {
    /// The meaning of a received code; `None` for unknown ones.
    pub const fn from_code(code: u16) -> Option<Fes> {
        match code {
            0x01 => Some(Fes::InvalidHeaderField),
            0x02 => Some(Fes::PduSequence),
            0x03 => Some(Fes::HeaderDigest),
            0x04 => Some(Fes::DataOutOfRange),
            0x05 => Some(Fes::LimitExceeded),
            0x06 => Some(Fes::UnsupportedParameter),
            _ => None,
        }
    }
}

macro_rules! pdu {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq,
            FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    };
}

pdu! {
    /// What every PDU begins with (8 bytes).
    CommonHeader {
        /// See [`PduType`].
        pdu_type: u8,
        /// See [`flags`].
        flags: u8,
        /// Header length; see [`PduType::hlen`].
        hlen: u8,
        /// Offset of the data from the start of the PDU; 0 without data.
        pdo: u8,
        /// Length of the whole PDU: header, digests, padding, data.
        plen: U32,
    }
}

assert_layout!(CommonHeader, 8, { pdu_type @ 0, flags @ 1, hlen @ 2, pdo @ 3, plen @ 4 });

impl CommonHeader {
    /// A header with the legal header length of its type.
    pub const fn new(pdu_type: PduType, flags: u8, pdo: u8, plen: u32) -> CommonHeader {
        let (hlen, plen) = (pdu_type.hlen(), U32::new(plen));
        CommonHeader { pdu_type: pdu_type as u8, flags, hlen, pdo, plen }
    }

    /// The type, if it is known.
    pub const fn pdu_type(&self) -> Option<PduType> {
        PduType::from_byte(self.pdu_type)
    }

    /// Length of the whole PDU.
    pub const fn plen(&self) -> u32 {
        self.plen.get()
    }

    /// Whether all the given flags are set.
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

pdu! {
    /// ICReq (128 bytes), first PDU of a connection, from the host.
    IcReq {
        /// Common header.
        header: CommonHeader,
        /// PDU format version; 0.
        pfv: U16,
        /// HPDA: C2HData's data lies at a multiple of (n + 1) * 4 bytes; 0 to [`PDA_MAX`].
        hpda: u8,
        /// Digests asked for: [`DGST_HEADER`], [`DGST_DATA`].
        dgst: u8,
        /// R2Ts per command that the host takes at once, less one.
        maxr2t: U32,
        /// Reserved.
        reserved16: [u8; 112],
    }
}

assert_layout!(IcReq, 128, {
    header @ 0, pfv @ 8, hpda @ 10, dgst @ 11, maxr2t @ 12, reserved16 @ 16,
});

pdu! {
    /// ICResp (128 bytes), the controller's answer to ICReq.
    IcResp {
        /// Common header.
        header: CommonHeader,
        /// PDU format version; 0.
        pfv: U16,
        /// CPDA: data from the host lies at a multiple of (n + 1) * 4 bytes; always 0 from Afs.
        cpda: u8,
        /// Digests in force; equal to those asked for (CONFORMANCE T-2).
        dgst: u8,
        /// Most bytes of data in one H2CData; at least 4096 and a multiple of 4 (CONFORMANCE T-3).
        maxh2cdata: U32,
        /// Reserved.
        reserved16: [u8; 112],
    }
}

assert_layout!(IcResp, 128, {
    header @ 0, pfv @ 8, cpda @ 10, dgst @ 11, maxh2cdata @ 12, reserved16 @ 16,
});

pdu! {
    /// H2CTermReq and C2HTermReq (24 bytes), followed by a copy of the offending header.
    TermReq {
        /// Common header.
        header: CommonHeader,
        /// See [`Fes`].
        fes: U16,
        /// Fatal error information: byte offset or digest.
        fei: U32,
        /// Reserved.
        reserved14: [u8; 10],
    }
}

assert_layout!(TermReq, 24, { header @ 0, fes @ 8, fei @ 10, reserved14 @ 14 });

pdu! {
    /// CapsuleCmd (72 bytes).
    CapsuleCmd {
        /// Common header.
        header: CommonHeader,
        /// The command.
        sqe: Sqe,
    }
}

assert_layout!(CapsuleCmd, 72, { header @ 0, sqe @ 8 });

pdu! {
    /// CapsuleResp (24 bytes).
    CapsuleResp {
        /// Common header.
        header: CommonHeader,
        /// The completion.
        cqe: Cqe,
    }
}

assert_layout!(CapsuleResp, 24, { header @ 0, cqe @ 8 });

pdu! {
    /// H2CData and C2HData (24 bytes).
    DataPdu {
        /// Common header.
        header: CommonHeader,
        /// Command that the data belongs to.
        cccid: U16,
        /// Transfer tag of the R2T that asked for it; reserved in C2HData.
        ttag: U16,
        /// Offset of the data in the command's data.
        datao: U32,
        /// Bytes of data in this PDU.
        datal: U32,
        /// Reserved.
        reserved20: [u8; 4],
    }
}

assert_layout!(DataPdu, 24, {
    header @ 0, cccid @ 8, ttag @ 10, datao @ 12, datal @ 16, reserved20 @ 20,
});

pdu! {
    /// R2T (24 bytes): the controller asks for data of a write.
    R2t {
        /// Common header.
        header: CommonHeader,
        /// Command whose data is asked for.
        cccid: U16,
        /// Transfer tag that the host echoes (CONFORMANCE T-34).
        ttag: U16,
        /// Offset of the data asked for.
        r2to: U32,
        /// Bytes asked for, at least 1.
        r2tl: U32,
        /// Reserved.
        reserved20: [u8; 4],
    }
}

assert_layout!(R2t, 24, {
    header @ 0, cccid @ 8, ttag @ 10, r2to @ 12, r2tl @ 16, reserved20 @ 20,
});

impl IcReq {
    /// A request without padding, for one R2T per command.
    pub const fn new(dgst: u8) -> IcReq {
        IcReq {
            header: CommonHeader::new(PduType::IcReq, 0, 0, 128),
            pfv: U16::ZERO,
            hpda: 0,
            dgst,
            maxr2t: U32::ZERO,
            reserved16: [0; 112],
        }
    }
}

impl IcResp {
    /// The answer to a request: its digests (known bits only), no padding.
    pub const fn new(dgst: u8, maxh2cdata: u32) -> IcResp {
        IcResp {
            header: CommonHeader::new(PduType::IcResp, 0, 0, 128),
            pfv: U16::ZERO,
            cpda: 0,
            dgst: dgst & (DGST_HEADER | DGST_DATA),
            maxh2cdata: U32::new(maxh2cdata),
            reserved16: [0; 112],
        }
    }
}

impl TermReq {
    /// A request of either direction that is followed by `offending_bytes` bytes of a header, at
    /// most [`TERM_DATA_BYTES_MAX`].
    pub const fn new(pdu_type: PduType, fes: Fes, fei: u32, offending_bytes: u32) -> TermReq {
        let plen = 24
            + if offending_bytes < TERM_DATA_BYTES_MAX {
                offending_bytes
            } else {
                TERM_DATA_BYTES_MAX
            };
        TermReq {
            header: CommonHeader::new(pdu_type, 0, 0, plen),
            fes: U16::new(fes as u16),
            fei: U32::new(fei),
            reserved14: [0; 10],
        }
    }
}

#[cfg(test)]
mod tests;
