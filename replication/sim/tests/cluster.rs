//! Whole clusters, from seeds. A seed that fails is printed with the line that replays it:
//!
//! ```text
//! AFS_SIM_SEED=17 cargo test -p afs-sim --test cluster -- one_seed --nocapture
//! ```
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use afs_sim::cluster::{Failure, Report, Setup, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn explain(setup: &Setup, failure: &Failure) -> String {
    let seed = setup.seed;
    format!(
        "seed {seed}: {failure}\nreplay: AFS_SIM_SEED={seed} cargo test -p afs-sim --test cluster \
         -- one_seed --nocapture"
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

/// `AFS_SIM_SEEDS` seeds from `AFS_SIM_FIRST` on.
#[test]
fn many_seeds_keep_every_promise() {
    let count = number("AFS_SIM_SEEDS").unwrap_or(40);
    let first = number("AFS_SIM_FIRST").unwrap_or(1);
    let began = Instant::now();
    let mut sum = Report::default();
    let mut failed = Vec::new();
    for seed in first..first + count {
        let setup = Setup::new(seed);
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
}
