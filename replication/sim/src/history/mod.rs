//! What clients saw, and whether a disk that works could have shown it: linearizability, block by
//! block.
//!
//! Every write of a block has a value of its own ([`Tag`]), except zeroes. A write that ended without
//! an answer (a time-out, an error, a client that died) may have taken effect at any moment since it
//! began, may still do so at any later one, or never; such a read says nothing.
//!
//! A client that gets no answer may try again on another path. Each attempt is a write with a value
//! of its own. When one is acknowledged, the earlier ones are over: each took effect by then, or
//! never will ([`History::wrote_at_last`]; a ghost is one that comes later).
//!
//! A block is a register, and blocks are independent (one block is the atomic unit), so the history
//! of a volume is linearizable if that of each block is. A write of several blocks is one operation
//! on each.
//!
//! Two checkers, both exact (attempts to write zero that may not have happened count as often as
//! needed until they are over). [`zones`] needs distinct values and takes `n log n`: it is what most
//! blocks get. [`search`] takes any history (several writes of zero have the same value, which
//! makes the problem hard in general) and is exponential only in the number of writes of one block
//! that are under way at one moment. The tests hold both against a third one that tries every
//! order.

mod search;
#[cfg(test)]
mod tests;
mod zones;

use std::collections::BTreeMap;
use std::fmt;

pub use crate::model::Tag;

/// A moment in a history; also orders events at the same time.
pub type Moment = u64;

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wrote this value.
    Write(Tag),
    /// Read this value.
    Read(Tag),
}

/// One operation on one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it did.
    pub action: Action,
    /// When it began.
    pub start: Moment,
    /// When it was answered with success; `None` if its outcome is not known.
    pub end: Option<Moment>,
    /// It may not have happened at all; if it did, then by its end.
    pub maybe: bool,
    /// Who did it, for people.
    pub client: u32,
}

/// Why a history cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A value was read that nobody wrote, or half a block.
    FromNowhere(Operation),
    /// A value was read before its write began.
    FromTheFuture(Operation),
    /// The block held this value from the first moment to the last, and another value as well.
    Between(Tag, Tag),
    /// No order of the operations explains what this one saw.
    NoOrder(Operation),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::FromNowhere(read) => write!(f, "{read:?} saw what nobody wrote"),
            Violation::FromTheFuture(read) => write!(f, "{read:?} saw it before it was written"),
            Violation::Between(held, other) => {
                write!(f, "{other:#x} was in the block while it surely held {held:#x}")
            }
            Violation::NoOrder(operation) => write!(f, "no order explains {operation:?}"),
        }
    }
}

/// The tag of a block that holds no whole pattern.
pub const TORN: Tag = Tag::MAX;

/// Names an operation in a [`History`].
#[derive(Clone, Copy, Debug)]
pub struct OperationId {
    block: (u64, u64),
    index: usize,
}

/// All operations of all clients.
#[derive(Clone, Debug, Default)]
pub struct History {
    blocks: BTreeMap<(u64, u64), Vec<Operation>>,
    moment: Moment,
    next_tag: Tag,
}

impl History {
    /// A value that was never written before.
    pub fn fresh_tag(&mut self) -> Tag {
        self.next_tag += 1;
        self.next_tag
    }

