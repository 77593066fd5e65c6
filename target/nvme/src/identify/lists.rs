//! Lists of namespaces, controllers and command sets (CNS 02h, 10h, 12h, 13h, 1Ch;
//! CONFORMANCE 4.2).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// NSIDs ascending, then zeros (4096 bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NamespaceList {
    /// The NSIDs.
    pub nsids: [U32; 1024],
}

assert_layout!(NamespaceList, 4096, { nsids @ 0 });

impl NamespaceList {
    /// The first 1024 of the given ascending NSIDs that are greater than `after`.
    pub fn new(after: u32, ascending: impl IntoIterator<Item = u32>) -> NamespaceList {
        let mut list = NamespaceList::new_zeroed();
        let wanted = ascending.into_iter().filter(|nsid| *nsid > after);
        for (slot, nsid) in list.nsids.iter_mut().zip(wanted) {
            slot.set(nsid);
        }
        list
    }

    /// The NSIDs up to the first zero.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.nsids.iter().map(|nsid| nsid.get()).take_while(|nsid| *nsid != 0)
    }
}

/// A count and controller ids, ascending (4096 bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ControllerList {
    /// How many ids follow.
    pub count: U16,
    /// The ids.
    pub cntlids: [U16; 2047],
}

assert_layout!(ControllerList, 4096, { count @ 0, cntlids @ 2 });

impl ControllerList {
    /// The first 2047 of the given ascending ids that are not below `from`.
    pub fn new(from: u16, ascending: impl IntoIterator<Item = u16>) -> ControllerList {
        let mut list = ControllerList::new_zeroed();
        let wanted = ascending.into_iter().filter(|cntlid| *cntlid >= from);
        for (slot, cntlid) in list.cntlids.iter_mut().zip(wanted) {
            slot.set(cntlid);
            list.count += U16::new(1);
        }
        list
    }
}

/// Combinations of command sets, one bit vector each (4096 bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandSetVectors {
    /// The vectors.
    pub vectors: [U64; 512],
}

assert_layout!(CommandSetVectors, 4096, { vectors @ 0 });

impl CommandSetVectors {
    /// The NVM command set alone.
    pub fn nvm_only() -> CommandSetVectors {
        let mut list = CommandSetVectors::new_zeroed();
        if let Some(first) = list.vectors.first_mut() {
            first.set(1);
        }
        list
    }
}
