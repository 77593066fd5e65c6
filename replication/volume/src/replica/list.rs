//! The writes that a replica cannot know to be on all in-sync replicas.

use crate::message::{Blocks, Entry};

/// Bounded. When it is full, entries are put together in pairs, those of earlier reigns first: a range that is too large costs some
/// comparing, one that is missing would cost data.
pub(crate) struct UncommittedList {
    entries: Vec<Entry>,
    most: usize,
}

impl UncommittedList {
    /// An empty list of at most `most` entries.
    pub(crate) fn new(most: usize) -> UncommittedList {
        UncommittedList { entries: Vec::new(), most }
    }

    /// False if it is full: only of a list of one entry.
    pub(crate) fn add(&mut self, entry: Entry) -> bool {
        if self.entries.len() >= self.most {
            self.put_together(|reign| reign != entry.reign());
        }
        if self.entries.len() >= self.most {
            self.put_together(|reign| reign == entry.reign());
        }
        if self.entries.len() >= self.most {
            return false;
        }
        self.entries.push(entry);
        true
    }

    /// Halves the entries of some reigns. What comes of two stays until both may go.
    fn put_together(&mut self, chosen: impl Fn(u64) -> bool) {
        let (mut chosen, others): (Vec<_>, Vec<_>) =
            self.entries.drain(..).partition(|entry| chosen(entry.reign()));
        chosen.sort_by_key(|entry| entry.at().lba);
        self.entries = others;
        self.entries.extend(chosen.chunks(2).filter_map(|pair| match pair {
            [one, two] => Some(both(one, two)),
            [one] => Some(*one),
            _ => None,
        }));
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

/// An entry for all that two say; `one` does not begin behind `two`.
fn both(one: &Entry, two: &Entry) -> Entry {
    let end = |at: Blocks| at.lba.saturating_add(at.blocks);
    let lba = one.at().lba.min(two.at().lba);
    let blocks = end(one.at()).max(end(two.at())) - lba;
    let age = |entry: &Entry| (entry.reign(), entry.sequence());
    let later = if age(one) > age(two) { one } else { two };
    Entry::new(later.reign(), later.sequence(), Blocks { lba, blocks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(reign: u64, lba: u32) -> Entry {
        Entry::new(reign, u64::from(lba), Blocks { lba, blocks: 2 })
    }

    #[test]
    fn a_full_list_makes_room_without_forgetting_a_block() {
        let mut list = UncommittedList::new(4);
        for lba in [40, 0, 10, 20] {
            assert!(list.add(entry(1, lba)));
        }
        assert!(list.add(entry(2, 30)));
        let covered = |block: u32| {
            list.entries().iter().any(|entry| {
                let at = entry.at();
                (at.lba..at.lba + at.blocks).contains(&block)
            })
        };
        assert!([0, 1, 10, 11, 20, 21, 30, 31, 40, 41].into_iter().all(covered));
        assert!(list.len() <= 4);
        list.settled(2);
        assert_eq!(list.len(), 1, "those of the earlier reign go together");
    }

    #[test]
    fn what_was_put_together_goes_when_the_later_one_is_committed() {
        let mut list = UncommittedList::new(2);
        assert!(list.add(entry(3, 0)) && list.add(entry(3, 10)) && list.add(entry(3, 20)));
        list.committed(3, 9);
        assert!(list.entries().iter().any(|entry| entry.at() == Blocks { lba: 0, blocks: 12 }));
        list.committed(3, 10);
        assert_eq!(list.len(), 1);
    }
}
