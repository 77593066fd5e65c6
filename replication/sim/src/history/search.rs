//! The checker for any history: just-in-time linearization (Lowe, "Testing for linearizability",
//! 2017).
//!
//! Goes through the starts and ends in the order of time with the set of all *situations* in which
//! the block may be: its value, and which of the writes under way have taken effect. At a write's
//! start it is under way; at an operation's end, only situations in which it has taken effect
//! remain. Effects are put off until an end needs them, which loses nothing.
//!
//! A read takes effect as soon as a situation has its value, which is always as good as later.
//! Writes of zero without an answer are alike, but for their start: a situation counts how many of
//! them it has used, and one that has used fewer than another, and is the same otherwise, stands
//! for both. An attempt to write zero that may not have happened counts as often as needed until its
//! end: there are many of them when a volume is away for long, and nobody can tell them apart.

use std::collections::BTreeMap;

use super::{Action, Moment, Operation, Tag, Violation};

/// More writes under way on one block than this are not looked at.
const WRITES_MAX: usize = 64;

/// The block's value, the writes under way that have taken effect, and the reads that have: bit
/// sets of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Situation {
    value: Tag,
    written: u64,
    read: u64,
}

/// Situations, each with the number of unanswered zeroes that it used.
type Situations = BTreeMap<Situation, u32>;

#[derive(Default)]
struct Search {
    /// Operations under way; a place is used again.
    writes: Vec<Option<Operation>>,
    reads: Vec<Option<Operation>>,
    /// Unanswered writes of zero that have begun.
    zeroes: u32,
    /// Moments at which zero may have been written are open.
    windows: u32,
    situations: Situations,
}

enum Event {
    Start,
    End,
}

/// Checks operations that [`prepare`](super::prepare) left; the block was zero at the beginning.
///
/// # Panics
/// If more than 64 writes of the block were under way at one moment.
pub(super) fn check(operations: &[Operation]) -> Result<(), Violation> {
    let mut events: Vec<(Moment, Event, &Operation)> = Vec::new();
    for operation in operations {
        events.push((operation.start, Event::Start, operation));
        if let Some(end) = operation.end {
            events.push((end, Event::End, operation));
        }
    }
    // A write whose end was taken from a read ends just before it.
    events.sort_by_key(|(at, _, operation)| (*at, matches!(operation.action, Action::Read(_))));
    let mut search = Search::default();
    search.situations.insert(Situation { value: 0, written: 0, read: 0 }, 0);
    for (_, event, operation) in events {
        match (event, operation.action) {
            (Event::Start, Action::Write(_)) if operation.end.is_none() => search.zeroes += 1,
            (Event::Start, Action::Write(_)) if operation.maybe => search.windows += 1,
            (Event::Start, Action::Write(_)) => place(&mut search.writes, operation),
            (Event::Start, Action::Read(_)) => search.read_starts(operation),
            (Event::End, Action::Write(_)) if operation.maybe => search.window_ends(),
            (Event::End, _) => search.ends(operation),
        }
        if search.situations.is_empty() {
            return Err(Violation::NoOrder(*operation));
        }
    }
    Ok(())
}

fn place(places: &mut Vec<Option<Operation>>, operation: &Operation) {
    let free = places.iter().position(Option::is_none).unwrap_or_else(|| {
        places.push(None);
        places.len() - 1
    });
    assert!(free < WRITES_MAX, "too many operations of one block at one moment");
    if let Some(place) = places.get_mut(free) {
        *place = Some(*operation);
    }
}

fn keep(situations: &mut Situations, situation: Situation, used: u32) -> bool {
    match situations.get_mut(&situation) {
        Some(known) if *known <= used => false,
        Some(known) => {
            *known = used;
            true
        }
        None => {
            situations.insert(situation, used);
            true
        }
    }
}

impl Search {
    /// Reads under way that see what the block holds take effect.
    fn see(&self, mut situation: Situation) -> Situation {
        for (index, read) in self.reads.iter().enumerate() {
            if read.is_some_and(|read| read.action == Action::Read(situation.value)) {
                situation.read |= 1 << index;
            }
        }
        situation
    }

    fn read_starts(&mut self, operation: &Operation) {
        place(&mut self.reads, operation);
        let all = std::mem::take(&mut self.situations);
        for (situation, used) in all {
            let seen = self.see(situation);
            keep(&mut self.situations, seen, used);
        }
    }

    /// Everything that can come of a situation by one more write.
    fn next(&self, situation: Situation, used: u32) -> Vec<(Situation, u32)> {
        let mut next = Vec::new();
        for (index, write) in self.writes.iter().enumerate() {
            let Some(Operation { action: Action::Write(value), .. }) = *write else { continue };
            let bit = 1 << index;
            if situation.written & bit == 0 {
                let written = situation.written | bit;
                next.push((self.see(Situation { value, written, ..situation }), used));
            }
        }
        let zeroed = Situation { value: 0, ..situation };
        if self.windows > 0 && situation.value != 0 {
            next.push((self.see(zeroed), used));
        } else if used < self.zeroes && situation.value != 0 {
            next.push((self.see(zeroed), used + 1));
        }
        next
    }

    /// An attempt to write zero is over: in every situation it may have come now.
    fn window_ends(&mut self) {
        if self.windows == 1 {
            let mut open: Vec<_> =
                self.situations.iter().map(|(one, used)| (*one, *used)).collect();
            while let Some((situation, used)) = open.pop() {
                for (next, used) in self.next(situation, used) {
                    if keep(&mut self.situations, next, used) {
                        open.push((next, used));
                    }
                }
            }
        }
        self.windows -= 1;
    }

    /// Leaves the situations in which `operation` has taken effect, and takes it out of them.
    fn ends(&mut self, operation: &Operation) {
        let read = matches!(operation.action, Action::Read(_));
        let places = if read { &mut self.reads } else { &mut self.writes };
        let place = places.iter().position(|place| place.as_ref() == Some(operation));
        let bit = place.map_or(0, |index| 1 << index);
        let mut seen = self.situations.clone();
        let mut open: Vec<_> = seen.iter().map(|(situation, used)| (*situation, *used)).collect();
        let mut left = Situations::new();
        while let Some((situation, used)) = open.pop() {
            let done = if read { situation.read } else { situation.written };
            if done & bit != 0 {
                // It goes no further than it must.
                let Situation { value, mut written, read: mut seen_by } = situation;
                let set = if read { &mut seen_by } else { &mut written };
                *set &= !bit;
                keep(&mut left, Situation { value, written, read: seen_by }, used);
                continue;
            }
            for (next, used) in self.next(situation, used) {
                if keep(&mut seen, next, used) {
                    open.push((next, used));
                }
            }
        }
        let places = if read { &mut self.reads } else { &mut self.writes };
        if let Some(place) = place.and_then(|index| places.get_mut(index)) {
            *place = None;
        }
        self.situations = left;
    }
}
