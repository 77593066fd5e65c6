//! The checkers of histories: by hand what must be accepted and found, and for random histories of few operations all of them
//! against the definition, which tries every order.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// `("w", 5, 1, 3)`: a write of 5 from 1 to 3; an end of 0 is none; with "m" it may not have happened.
fn history(list: &[(&str, Tag, Moment, Moment)]) -> Vec<Operation> {
    let operation = |(client, (what, tag, start, end)): (u32, &(&str, Tag, Moment, Moment))| {
        let action = if *what == "r" { Action::Read(*tag) } else { Action::Write(*tag) };
        let end = (*end > 0).then_some(*end);
        Operation { action, start: *start, end, maybe: *what == "m", client }
    };
    (0..).zip(list).map(operation).collect()
}

fn good(list: &[(&str, Tag, Moment, Moment)]) {
    assert_eq!(check_all(&history(list)), Ok(()), "{list:?}");
}

fn bad(list: &[(&str, Tag, Moment, Moment)]) {
    assert!(check_all(&history(list)).is_err(), "{list:?}");
}

/// Every checker that takes the history, all of which must agree.
fn check_all(operations: &[Operation]) -> Result<(), Violation> {
    let result = check_block(operations);
    if let Ok(useful) = prepare(operations) {
        let searched = search::check(&useful);
        assert_eq!(searched.is_ok(), result.is_ok(), "{operations:?}");
    }
    assert_eq!(try_every_order(operations), result.is_ok(), "{operations:?}");
    result
}

#[test]
fn what_a_disk_may_do_is_accepted() {
    good(&[]);
    good(&[("r", 0, 1, 2)]);
    good(&[("w", 5, 1, 2), ("r", 5, 3, 4)]);
    // While a write is under way, either; once new, always new.
    good(&[("w", 5, 1, 8), ("r", 0, 2, 3), ("r", 5, 4, 5), ("r", 5, 6, 7)]);
    // Two writes at once, in any order.
    good(&[("w", 5, 1, 4), ("w", 6, 2, 3), ("r", 5, 5, 6)]);
    good(&[("w", 5, 1, 4), ("w", 6, 2, 3), ("r", 6, 5, 6)]);
    // Reads at once may see either, in any order of their starts.
    good(&[("w", 5, 1, 9), ("r", 5, 2, 6), ("r", 0, 3, 5)]);
}

#[test]
fn a_write_of_unknown_outcome_may_come_late_or_never() {
    good(&[("w", 5, 1, 0), ("r", 0, 2, 3), ("r", 0, 4, 5)]);
    good(&[("w", 5, 1, 0), ("r", 0, 2, 3), ("r", 5, 4, 5)]);
    // Even after a later write; but then it has come for good.
    good(&[("w", 5, 1, 0), ("w", 6, 2, 3), ("r", 6, 4, 5), ("r", 5, 6, 7)]);
    good(&[("w", 0, 1, 0), ("w", 6, 2, 3), ("r", 6, 4, 5), ("r", 0, 6, 7)]);
    bad(&[("w", 5, 1, 0), ("w", 6, 2, 3), ("r", 5, 4, 5), ("r", 6, 6, 7)]);
}

#[test]
fn an_attempt_before_the_acknowledged_one_comes_by_then_or_never() {
    // The first attempt (5) is over when the second one (6) is acknowledged, at 6.
    good(&[("m", 5, 1, 6), ("w", 6, 3, 6), ("r", 6, 7, 8)]);
    good(&[("m", 5, 1, 6), ("w", 6, 3, 6), ("r", 5, 7, 8)]);
    good(&[("m", 5, 1, 6), ("w", 6, 3, 6), ("r", 5, 4, 5), ("r", 6, 7, 8)]);
    good(&[("m", 0, 1, 6), ("w", 0, 3, 6), ("w", 7, 2, 5), ("r", 0, 7, 8)]);
    bad(&[("m", 5, 1, 6), ("w", 6, 3, 6), ("r", 6, 7, 8), ("r", 5, 9, 10)]);
    bad(&[("m", 5, 1, 6), ("w", 6, 3, 6), ("w", 7, 8, 9), ("r", 5, 10, 11)]);
    bad(&[("m", 0, 1, 6), ("w", 0, 3, 6), ("w", 7, 8, 9), ("r", 0, 10, 11)]);
}

#[test]
fn a_stale_read_is_found() {
    bad(&[("w", 5, 1, 2), ("r", 0, 3, 4)]);
    bad(&[("w", 5, 1, 2), ("w", 6, 3, 4), ("r", 5, 5, 6)]);
    bad(&[("w", 5, 1, 8), ("r", 5, 2, 3), ("r", 0, 4, 5)]);
}

#[test]
fn a_lost_write_is_found() {
    bad(&[("w", 5, 1, 2), ("r", 5, 3, 4), ("r", 0, 5, 6)]);
    bad(&[("w", 5, 1, 2), ("w", 0, 3, 4), ("r", 5, 5, 6)]);
    bad(&[("w", 0, 1, 2), ("w", 5, 3, 4), ("r", 0, 5, 6)]);
    bad(&[("w", 5, 1, 2), ("w", 6, 1, 0), ("r", 0, 5, 6)]);
}

