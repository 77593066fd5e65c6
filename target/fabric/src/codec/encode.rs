//! PDUs written into a byte arena, for both ends (CONFORMANCE 1.1). Data itself is never copied here: the
//! driver sends it behind the header by reference.

use afs_nvme::tcp::{
    CapsuleCmd, CapsuleResp, CommonHeader, DataPdu, Fes, IcReq, IcResp, PduType, R2t, TermReq,
    flags,
};
use afs_nvme::{Cqe, Sqe};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

use super::digest::{Digests, crc32c};
use super::violation::Violation;

/// What a sender of PDUs must know about its connection.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// Digests to put on PDUs.
    pub digests: Digests,
    /// Data begins at a multiple of this many bytes: 4 to 128.
    pub alignment: u8,
}

/// One piece of the data of a command.
#[derive(Clone, Copy, Debug)]
pub struct DataPiece {
    /// Command id.
    pub cid: u16,
    /// TTAG of the R2T, 0 towards the host.
    pub ttag: u16,
    /// Offset in the data of the command.
    pub offset: u32,
    /// Bytes of this piece, at least 1.
    pub length: u32,
    /// LAST and SUCCESS, as fit.
    pub flags: u8,
}

impl Encoder {
    /// For a connection before its ICReq.
    #[must_use]
    pub fn plain() -> Encoder {
        Encoder { digests: Digests::default(), alignment: 4 }
    }

    /// ICReq with HPDA `hpda`.
    pub fn ic_request(out: &mut Vec<u8>, digests: Digests, hpda: u8) {
        let mut request = IcReq::new(digests.to_wire());
        request.hpda = hpda;
        out.extend_from_slice(request.as_bytes());
    }

    /// ICResp (CONFORMANCE T-1, T-2).
    pub fn ic_response(out: &mut Vec<u8>, digests: Digests, max_h2c_data: u32) {
        out.extend_from_slice(IcResp::new(digests.to_wire(), max_h2c_data).as_bytes());
    }

    /// TermReq of either direction that quotes the offending header.
    pub fn term_request(out: &mut Vec<u8>, kind: PduType, violation: &Violation) {
        Self::term(out, kind, violation.fes, violation.fei, violation.header());
    }

    /// TermReq with any content; at most 128 bytes of `offending` are sent.
    pub fn term(out: &mut Vec<u8>, kind: PduType, fes: Fes, fei: u32, offending: &[u8]) {
        let quoted = u32::try_from(offending.len()).unwrap_or(u32::MAX);
        let term = TermReq::new(kind, fes, fei, quoted);
        let kept = offending.len().min(128);
        out.extend_from_slice(term.as_bytes());
        out.extend_from_slice(&offending[..kept]);
    }

    /// CapsuleResp.
    pub fn response(&self, out: &mut Vec<u8>, cqe: Cqe) {
        let header = self.fixed(PduType::CapsuleResp);
        self.header(out, &CapsuleResp { header, cqe });
    }

    /// R2T for a whole transfer (CONFORMANCE T-30, T-32).
    pub fn r2t(&self, out: &mut Vec<u8>, cid: u16, ttag: u16, length: u32) {
        let header = self.fixed(PduType::R2t);
        let (cccid, ttag) = (U16::new(cid), U16::new(ttag));
        let pdu = R2t {
            header,
            cccid,
            ttag,
            r2to: U32::ZERO,
            r2tl: U32::new(length),
            reserved20: [0; 4],
        };
        self.header(out, &pdu);
    }

    /// CapsuleCmd with `data_len` bytes of in-capsule data, which must follow.
    pub fn command(&self, out: &mut Vec<u8>, sqe: Sqe, data_len: u32) {
        let header = self.with_data(PduType::CapsuleCmd, 0, data_len);
        self.header(out, &CapsuleCmd { header, sqe });
        self.pad(out, &header);
    }

    /// Header of H2CData or C2HData, padding included; the data must follow.
    pub fn data(&self, out: &mut Vec<u8>, kind: PduType, piece: DataPiece) {
        let header = self.with_data(kind, piece.flags, piece.length);
        let pdu = DataPdu {
            header,
            cccid: U16::new(piece.cid),
            ttag: U16::new(piece.ttag),
            datao: U32::new(piece.offset),
            datal: U32::new(piece.length),
            reserved20: [0; 4],
        };
        self.header(out, &pdu);
        self.pad(out, &header);
    }

    /// The digest that follows `data`, when data digests are on.
    pub fn data_digest(&self, out: &mut Vec<u8>, data: &[u8]) {
        if self.digests.data {
            out.extend_from_slice(&crc32c(data).to_le_bytes());
        }
    }

    fn header<T: IntoBytes + Immutable>(&self, out: &mut Vec<u8>, pdu: &T) {
        let bytes = pdu.as_bytes();
        out.extend_from_slice(bytes);
        if self.digests.header {
            out.extend_from_slice(&crc32c(bytes).to_le_bytes());
        }
    }

    fn fixed(&self, kind: PduType) -> CommonHeader {
        let plen = u32::from(kind.hlen()) + four_if(self.digests.header);
        CommonHeader::new(kind, self.header_flag(), 0, plen)
    }

    fn with_data(&self, kind: PduType, more_flags: u8, data_len: u32) -> CommonHeader {
        if data_len == 0 {
            return self.fixed(kind);
        }
        let unpadded = kind.hlen() + if self.digests.header { 4 } else { 0 };
        let pdo = unpadded.next_multiple_of(self.alignment.max(4));
        let plen = u32::from(pdo) + data_len + four_if(self.digests.data);
        let digest_flag = if self.digests.data { flags::DATA_DIGEST } else { 0 };
        CommonHeader::new(kind, self.header_flag() | digest_flag | more_flags, pdo, plen)
    }

    fn header_flag(&self) -> u8 {
        if self.digests.header { flags::HEADER_DIGEST } else { 0 }
    }

    fn pad(&self, out: &mut Vec<u8>, header: &CommonHeader) {
        let unpadded = usize::from(header.hlen) + self.digests.header_bytes();
        let padding = usize::from(header.pdo).saturating_sub(unpadded);
        out.resize(out.len() + padding, 0);
    }
}

fn four_if(digest: bool) -> u32 {
    if digest { afs_nvme::tcp::DIGEST_BYTES } else { 0 }
}
