//! The checker for distinct values (Gibbons and Korach, "Testing shared memories", 1997).
//!
//! Take a value's write and its reads together. Let `low` be the earliest of their ends and `high`
//! the latest of their starts. If `low < high`, something with the value had to take effect by
//! `low` and something at `high` or later, so the block held the value all the time between: a
//! *forward* zone, `low..high`. Otherwise all of them can take effect at one and the same moment,
//! anywhere in `high..low`: a *backward* zone.
//!
//! The history is linearizable exactly if no two forward zones overlap (two values at one moment),
//! and no backward zone lies inside a forward one (its value would have to be there in the middle).
//! For then: the forward zones follow each other, and each backward zone has a moment outside of
//! all of them, where it comes and goes at once.

use std::collections::BTreeMap;

use super::{Action, Moment, Operation, Tag, Violation};

#[derive(Clone, Copy)]
struct Zone {
    low: Moment,
    high: Moment,
    tag: Tag,
}

/// Checks operations that [`prepare`](super::prepare) left, with distinct values and no write of
/// zero: zero was written before everything else.
pub(super) fn check(operations: &[Operation]) -> Result<(), Violation> {
    let mut zones = BTreeMap::from([(0, Zone { low: 0, high: 0, tag: 0 })]);
    for operation in operations {
        let (Action::Read(tag) | Action::Write(tag)) = operation.action;
        let zone = zones.entry(tag).or_insert(Zone { low: Moment::MAX, high: 0, tag });
        zone.low = zone.low.min(operation.end.unwrap_or(Moment::MAX));
        zone.high = zone.high.max(operation.start);
    }
    let (mut forward, backward): (Vec<_>, Vec<_>) =
        zones.into_values().partition(|zone| zone.low < zone.high);
    forward.sort_unstable_by_key(|zone| zone.low);
    for (one, next) in forward.iter().zip(forward.iter().skip(1)) {
        if next.low < one.high {
            return Err(Violation::Between(one.tag, next.tag));
        }
    }
    for zone in backward {
        // The only forward zone that it can lie in is the last one that begins before it.
        let index = forward.partition_point(|forward| forward.low < zone.high);
        let around = index.checked_sub(1).and_then(|index| forward.get(index));
        if let Some(around) = around.filter(|around| zone.low < around.high) {
            return Err(Violation::Between(around.tag, zone.tag));
        }
    }
    Ok(())
}
