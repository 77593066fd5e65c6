//! The common header of every PDU and the checks that need nothing but it (CONFORMANCE 1.1, T-65 to T-69).
//!
//! Both codecs run [`Frame::parse`] as soon as eight bytes are there, before the rest is read.

use afs_nvme::tcp::{CommonHeader, Fes, PduType, flags};

use super::digest::Digests;

/// Bytes of the header that all PDUs share.
pub(super) const COMMON_HEADER_BYTES: usize = 8;

/// Byte offsets of common header fields, as FEI names them.
pub(super) mod offset {
    pub(in crate::codec) const TYPE: u32 = 0;
    pub(in crate::codec) const FLAGS: u32 = 1;
    pub(in crate::codec) const HLEN: u32 = 2;
    pub(in crate::codec) const PDO: u32 = 3;
    pub(in crate::codec) const PLEN: u32 = 4;
}

/// FES and FEI of a fault.
pub(super) type FieldError = (Fes, u32);

/// What the connection says about the PDUs that it carries.
#[derive(Clone, Copy)]
pub(super) struct FrameRules {
    pub(super) digests: Digests,
    /// Most bytes of data in a PDU of this type.
    pub(super) data_bytes_max: u32,
    /// PDO must be a multiple of this: 4, or what HPDA asked for.
    pub(super) alignment: u32,
}

/// A common header that passed every check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) kind: PduType,
    pub(super) flags: u8,
    /// Bytes of header, without its digest.
    pub(super) header_len: usize,
    /// Bytes of header digest.
    pub(super) header_digest: usize,
    /// Where the data begins; where the PDU ends if it has none.
    pub(super) data_offset: usize,
    /// Bytes of data, without digest.
    pub(super) data_len: u32,
    /// Bytes of data digest.
    pub(super) data_digest: usize,
    /// Bytes of the whole PDU.
    pub(super) total: usize,
}

impl Frame {
    /// Checks the common header of a PDU of type `kind`.
    pub(super) fn parse(
        common: &CommonHeader,
        kind: PduType,
        rules: &FrameRules,
    ) -> Result<Frame, FieldError> {
        let digests = if kind.is_without_digest() { Digests::default() } else { rules.digests };
        if common.hlen != kind.hlen() {
            return invalid(offset::HLEN);
        }
        check_digest_flag(common, flags::HEADER_DIGEST, digests.header)?;
        let shortest = u32::from(kind.hlen()) + four_if(digests.header);
        if common.plen() < shortest || common.plen() > kind.plen_max(rules.data_bytes_max) {
            return invalid(offset::PLEN);
        }
        let has_data = match kind {
            PduType::CapsuleCmd => common.plen() > shortest,
            other => other.may_have_data(),
        };
        // Nothing can follow the header of the others, but for a TermReq, which carries the header it complains about.
        let is_term = matches!(kind, PduType::H2cTermReq | PduType::C2hTermReq);
        let ends_with_header = !has_data && !is_term;
        if ends_with_header && common.plen() != shortest {
            return invalid(offset::PLEN);
        }
        check_digest_flag(common, flags::DATA_DIGEST, digests.data && has_data)?;
        let total =
            usize::try_from(common.plen()).map_err(|_| (Fes::InvalidHeaderField, offset::PLEN))?;
        let mut frame = Frame {
            kind,
            flags: common.flags,
            header_len: usize::from(kind.hlen()),
            header_digest: digests.header_bytes(),
            data_offset: total,
            data_len: 0,
            data_digest: 0,
            total,
        };
        if has_data {
            frame.locate_data(common, shortest, digests, rules.alignment)?;
        } else if common.pdo != 0 {
            return invalid(offset::PDO);
        }
        Ok(frame)
    }

    /// CONFORMANCE T-67.
    fn locate_data(
        &mut self,
        common: &CommonHeader,
        shortest: u32,
        digests: Digests,
        alignment: u32,
    ) -> Result<(), FieldError> {
        let start = u32::from(common.pdo);
        let end = common.plen().saturating_sub(four_if(digests.data));
        let empty_capsule = start == end && self.kind == PduType::CapsuleCmd;
        if start < shortest || !start.is_multiple_of(alignment) || start > end || empty_capsule {
            return invalid(offset::PDO);
        }
        self.data_offset = usize::from(common.pdo);
        self.data_len = end - start;
        self.data_digest = digests.data_bytes();
        Ok(())
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of header with its digest.
    pub(super) fn header_end(&self) -> usize {
        self.header_len + self.header_digest
    }
}

/// CONFORMANCE T-69.
fn check_digest_flag(common: &CommonHeader, flag: u8, expected: bool) -> Result<(), FieldError> {
    if common.has(flag) == expected { Ok(()) } else { invalid(offset::FLAGS) }
}

fn invalid<T>(offset: u32) -> Result<T, FieldError> {
    Err((Fes::InvalidHeaderField, offset))
}

fn four_if(digest: bool) -> u32 {
    if digest { afs_nvme::tcp::DIGEST_BYTES } else { 0 }
}
