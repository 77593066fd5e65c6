//! What a correct store may hold: a history of operations on single blocks, and the rule that
//! decides which values may be read after a power cut.
//!
//! The rule: the value of an operation may be there unless another one that was acknowledged began
//! after it had ended. (An operation that was not acknowledged has no end, and may be there or
//! not.)

use std::collections::HashMap;

/// A block's contents: 0 is all zeroes, everything else is unique to one write of one block.
pub type Tag = u64;

const WORD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Fills a block with a tag's pattern.
pub fn fill(tag: Tag, block: &mut [u8]) {
    for (index, word) in (0_u64..).zip(block.chunks_exact_mut(8)) {
        let value = if tag == 0 { 0 } else { tag ^ index.wrapping_mul(WORD) };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// The tag of a block, or `None` if it is no pattern: a torn or foreign block.
pub fn tag_of(block: &[u8]) -> Option<Tag> {
    let tag = u64::from_le_bytes(*block.first_chunk()?);
    let mut expected = vec![0; block.len()];
    fill(tag, &mut expected);
    (expected == block).then_some(tag)
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    tag: Tag,
    start: u64,
    end: Option<u64>,
    acknowledged: bool,
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
    /// A history in which every block began with the value that was found.
    pub fn starting_with(found: impl IntoIterator<Item = ((u64, u64), Tag)>) -> Self {
        let start = |tag| vec![Operation { tag, start: 0, end: Some(0), acknowledged: true }];
        let blocks = found.into_iter().map(|(key, tag)| (key, start(tag))).collect();
        Self { blocks, time: 0 }
    }

    /// An operation begins.
    pub fn begin(&mut self, replica: u64, lba: u64, tag: Tag) -> OperationId {
        self.time += 1;
        let list = self.blocks.entry((replica, lba)).or_default();
        list.push(Operation { tag, start: self.time, end: None, acknowledged: false });
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
        let first = Operation { tag: 0, start: 0, end: Some(0), acknowledged: true };
        let own = self.blocks.get(&(replica, lba)).map_or(&[][..], Vec::as_slice);
        let all = || std::iter::once(&first).chain(own);
        let newest = all().filter(|o| o.acknowledged).map(|o| o.start).max().unwrap_or(0);
        all().filter(|o| o.end.is_none_or(|end| newest <= end)).map(|o| o.tag).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_values_replace_older_ones() {
        let mut history = History::default();
        assert_eq!(history.allowed(1, 0), [0]);
        let a = history.begin(1, 0, 5);
        assert_eq!(history.allowed(1, 0), [0, 5]);
        history.end(a, true);
        assert_eq!(history.allowed(1, 0), [5]);
        let b = history.begin(1, 0, 6);
        let c = history.begin(1, 0, 7);
        history.end(c, true);
        assert_eq!(history.allowed(1, 0), [6, 7]);
        history.end(b, false);
        assert_eq!(history.allowed(1, 0), [6, 7]);
        let d = history.begin(1, 0, 8);
        history.end(d, true);
        assert_eq!(history.allowed(1, 0), [8]);
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
