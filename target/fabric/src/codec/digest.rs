//! CRC32C digests of NVMe/TCP (CONFORMANCE T-50). Used by both codecs and by the encoder.

use afs_nvme::tcp::{DGST_DATA, DGST_HEADER, Fes};
use crc_fast::{CrcAlgorithm, Digest};

use super::violation::Violation;

/// Bytes of one digest on the wire.
pub const DIGEST_BYTES: usize = 4;

/// Which digests a connection negotiated in its ICReq and ICResp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Every PDU after ICResp, but TermReq, carries a digest of its header.
    pub header: bool,
    /// Every PDU with data carries a digest of the data.
    pub data: bool,
}

impl Digests {
    /// Reads the DGST byte of an ICReq or ICResp; unknown bits are ignored (CONFORMANCE T-62).
    #[must_use]
    pub fn from_wire(bits: u8) -> Digests {
        Digests { header: bits & DGST_HEADER != 0, data: bits & DGST_DATA != 0 }
    }

    /// The DGST byte (CONFORMANCE T-2: equal to what was requested, known bits only).
    #[must_use]
    pub fn to_wire(self) -> u8 {
        (if self.header { DGST_HEADER } else { 0 }) | (if self.data { DGST_DATA } else { 0 })
    }

    /// Bytes of header digest behind each header: 0 or 4.
    #[must_use]
    pub fn header_bytes(self) -> usize {
        if self.header { DIGEST_BYTES } else { 0 }
    }

    /// Bytes of data digest behind data: 0 or 4.
    #[must_use]
    pub fn data_bytes(self) -> usize {
        if self.data { DIGEST_BYTES } else { 0 }
    }
}

/// CRC32C of `bytes`, as it goes on the wire (little-endian there).
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    narrow(crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// Compares the digest behind `header` in `input` (CONFORMANCE T-70): on a mismatch framing is lost.
pub(super) fn check_header_digest(input: &[u8], header: &[u8]) -> Result<(), Box<Violation>> {
    let behind = input.get(header.len()..).and_then(|rest| rest.first_chunk::<DIGEST_BYTES>());
    let received = behind.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if behind.is_some() && received == crc32c(header) {
        return Ok(());
    }
    Err(Violation::new(Fes::HeaderDigest, received, header))
}

/// A CRC32C over data that arrives in pieces.
pub(crate) struct RunningDigest(Option<Digest>);

impl RunningDigest {
    /// Starts a digest, or nothing at all when the connection has no data digest.
    pub(crate) fn new(enabled: bool) -> RunningDigest {
        RunningDigest(enabled.then(|| Digest::new(CrcAlgorithm::Crc32Iscsi)))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.0 {
            digest.update(bytes);
        }
    }

    /// The digest of what was seen so far; 0 when digests are off.
    pub(crate) fn value(&self) -> u32 {
        self.0.as_ref().map_or(0, |digest| narrow(digest.finalize()))
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a CRC32 lives in the low half of the result")]
fn narrow(crc: u64) -> u32 {
    crc as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_has_the_value_of_the_standard_check_string() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn running_digest_equals_the_digest_of_the_whole() {
        let mut digest = RunningDigest::new(true);
        digest.update(b"1234");
        digest.update(b"");
        digest.update(b"56789");
        assert_eq!(digest.value(), 0xe306_9283);
    }

    #[test]
    fn unknown_digest_bits_are_ignored() {
        assert_eq!(Digests::from_wire(0xfe), Digests { header: false, data: true });
        assert_eq!(Digests::from_wire(0xff).to_wire(), 3);
    }
}
