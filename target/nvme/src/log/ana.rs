//! Asymmetric namespace access (log 0Ch, CONFORMANCE 6.3): a header, then for each group its
//! descriptor and its NSIDs, ascending, 4 bytes each.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::status::Status;

/// LSP bit 0 of Get Log Page: groups only, no NSIDs (RGO).
pub const LSP_GROUPS_ONLY: u8 = 1;

/// Header of the ANA log (16 bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnaHeader {
    /// Rises with each change of any group (CONFORMANCE M-22).
    pub chgcnt: U64,
    /// Number of groups that follow.
    pub ngrps: U16,
    /// Reserved.
    pub reserved10: [u8; 6],
}

assert_layout!(AnaHeader, 16, { chgcnt @ 0, ngrps @ 8, reserved10 @ 10 });

impl AnaHeader {
    /// A header.
    pub fn new(chgcnt: u64, ngrps: u16) -> AnaHeader {
        AnaHeader { chgcnt: chgcnt.into(), ngrps: ngrps.into(), reserved10: [0; 6] }
    }
}

/// Descriptor of a group (32 bytes), followed by its NSIDs.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnaGroup {
    /// Group, from 1 to ANAGRPMAX.
    pub grpid: U32,
    /// Number of NSIDs that follow; 0 when only groups were asked for.
    pub nnsids: U32,
    /// Rises with each change of this group.
    pub chgcnt: U64,
    /// See [`AnaState`].
    pub state: u8,
    /// Reserved.
    pub reserved17: [u8; 15],
}

assert_layout!(AnaGroup, 32, { grpid @ 0, nnsids @ 4, chgcnt @ 8, state @ 16, reserved17 @ 17 });

impl AnaGroup {
    /// A descriptor that is followed by `nnsids` NSIDs.
    pub fn new(grpid: u32, nnsids: u32, chgcnt: u64, state: AnaState) -> AnaGroup {
        AnaGroup {
            grpid: grpid.into(),
            nnsids: nnsids.into(),
            chgcnt: chgcnt.into(),
            state: state as u8,
            reserved17: [0; 15],
        }
    }
}

/// State of a group as one controller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AnaState {
    /// The short way to the data.
    Optimized = 0x1,
    /// Works, but another way is shorter.
    NonOptimized = 0x2,
    /// No I/O this way.
    Inaccessible = 0x3,
    /// No I/O this way, for good.
    PersistentLoss = 0x4,
    /// Between two states; not longer than ANATT.
    Change = 0xf,
}

impl AnaState {
    /// The state in the lower four bits of a descriptor's byte; `None` for reserved values.
    pub const fn from_byte(byte: u8) -> Option<AnaState> {
        match byte & 0xf {
            0x1 => Some(AnaState::Optimized),
            0x2 => Some(AnaState::NonOptimized),
            0x3 => Some(AnaState::Inaccessible),
            0x4 => Some(AnaState::PersistentLoss),
            0xf => Some(AnaState::Change),
            _ => None,
        }
    }

    /// What I/O is answered in this state: nothing special, or a path status without DNR.
    ///
    /// # Errors
    /// The path status.
    pub const fn check(self) -> Result<(), Status> {
        match self {
            AnaState::Optimized | AnaState::NonOptimized => Ok(()),
            AnaState::Inaccessible => Err(Status::ANA_INACCESSIBLE),
            AnaState::PersistentLoss => Err(Status::ANA_PERSISTENT_LOSS),
            AnaState::Change => Err(Status::ANA_TRANSITION),
        }
    }
}

/// Bytes that hosts set aside for the whole log: `16 + NANAGRPID * 32 + MNAN * 4`.
pub const fn log_bytes_max(nanagrpid: u32, mnan: u32) -> u64 {
    16 + nanagrpid as u64 * 32 + mnan as u64 * 4
}

/// Splits a whole log into its groups; ends early where the bytes do not add up.
pub fn groups(log: &[u8]) -> Groups<'_> {
    match AnaHeader::ref_from_prefix(log) {
        Ok((header, rest)) => Groups { left: header.ngrps.get(), rest },
        Err(_) => Groups { left: 0, rest: &[] },
    }
}

/// The groups of a log, each with its NSIDs.
#[derive(Clone, Debug)]
pub struct Groups<'a> {
    left: u16,
    rest: &'a [u8],
}

impl<'a> Iterator for Groups<'a> {
    type Item = (&'a AnaGroup, &'a [U32]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (group, rest) = AnaGroup::ref_from_prefix(self.rest).ok()?;
        let count = usize::try_from(group.nnsids.get()).ok()?;
        let (nsids, rest) = <[U32]>::ref_from_prefix_with_elems(rest, count).ok()?;
        self.rest = rest;
        Some((group, nsids))
    }
}
