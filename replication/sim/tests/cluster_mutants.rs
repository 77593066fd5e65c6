//! Planted bugs in the protocol and in the decisions: each one must be caught by some seed of the
//! clusters that keep every promise without it. So the checks can fail.
//!
//! No seed shows these yet, so the clusters say little about them; the model of the rules (`protocol_model`) breaks the rules
//! behind most of them: `AcceptOldEpoch`, `SealWithoutDrain`, `PromiseUnderLease`, `ReadWithoutLease`, `LeaseFromAnswer`,
//! `LeaseBeforeRead`, `ReadOverlap`, `WriteOverlap`, `ForgetFailed`, `WatermarkAhead`, `CommitEarly`, `CopyUnlocked`,
//! `NoLiveWrites`, `AdmitFailed`, `IgnoreTick` and the decisions' `AdmitWithoutLeader`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use afs_sim::cluster::{Setup, run};

/// Seeds that are tried for each bug.
const SEEDS: u64 = 150;

fn seeds() -> u64 {
    std::env::var("AFS_SIM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(SEEDS)
}

/// Looks for a seed that shows the bug that was planted.
fn assert_caught(name: &str) {
    for seed in 1..=seeds() {
        let mut setup = Setup::new(seed);
        setup.time = Duration::from_secs(150);
        match catch_unwind(AssertUnwindSafe(|| run(&setup))) {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => {
                let what: String = failure.to_string().chars().take(160).collect();
                return println!("{name}: seed {seed}: {what}");
            }
            Err(_) => return println!("{name}: panic, seed {seed}"),
        }
    }
    panic!("{name} was not caught");
}

/// What is caught is the bug, not the cluster.
#[test]
fn without_a_bug_the_same_seeds_keep_every_promise() {
    for seed in 1..=60 {
        let mut setup = Setup::new(seed);
        setup.time = Duration::from_secs(150);
        if let Err(failure) = run(&setup) {
            panic!("seed {seed}: {failure}");
        }
    }
}

macro_rules! caught {
    ($from:ident: $($test:ident: $mutant:ident;)*) => {
        $(#[test]
        fn $test() {
            $from::plant(Some($from::Mutant::$mutant));
            assert_caught(stringify!($mutant));
        })*
    };
}

caught! { afs_volume:
    rule_1_acknowledging_after_one_replica_is_caught: AcknowledgeAfterOne;
    rule_2_acknowledging_before_the_drop_is_caught: AcknowledgeBeforeDrop;
    rule_3_serving_after_one_promise_is_caught: ServeAfterOnePromise;
    rule_3_promising_in_memory_is_caught: PromiseInMemory;
    rule_6_skipping_the_equalising_is_caught: SkipEqualise;
    rule_7_keeping_the_list_over_a_restart_is_caught: RestartKeepsList;
    rule_7_skipping_the_last_generations_is_caught: SkipGenerations;
    rule_8_asking_one_side_only_is_caught: OneSidedResync;
}

caught! { afs_decisions:
    an_election_that_keeps_the_epoch_is_caught: ElectKeepsEpoch;
    an_election_that_drops_too_many_is_caught: ElectDropsBelowMin;
    dropping_the_last_replicas_is_caught: DropLast;
    a_claim_that_keeps_the_epoch_is_caught: ClaimKeepsEpoch;
}