    fn tick(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    fn begin(&mut self, client: u32, block: (u64, u64), action: Action) -> OperationId {
        let start = self.tick();
        let list = self.blocks.entry(block).or_default();
        list.push(Operation { action, start, end: None, maybe: false, client });
        OperationId { block, index: list.len() - 1 }
    }

    /// A write of `tag` to block `lba` of `volume` begins.
    pub fn begin_write(&mut self, client: u32, volume: u64, lba: u64, tag: Tag) -> OperationId {
        self.begin(client, (volume, lba), Action::Write(tag))
    }

    /// A read begins.
    pub fn begin_read(&mut self, client: u32, volume: u64, lba: u64) -> OperationId {
        self.begin(client, (volume, lba), Action::Read(0))
    }

    /// A write was acknowledged.
    pub fn wrote(&mut self, id: OperationId) {
        let now = self.tick();
        if let Some(operation) = self.get(id) {
            operation.end = Some(now);
        }
    }

    /// The last of these attempts to write one thing was acknowledged.
    pub fn wrote_at_last(&mut self, attempts: &[OperationId]) {
        let now = self.tick();
        for (index, id) in attempts.iter().enumerate() {
            if let Some(operation) = self.get(*id) {
                operation.end = Some(now);
                operation.maybe = index + 1 < attempts.len();
            }
        }
    }

    /// A read returned `tag` ([`TORN`] for what is no tag).
    pub fn read(&mut self, id: OperationId, tag: Tag) {
        let now = self.tick();
        if let Some(operation) = self.get(id) {
            operation.action = Action::Read(tag);
            operation.end = Some(now);
        }
    }

    fn get(&mut self, id: OperationId) -> Option<&mut Operation> {
        self.blocks.get_mut(&id.block)?.get_mut(id.index)
    }

    /// The last moment.
    pub fn now(&self) -> Moment {
        self.moment
    }

    /// Operations so far.
    pub fn len(&self) -> usize {
        self.blocks.values().map(Vec::len).sum()
    }

    /// Nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Every operation on one block.
    pub fn of_block(&self, volume: u64, lba: u64) -> &[Operation] {
        self.blocks.get(&(volume, lba)).map_or(&[], Vec::as_slice)
    }

    /// Checks every block, all of which were zero at the beginning.
    ///
    /// # Errors
    /// The first violation, with its block (volume and lba).
    pub fn check(&self) -> Result<(), ((u64, u64), Violation)> {
        for (block, operations) in &self.blocks {
            check_block(operations).map_err(|violation| (*block, violation))?;
        }
        Ok(())
    }
}

/// Checks one block, which was zero at the beginning.
///
/// # Errors
/// A violation, if there is one.
pub fn check_block(operations: &[Operation]) -> Result<(), Violation> {
    let useful = prepare(operations)?;
    let zeroes = useful.iter().filter(|operation| operation.action == Action::Write(0));
    if zeroes.count() == 0 { zones::check(&useful) } else { search::check(&useful) }
}

/// Leaves out what says nothing: reads without an answer, and writes that may not have happened whose
/// value was never read, because what never took effect explains as much. Such a write whose value
/// was read, and is its own, took effect before the first such read ended: that is its end.
fn prepare(operations: &[Operation]) -> Result<Vec<Operation>, Violation> {
    let mut first_seen: BTreeMap<Tag, Moment> = BTreeMap::new();
    for operation in operations {
        if let (Action::Read(tag), Some(end)) = (operation.action, operation.end) {
            let seen = first_seen.entry(tag).or_insert(end);
            *seen = end.min(*seen);
        }
    }
    let keep = |operation: &Operation| match (operation.action, operation.end) {
        (Action::Read(_), None) => None,
        (Action::Write(tag), end) if operation.maybe || end.is_none() => {
            let seen = *first_seen.get(&tag)?;
            let end = end.map_or(seen, |end| end.min(seen));
            let own = Operation { end: Some(end), maybe: false, ..*operation };
            Some(if tag == 0 { *operation } else { own })
        }
        _ => Some(*operation),
    };
    let useful: Vec<_> = operations.iter().filter_map(keep).collect();
    let mut written = BTreeMap::new();
    for operation in &useful {
        if let Action::Write(tag) = operation.action {
            written.insert(tag, operation.start);
        }
    }
    for operation in &useful {
        let Action::Read(tag) = operation.action else { continue };
        match written.get(&tag) {
            None if tag != 0 => return Err(Violation::FromNowhere(*operation)),
            Some(start) if tag != 0 && operation.end.is_some_and(|end| end < *start) => {
                return Err(Violation::FromTheFuture(*operation));
            }
            _ => {}
        }
    }
    Ok(useful)
}
