//! The error information log of one controller (LID 01h): its last failed commands, newest first (CONFORMANCE I-13).

use crate::limits::ERROR_LOG_ENTRIES;
use afs_nvme::log::{ErrorEntry, NO_PARAMETER};
use afs_nvme::{Sqe, Status};
use parking_lot::Mutex;
use std::collections::VecDeque;
use zerocopy::FromZeros;

#[derive(Default)]
struct Entries {
    /// Errors since the controller was made; the number of the newest entry.
    count: u64,
    newest_first: VecDeque<ErrorEntry>,
}

/// Bounded to [`ERROR_LOG_ENTRIES`]; only failing commands touch it.
#[derive(Default)]
pub struct ErrorLog {
    entries: Mutex<Entries>,
}

impl ErrorLog {
    /// Notes that the command `sqe` of queue `qid` ended with `status`.
    pub fn record(&self, qid: u16, sqe: &Sqe, status: Status) {
        let mut entries = self.entries.lock();
        entries.count += 1;
        if entries.newest_first.len() == ERROR_LOG_ENTRIES {
            entries.newest_first.pop_back();
        }
        let entry = entry(entries.count, qid, sqe, status);
        entries.newest_first.push_front(entry);
    }

    /// How many errors there were, also those no longer kept.
    pub fn count(&self) -> u64 {
        self.entries.lock().count
    }

    /// The entries, newest first.
    pub fn newest_first(&self) -> Vec<ErrorEntry> {
        self.entries.lock().newest_first.iter().cloned().collect()
    }
}

fn entry(count: u64, qid: u16, sqe: &Sqe, status: Status) -> ErrorEntry {
    ErrorEntry {
        error_count: count.into(),
        sqid: qid.into(),
        cid: sqe.cid,
        status: status.to_wire().into(),
        parameter_location: NO_PARAMETER.into(),
        lba: if qid == 0 { 0 } else { sqe.cdw10_11() }.into(),
        nsid: if sqe.is_fabrics() { 0.into() } else { sqe.nsid },
        ..ErrorEntry::new_zeroed()
    }
}
