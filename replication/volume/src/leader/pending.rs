//! Ranges of a shard that may differ among its in-sync replicas, and must be made equal before they are read or overwritten
//! (DESIGN 5 rule 6).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// Non-overlapping ranges of blocks of one shard; neighbours are merged.
#[derive(Default)]
pub(crate) struct Pending {
    ranges: Mutex<BTreeMap<u64, u64>>,
    /// Whether there are any, for those who only look.
    any: AtomicBool,
}

impl Pending {
    pub(crate) fn add(&self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut ranges = self.ranges.lock();
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&from, &to)) = ranges.range(..=end).next_back() {
            if to < start {
                break;
            }
            ranges.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        ranges.insert(start, end);
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn remove(&self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let mut ranges = self.ranges.lock();
        let mut rest = Vec::new();
        while let Some((&from, &to)) = ranges.range(..range.end).next_back() {
            if to <= range.start {
                break;
            }
            ranges.remove(&from);
            if from < range.start {
                rest.push((from, range.start));
            }
            if to > range.end {
                rest.push((range.end, to));
            }
        }
        ranges.extend(rest);
        self.any.store(!ranges.is_empty(), Ordering::Release);
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// The first part of `range` that is pending.
    pub(crate) fn first_in(&self, range: &Range<u64>) -> Option<Range<u64>> {
        if self.is_empty() {
            return None;
        }
        let ranges = self.ranges.lock();
        let before = ranges.range(..=range.start).next_back();
        let next = before.into_iter().chain(ranges.range(range.start..range.end));
        let overlaps = next.map(|(from, to)| *from.max(&range.start)..*to.min(&range.end));
        overlaps.into_iter().find(|part| !part.is_empty())
    }

    /// Blocks that are pending.
    pub(crate) fn blocks(&self) -> u64 {
        self.ranges.lock().iter().map(|(from, to)| to - from).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_behave_like_a_set_of_blocks(
            steps in prop::collection::vec((any::<bool>(), 0_u64..40, 0_u64..12), 1..40),
            asked in (0_u64..40, 1_u64..12),
        ) {
            let pending = Pending::default();
            let mut blocks = std::collections::BTreeSet::new();
            for (add, start, len) in steps {
                let range = start..start + len;
                if add {
                    blocks.extend(range.clone());
                    pending.add(range);
                } else {
                    blocks.retain(|block| !range.contains(block));
                    pending.remove(&range);
                }
                prop_assert_eq!(pending.is_empty(), blocks.is_empty());
                prop_assert_eq!(pending.blocks(), blocks.len() as u64);
            }
            let range = asked.0..asked.0 + asked.1;
            let first = blocks.range(range.clone()).next();
            prop_assert_eq!(pending.first_in(&range).map(|part| part.start), first.copied());
            if let Some(part) = pending.first_in(&range) {
                prop_assert!(part.clone().all(|block| blocks.contains(&block)));
                prop_assert!(part.end == range.end || !blocks.contains(&part.end));
            }
        }
    }
}
