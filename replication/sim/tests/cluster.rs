//! Whole clusters, from seeds. A seed that fails is printed with the line that replays it:
//!
//! ```text
//! AFS_SIM_SEED=17 AFS_SIM_SECONDS=5040 cargo test -p afs-sim --test cluster -- one_seed --nocapture
//! ```
//!
//! `AFS_SIM_SEEDS` runs so many shorter ones, `AFS_SIM_FIRST` says from which one on.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use afs_sim::cluster::{Failure, Family, Report, Setup, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn explain(setup: &Setup, failure: &Failure) -> String {
    let (seed, seconds) = (setup.seed, setup.time.as_secs());
    format!(
        "seed {seed}: {failure}\nreplay: AFS_SIM_SEED={seed} AFS_SIM_SECONDS={seconds} cargo test \
         -p afs-sim --test cluster -- one_seed --nocapture"
    )
}

/// The seed of `AFS_SIM_SEED`, with everything that happened; without it the first one.
#[test]
fn one_seed_keeps_every_promise() {
    let seed = number("AFS_SIM_SEED");
    let mut setup = Setup::new(seed.unwrap_or(1));
    setup.trace = seed.is_some();
    setup.live = number("AFS_SIM_LIVE").is_some();
    if let Some(seconds) = number("AFS_SIM_SECONDS") {
        setup.time = Duration::from_secs(seconds);
    }
    println!("{setup:?}");
    match run(&setup) {
        Ok(report) => println!("{report}"),
        Err(failure) => {
            failure.trace.iter().for_each(|line| println!("{line}"));
            panic!("{}", explain(&setup, &failure));
        }
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in 1..4 {
        let mut setup = Setup::new(seed);
        setup.time = Duration::from_secs(100);
        let digests = [(); 3].map(|()| run(&setup).map_or(0, |report| report.digest));
        assert_eq!(digests, [digests[0]; 3], "seed {seed}");
    }
}

/// A node that is given a volume has most likely no connections to the volume's other nodes. That they are made slowly must not
/// be taken for a failure: neither of the new leader, which would lose the volume again, nor of a replica (DESIGN 5 rule 11).
#[test]
fn a_move_to_a_node_without_connections_is_not_taken_back() {
    let mut decisions = 0;
    for seed in 1..=30 {
        let report = run(&Setup::of_family(Family::Strangers, seed));
        let report = report.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        decisions += report.decisions;
        assert_eq!(report.replacements, 0, "seed {seed}: {report}");
    }
    // Each move is two, the move and the claim.
    assert!(decisions > 300, "{decisions}");
}

/// Seeds that each of the tests below takes: a hundred simulated hours and ten thousand faults in all. `AFS_SIM_SEEDS` says another
/// number, for all of them together.
const SEEDS: u64 = 20;
/// Hours of simulated time of each.
const HOURS: f64 = 1.4;

/// Seeds `part * SEEDS + 1` and on: parts, so that they run beside each other.
fn many_seeds(part: u64) {
    let (count, time) = match number("AFS_SIM_SEEDS") {
        Some(seeds) => (seeds.div_ceil(PARTS), Duration::from_secs(600)),
        None => (SEEDS, Duration::from_secs_f64(HOURS * 3600.0)),
    };
    let first = number("AFS_SIM_FIRST").unwrap_or(1) + part * count;
    let began = Instant::now();
    let mut sum = Report::default();
    let mut failed = Vec::new();
    for seed in first..first + count {
        let mut setup = Setup::new(seed);
        setup.time = number("AFS_SIM_SECONDS").map_or(time, Duration::from_secs);
        if number("AFS_SIM_LIVE").is_some() {
            eprintln!("seed {seed} begins after {:?}", began.elapsed());
        }
        match run(&setup) {
            Ok(report) => sum.add(&report),
            Err(failure) => {
                println!("{}", explain(&setup, &failure));
                failed.push(seed);
            }
        }
    }
    println!("{count} clusters, {sum}; {:?}", began.elapsed());
    assert!(failed.is_empty(), "seeds {failed:?}");
    if count == SEEDS && number("AFS_SIM_SECONDS").is_none() {
        assert!(sum.time.as_secs_f64() * PARTS as f64 >= 100.0 * 3600.0, "{sum}");
        assert!(sum.faults.total() * PARTS >= 10_000, "{sum}");
    }
}

macro_rules! parts {
    ($($number:literal: $test:ident)*) => {
        const PARTS: u64 = [$($number),*].len() as u64;
        $(#[test]
        fn $test() {
            many_seeds($number);
        })*
    };
}

parts! {
    0: many_seeds_keep_every_promise_1
    1: many_seeds_keep_every_promise_2
    2: many_seeds_keep_every_promise_3
    3: many_seeds_keep_every_promise_4
}
