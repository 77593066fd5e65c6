//! What the other end did wrong, in the form in which a TermReq says it (CONFORMANCE 1.1, 1.7).

use std::fmt;

use afs_nvme::tcp::Fes;

/// Longest piece of the offending header that a TermReq carries.
pub const MAX_OFFENDING_BYTES: usize = 128;

/// A violation of the protocol: the connection must be ended with a TermReq that says so.
#[derive(Clone, PartialEq, Eq)]
pub struct Violation {
    /// Kind of fault.
    pub fes: Fes,
    /// Field offset or digest, by kind.
    pub fei: u32,
    header: [u8; MAX_OFFENDING_BYTES],
    header_len: u8,
}

impl Violation {
    /// `header` is the offending header, of which at most 128 bytes are kept.
    pub(crate) fn new(fes: Fes, fei: u32, header: &[u8]) -> Box<Violation> {
        let kept = header.len().min(MAX_OFFENDING_BYTES);
        let mut copy = [0; MAX_OFFENDING_BYTES];
        copy[..kept].copy_from_slice(&header[..kept]);
        let header_len = u8::try_from(kept).unwrap_or(u8::MAX);
        Box::new(Violation { fes, fei, header: copy, header_len })
    }

    /// The offending header, as far as it is quoted in the TermReq.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_len)]
    }
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Violation({self})")
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.fes {
            Fes::InvalidHeaderField => "invalid PDU header field at offset",
            Fes::PduSequence => "PDU out of sequence, code",
            Fes::HeaderDigest => "wrong header digest",
            Fes::DataOutOfRange => "data out of range, field at offset",
            Fes::LimitExceeded => "data transfer limit exceeded, field at offset",
            Fes::UnsupportedParameter => "unsupported parameter at offset",
        };
        write!(f, "{what} {}", self.fei)
    }
}
