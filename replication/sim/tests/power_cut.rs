//! The power is cut after every single disk operation of small workloads, in several ways, and what
//! is found must be what may be found: every acknowledged write, and of the others each block old
//! or new.
//! The same for labels; and no chunk shows an earlier generation than what it holds
//! (`common/marks.rs`).
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "shared with other tests")]
mod common;

use common::{Depth, Setup, explore};

const DEPTH: Depth = Depth { second: 40, recovery: 40 };

fn run(setups: impl IntoIterator<Item = Setup>) {
    for setup in setups {
        match explore(&setup, DEPTH) {
            Ok(tried) => println!("seed {}: {tried:?}", setup.seed),
            Err(what) => panic!("{what}"),
        }
    }
}

/// A dozen workloads, or as many as `AFS_SIM_SEEDS` says.
fn seeds(first: u64) -> impl Iterator<Item = Setup> {
    let count = std::env::var("AFS_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    (first..first + count).map(Setup::new)
}

#[test]
fn a_power_cut_after_any_operation_loses_nothing_with_a_volatile_cache() {
    run(seeds(1));
}

#[test]
fn a_power_cut_after_any_operation_loses_nothing_without_a_cache() {
    run(seeds(10_000).map(|mut setup| {
        setup.disk.volatile_cache = false;
        setup
    }));
}

#[test]
fn a_power_cut_after_any_operation_loses_nothing_on_a_disk_that_tears_blocks() {
    run(seeds(20_000).map(|mut setup| {
        setup.disk.atomic = 512;
        setup
    }));
}

#[test]
fn a_power_cut_after_any_operation_loses_nothing_while_checkpoints_take_long() {
    run(seeds(30_000).take(6).map(|mut setup| {
        setup.disk.slow = (192 << 10, 6 * 4096);
        setup.clients = 6;
        setup.operations = 10;
        setup
    }));
}
