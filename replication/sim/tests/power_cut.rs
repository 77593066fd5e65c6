//! The power is cut after every single disk operation of small workloads, in several ways, and what is found must be what may be
//! found: every acknowledged write, and of the others each block old or new.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

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

fn seeds(first: u64) -> impl Iterator<Item = Setup> {
    (first..first + 6).map(Setup::new)
}

#[test]
fn a_power_cut_after_any_operation_loses_nothing_with_a_volatile_cache() {
    run(seeds(1));
}

#[test]
fn a_power_cut_after_any_operation_loses_nothing_without_a_cache() {
    run(seeds(100).map(|mut setup| {
        setup.disk.volatile_cache = false;
        setup
    }));
}

#[test]
fn a_power_cut_after_any_operation_loses_nothing_on_a_disk_that_tears_blocks() {
    run(seeds(200).map(|mut setup| {
        setup.disk.atomic = 512;
        setup
    }));
}
