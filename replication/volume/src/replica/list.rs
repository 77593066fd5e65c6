//! The writes that a replica cannot know to be on all in-sync replicas.

use crate::message::Entry;

/// Bounded; a replica with a full list takes no further writes.
pub(crate) struct UncommittedList {
    entries: Vec<Entry>,
    most: usize,
}

impl UncommittedList {
    /// An empty list of at most `most` entries.
    pub(crate) fn new(most: usize) -> UncommittedList {
        UncommittedList { entries: Vec::new(), most }
    }

    /// False if it is full.
    pub(crate) fn add(&mut self, entry: Entry) -> bool {
        if self.entries.len() >= self.most {
            return false;
        }
        self.entries.push(entry);
        true
    }

    /// Everything up to `watermark` of `reign` is committed.
    pub(crate) fn committed(&mut self, reign: u64, watermark: u64) {
        self.entries.retain(|entry| entry.reign() != reign || entry.sequence() > watermark);
    }

    /// Everything of reigns before `reign` was made equal.
    pub(crate) fn settled(&mut self, reign: u64) {
        self.entries.retain(|entry| entry.reign() >= reign);
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
