//! What a correct store may hold: a history of operations on single blocks, and the rule that
//! decides which values may be read after a power cut.
//!
//! The rule: the value of an operation may be there unless another one that was acknowledged began
//! after it had ended. (An operation that was not acknowledged has no end, and may be there or
//! not.)
//!
//! An operation has the generation in which it began. So the history also says since when, at the
//! latest, a block has had the value that is found: what the stamp of its chunk must show.

use std::collections::HashMap;

/// A block's contents: 0 is all zeroes, everything else is unique to one write of one block.
pub type Tag = u64;

const WORD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fills a block with a tag's pattern.
pub fn fill(tag: Tag, block: &mut [u8]) {
    for (index, word) in (0_u64..).zip(block.chunks_exact_mut(8)) {
        word.copy_from_slice(&word_of(tag, index));
    }
}

fn word_of(tag: Tag, index: u64) -> [u8; 8] {
    let value = if tag == 0 { 0 } else { tag ^ index.wrapping_mul(WORD) };
    value.to_le_bytes()
}

/// The tag of a block, or `None` if it is no pattern: a torn or foreign block.
pub fn tag_of(block: &[u8]) -> Option<Tag> {
    let tag = u64::from_le_bytes(*block.first_chunk()?);
    let whole = (0..).zip(block.chunks_exact(8)).all(|(index, word)| *word == word_of(tag, index));
    whole.then_some(tag)
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    tag: Tag,
    generation: u64,
    start: u64,
    end: Option<u64>,
    acknowledged: bool,
}

impl Operation {
    /// What the block held before all others.
    fn first(tag: Tag) -> Self {
        Self { tag, generation: 0, start: 0, end: Some(0), acknowledged: true }
    }
}

/// Names an operation in a [`History`].
#[derive(Clone, Copy, Debug)]
pub struct OperationId {
    key: (u64, u64),
    index: usize,
}

/// All operations on all blocks of all replicas. A block is (replica, lba).
#[derive(Clone, Debug, Default)]
pub struct History {
    blocks: HashMap<(u64, u64), Vec<Operation>>,
    time: u64,
}

impl History {
    /// A history in which every block began with the value that was found, and its generation.
    pub fn starting_with(found: impl IntoIterator<Item = ((u64, u64), Tag, u64)>) -> Self {
        let start = |tag, generation| vec![Operation { generation, ..Operation::first(tag) }];
        let blocks = found.into_iter().map(|(key, tag, g)| (key, start(tag, g))).collect();
        Self { blocks, time: 0 }
    }

    /// An operation begins. If the block may hold this value already, it has it since then.
    pub fn begin(&mut self, replica: u64, lba: u64, tag: Tag, generation: u64) -> OperationId {
        let generation = self.since(replica, lba, tag).map_or(generation, |g| g.min(generation));
        self.time += 1;
        let list = self.blocks.entry((replica, lba)).or_default();
        let start = self.time;
        list.push(Operation { tag, generation, start, end: None, acknowledged: false });
        OperationId { key: (replica, lba), index: list.len() - 1 }
    }

    /// An operation returned. One that failed may or may not have happened.
    pub fn end(&mut self, id: OperationId, acknowledged: bool) {
        self.time += 1;
        let time = self.time;
        let list = self.blocks.get_mut(&id.key);
        if let Some(operation) = list.and_then(|list| list.get_mut(id.index)) {
            operation.end = Some(time);
            operation.acknowledged = acknowledged;
        }
    }

    /// Every value that the block may hold now.
    pub fn allowed(&self, replica: u64, lba: u64) -> Vec<Tag> {
        self.possible(replica, lba).iter().map(|operation| operation.tag).collect()
    }

    /// The generation since which the block has this value, or an earlier one if that is not sure.
    pub fn since(&self, replica: u64, lba: u64, tag: Tag) -> Option<u64> {
        let possible = self.possible(replica, lba);
        possible.iter().filter(|o| o.tag == tag).map(|o| o.generation).min()
    }

    /// The values of operations that have not returned.
    pub fn under_way(&self, replica: u64, lba: u64) -> Vec<Tag> {
        let own = self.blocks.get(&(replica, lba)).map_or(&[][..], Vec::as_slice);
        own.iter().filter(|operation| operation.end.is_none()).map(|o| o.tag).collect()
    }

    fn possible(&self, replica: u64, lba: u64) -> Vec<Operation> {
        let first = Operation::first(0);
        let own = self.blocks.get(&(replica, lba)).map_or(&[][..], Vec::as_slice);
        let all = || std::iter::once(&first).chain(own);
        let newest = all().filter(|o| o.acknowledged).map(|o| o.start).max().unwrap_or(0);
        all().filter(|o| o.end.is_none_or(|end| newest <= end)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_values_replace_older_ones() {
        let mut history = History::default();
        assert_eq!(history.allowed(1, 0), [0]);
        let a = history.begin(1, 0, 5, 0);
        assert_eq!(history.allowed(1, 0), [0, 5]);
        history.end(a, true);
        assert_eq!(history.allowed(1, 0), [5]);
        let b = history.begin(1, 0, 6, 0);
        let c = history.begin(1, 0, 7, 0);
        history.end(c, true);
        assert_eq!(history.allowed(1, 0), [6, 7]);
        history.end(b, false);
        assert_eq!(history.allowed(1, 0), [6, 7]);
        let d = history.begin(1, 0, 8, 0);
        history.end(d, true);
        assert_eq!(history.allowed(1, 0), [8]);
    }

    #[test]
    fn a_value_is_as_old_as_the_first_operation_that_may_have_made_it() {
        let mut history = History::default();
        let nothing = history.begin(1, 0, 0, 3);
        history.end(nothing, true);
        assert_eq!(history.since(1, 0, 0), Some(0), "it was zero before");
        let write = history.begin(1, 0, 5, 4);
        assert_eq!((history.since(1, 0, 0), history.since(1, 0, 5)), (Some(0), Some(4)));
        assert_eq!(history.under_way(1, 0), [5]);
        history.end(write, true);
        assert_eq!((history.since(1, 0, 0), history.since(1, 0, 5)), (None, Some(4)));
        history.begin(1, 0, 0, 6);
        assert_eq!(history.since(1, 0, 0), Some(6));
        let found = History::starting_with([((1, 0), 5, 4)]);
        assert_eq!(found.since(1, 0, 5), Some(4));
    }

    #[test]
    fn patterns_are_whole_or_nothing() {
        let mut block = vec![0; 4096];
        assert_eq!(tag_of(&block), Some(0));
        fill(77, &mut block);
        assert_eq!(tag_of(&block), Some(77));
        block[512..1024].fill(0);
        assert_eq!(tag_of(&block), None);
    }
}
