//! Changed namespaces (log 04h): which NSIDs came, went or changed since it was last read.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most NSIDs that the log can name.
const NSIDS_MAX: usize = 1024;

/// NSIDs ascending, then zeros (4096 bytes); a first entry of 0xffffffff stands for more than 1024.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ChangedNamespaces {
    /// The NSIDs.
    pub nsids: [U32; NSIDS_MAX],
}

assert_layout!(ChangedNamespaces, 4096, { nsids @ 0 });

impl ChangedNamespaces {
    /// A log of NSIDs that are given in ascending order.
    pub fn new(ascending: impl IntoIterator<Item = u32>) -> ChangedNamespaces {
        let mut log = ChangedNamespaces::new_zeroed();
        let mut given = ascending.into_iter();
        for (slot, nsid) in log.nsids.iter_mut().zip(given.by_ref()) {
            slot.set(nsid);
        }
        if given.next().is_some() {
            log = ChangedNamespaces::new_zeroed();
            if let Some(first) = log.nsids.first_mut() {
                first.set(u32::MAX);
            }
        }
        log
    }
}