#[test]
fn a_value_from_nowhere_is_found() {
    bad(&[("w", 5, 1, 2), ("r", 7, 3, 4)]);
    bad(&[("w", 5, 1, 2), ("r", TORN, 3, 4)]);
    bad(&[("r", 5, 1, 2), ("w", 5, 3, 4)]);
}

#[test]
fn an_unacknowledged_value_that_comes_and_goes_is_found() {
    bad(&[("w", 5, 1, 2), ("w", 6, 3, 0), ("r", 6, 4, 5), ("r", 5, 6, 7), ("r", 6, 8, 9)]);
    bad(&[("w", 6, 3, 0), ("r", 6, 4, 5), ("r", 0, 6, 7)]);
    bad(&[("w", 5, 1, 2), ("w", 0, 3, 0), ("r", 0, 4, 5), ("r", 5, 6, 7)]);
}

#[test]
fn each_unanswered_zero_counts_once() {
    let mut list =
        vec![("w", 0, 1, 0), ("w", 5, 2, 3), ("r", 0, 4, 5), ("w", 6, 6, 7), ("r", 0, 8, 9)];
    bad(&list);
    list.push(("w", 0, 1, 0));
    good(&list);
    let last = list.last_mut().unwrap();
    *last = ("w", 0, 10, 0);
    bad(&list);
}

#[test]
fn long_histories_take_no_time() {
    // A dozen clients on one block for long, a third of the writes without an answer.
    let mut list = Vec::new();
    for round in 1..=2_000_u64 {
        let at = round * 100;
        for client in 0..6 {
            let end = if (round + client) % 3 == 0 { 0 } else { at + 50 + client };
            let tag = if (round + client) % 7 == 0 { 0 } else { round * 100 + client };
            list.push(("w", tag, at + client, end));
        }
        let known = list.iter().rev().find(|operation| operation.3 > 0).unwrap().1;
        list.push(("r", known, at + 60, at + 61));
    }
    let before = std::time::Instant::now();
    check_block(&history(&list)).unwrap();
    assert!(before.elapsed() < std::time::Duration::from_secs(10), "{:?}", before.elapsed());
}

/// The definition itself: some order of the operations, each at a moment between its start and its
/// end, in which every read sees the last write. Only for few operations.
fn try_every_order(operations: &[Operation]) -> bool {
    let answered = |operation: &&Operation| operation.end.is_some();
    let operations: Vec<_> = operations
        .iter()
        .map(|one| Operation { maybe: one.maybe || one.end.is_none(), ..*one })
        .collect();
    let reads_and_writes: Vec<_> = operations
        .iter()
        .filter(|operation| answered(operation) || matches!(operation.action, Action::Write(_)))
        .copied()
        .collect();
    extend(&reads_and_writes, &mut vec![false; reads_and_writes.len()], 0, 0)
}

/// `latest` is the last start of what has taken effect.
fn extend(operations: &[Operation], done: &mut Vec<bool>, value: Tag, latest: Moment) -> bool {
    let rest = || operations.iter().zip(done.iter()).filter(|(_, done)| !**done);
    if rest().all(|(operation, _)| operation.maybe) {
        return true;
    }
    // What ends first must not come after what begins later.
    let certain = rest().filter(|(operation, _)| !operation.maybe);
    let first_end = certain.filter_map(|(operation, _)| operation.end).min().unwrap();
    for index in 0..operations.len() {
        let Operation { action, start, end, .. } = operations[index];
        if done[index] || start > first_end || end.is_some_and(|end| end < latest) {
            continue;
        }
        let next = match action {
            Action::Write(tag) => tag,
            Action::Read(tag) if tag == value => value,
            Action::Read(_) => continue,
        };
        // Attempts to write zero count as often as needed.
        let zero = operations[index].maybe && action == Action::Write(0) && end.is_some();
        if zero && value == 0 {
            continue;
        }
        done[index] = !zero;
        let found = extend(operations, done, next, latest.max(start));
        done[index] = false;
        if found {
            return true;
        }
    }
    false
}

/// Histories of few operations; half of the time each written value is unique.
fn some_history() -> impl Strategy<Value = Vec<Operation>> {
    let one = (any::<bool>(), 0..5_u64, 1..30_u64, 1..12_u64, any::<bool>(), 0..5_u8);
    (proptest::collection::vec(one, 1..8), any::<bool>()).prop_map(|(list, unique)| {
        let mut moments = std::collections::BTreeSet::new();
        let mut moment = |wanted: u64| {
            let mut at = wanted * 16;
            while !moments.insert(at) {
                at += 1;
            }
            at
        };
        (1..)
            .zip(list)
            .map(|(number, (write, tag, start, length, zero, answered))| {
                let start_at = moment(start);
                let end = (answered > 0).then(|| moment(start + length));
                let action = match (write, unique && !zero) {
                    (true, true) => Action::Write(u64::from(number)),
                    (true, false) if tag > 2 => Action::Write(0),
                    (true, false) => Action::Write(u64::from(number)),
                    (false, _) => Action::Read(tag),
                };
                let maybe = answered == 4 && matches!(action, Action::Write(_));
                Operation { action, start: start_at, end, maybe, client: number }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_checkers_agree_with_the_definition(operations in some_history()) {
        let _ = check_all(&operations);
    }
}
