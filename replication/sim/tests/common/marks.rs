//! Labels and stamps in the model: what replication relies on after a crash.
//!
//! - A label is a value like a block's ([`LABEL`] is its place in the history): after a cut it is
//!   one of the allowed ones, and never older than what [`Replica::label`] had said before.
//! - A block that holds a value since generation g lies in a chunk with a stamp of g or later, or
//!   in none.

use afs_sim::SimDisk;
use afs_sim::model::Tag;
use afs_store::{Generation, Label, Replica, StoreError};

use super::{Expected, World};

/// Where a replica's label is in the history.
pub const LABEL: u64 = u64::MAX;
/// Blocks of one chunk.
const CHUNK_BLOCKS: u64 = 4;

/// The model counts generations; some begin an epoch.
pub fn generation(count: u64) -> Generation {
    Generation { epoch: count / 3, number: count % 3 }
}

pub fn label_of(tag: Tag) -> Label {
    let mut state = [0; 32];
    for (byte, n) in state.iter_mut().zip(0_u64..) {
        *byte = (tag.wrapping_mul(n + 1) % 251) as u8;
    }
    let committed = Generation { epoch: tag * 3, number: tag * 5 };
    Label { promised: tag, promised_to: tag * 7, committed, state }
}

/// The tag of a label, or `None` if it is mixed from several.
pub fn tag_of_label(label: &Label) -> Option<Tag> {
    (*label == label_of(label.promised)).then_some(label.promised)
}

/// For each chunk, its stamp as far as the replica's lists say it; `None` if it is not allocated.
pub fn stamps(replica: &Replica<SimDisk>, highest: u64) -> Result<Vec<Option<u64>>, String> {
    assert_eq!(u64::from(replica.chunk_blocks()), CHUNK_BLOCKS);
    let chunks = replica.blocks().div_ceil(CHUNK_BLOCKS);
    let map = replica.allocated_map(0, chunks as u32);
    let allocated = |chunk: u64| map[(chunk / 8) as usize] >> (chunk % 8) & 1 == 1;
    let mut stamps: Vec<_> = (0..chunks).map(|chunk| allocated(chunk).then_some(0)).collect();
    for after in 0..=highest {
        for chunk in replica.chunks_since(generation(after), 0, usize::MAX) {
            match stamps.get_mut(chunk as usize) {
                Some(Some(stamp)) if after < highest => *stamp = after + 1,
                other => return Err(format!("chunk {chunk}, since {after}: {other:?}")),
            }
        }
    }
    Ok(stamps)
}

impl Expected {
    /// The generation that the replica's writes begin in, or an earlier one.
    pub fn generation(&self, replica: u64) -> u64 {
        self.generations.get(&replica).copied().unwrap_or(0)
    }
}

impl World {
    pub async fn set_label(&self, number: u64) -> Result<(), StoreError> {
        let Some(replica) = self.replica(number) else { return Ok(()) };
        let (tag, operation) = {
            let mut expected = self.expected.borrow_mut();
            expected.next_tag += 1;
            let tag = expected.next_tag;
            (tag, expected.history.begin(number, LABEL, tag, 0))
        };
        let result = replica.set_label(label_of(tag)).await;
        self.expected.borrow_mut().history.end(operation, result.is_ok());
        result
    }

    /// Sets a generation: the one before the current one for 0, then the current one, and so on.
    pub fn set_generation(&self, number: u64, step: u64) {
        let Some(replica) = self.replica(number) else { return };
        let mut expected = self.expected.borrow_mut();
        let current = expected.generation(number);
        let wanted = (current + step).saturating_sub(1);
        replica.set_generation(generation(wanted));
        expected.generations.insert(number, current.max(wanted));
        expected.generation_max = expected.generation_max.max(wanted);
    }

    /// What is expected if the power is cut now.
    pub fn expected_after_cut(&self) -> Expected {
        let mut expected = self.expected.borrow().clone();
        let there = |number: &u64| self.replica(*number).map(|replica| (*number, replica.label()));
        let labels: Vec<_> = expected.sizes.0.keys().filter_map(there).collect();
        expected.durable_labels =
            labels.into_iter().filter_map(|(n, label)| Some((n, tag_of_label(&label)?))).collect();
        expected
    }

    /// Compares the label with what may be there; returns its tag.
    pub fn compare_label(&self, expected: &Expected, number: u64) -> Result<Tag, String> {
        let replica = self.replica(number).ok_or("no replica")?;
        let allowed = expected.history.allowed(number, LABEL);
        let tag = tag_of_label(&replica.label()).filter(|tag| allowed.contains(tag));
        let tag = tag.ok_or_else(|| {
            format!("replica {number} has the label {:?}, not one of {allowed:?}", replica.label())
        })?;
        match expected.durable_labels.get(&number) {
            Some(durable) if *durable != tag => {
                let newer = expected.history.under_way(number, LABEL).contains(&tag);
                newer.then_some(tag).ok_or(format!("the label was {durable} and is {tag} again"))
            }
            _ => Ok(tag),
        }
    }

    /// Compares the stamps with the values found; returns, for each value, since when it is there.
    pub fn compare_stamps(
        &self,
        expected: &Expected,
        number: u64,
        found: &[(u64, Tag)],
    ) -> Result<Vec<u64>, String> {
        let replica = self.replica(number).ok_or("no replica")?;
        let stamps = stamps(&replica, expected.generation_max)?;
        let mut since = Vec::new();
        for &(lba, tag) in found {
            let (chunk, bit) = (lba / CHUNK_BLOCKS, lba % CHUNK_BLOCKS);
            let stamp = stamps.get(chunk as usize).copied().flatten();
            let needed = expected.history.since(number, lba, tag).unwrap_or(0);
            if stamp.is_some_and(|stamp| stamp < needed) {
                let what = format!("block ({number}, {lba}) holds {tag} since generation {needed}");
                return Err(format!("{what}, its chunk is stamped {stamp:?}"));
            }
            let is_data = replica.block_states(chunk as u32) >> bit & 1 == 1;
            if is_data != (tag != 0) || is_data && stamp.is_none() {
                return Err(format!("block ({number}, {lba}) holds {tag}: {is_data}, {stamp:?}"));
            }
            // A chunk can be freed and taken again without its zeroes having changed.
            since.push(if is_data { stamp.unwrap_or(0) } else { 0 });
        }
        Ok(since)
    }
}
