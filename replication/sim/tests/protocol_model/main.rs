//! The rules of epochs, leases, in-sync sets and resync, without any code that carries them out:
//! every state of a few small worlds is visited.
//!
//! A world has two or three replicas and one or two writes; everything else is without limit:
//! elections (at any moment, dropping anyone), two leaders alive at once, leaders that die or pause
//! between any two steps, restarts of replicas, messages that are late or lost. A message that is
//! never delivered and a leader that does nothing for ever are what loss and death are.
//!
//! What is left out: a third leader alive at the same time, disks that lose what was durable, and
//! clocks: a lease is over at its holder before it is at the replica that granted it.
//!
//! - [`state`], [`settle`]: a state, and which states are one; [`steps`], [`changes`]: what can
//!   happen and what comes of it; [`rules`]: worlds, and the rules that mutants lack.
//! - [`ghost`]: what hosts may see; [`properties`]: what must hold in every state; [`calm`]: what
//!   must come of every state once nothing fails.
//! - [`explore`]: the search; [`trace`]: a way to a state in words.
//!
//! `AFS_MODEL_LARGE=1` visits larger worlds too (minutes, up to a GiB). `AFS_MODEL_HOSTS=1` looks for
//! what a host would notice of each mutant, where else the first broken property will do.
#![allow(clippy::cast_possible_truncation, missing_docs)]

mod calm;
mod changes;
mod explore;
mod ghost;
mod properties;
mod rules;
mod settle;
mod state;
mod steps;
mod trace;

use std::time::Instant;

use explore::{Outcome, explore};
use rules::{Mutant, World, free, write};

/// One state of so many is asked whether all comes right after it.
const CALM_OF: u64 = 64;

/// Two overwrites of one block.
const TWICE: &[rules::Write] = &[write(0), write(0)];
/// One of each of two blocks.
const APART: &[rules::Write] = &[write(0), write(1)];
/// A block is written and freed.
const FREED: &[rules::Write] = &[write(0), free(0)];

const THREE: World = World::THREE;
const TWO: World = World { replicas: 2, min_in_sync: 1, ..THREE };

fn run(world: &World) -> Outcome {
    let start = Instant::now();
    let comes_right = world.mutant.is_none_or(|mutant| mutant == Mutant::LeaseNeverEnds);
    let outcome = explore(world, |state| {
        let asked = comes_right && state.fingerprint().is_multiple_of(CALM_OF);
        asked.then(|| calm::stuck(world, state)).flatten()
    });
    let Outcome { states, steps, depth, .. } = outcome;
    let seconds = start.elapsed().as_secs_f64();
    println!("{states} states, {steps} steps, depth {depth}, {seconds:.1} s");
    outcome
}

fn holds(name: &str, world: &World) {
    print!("{name}: ");
    if let Some((what, trace)) = run(world).broken {
        panic!("{name}: {what}\n{}", trace.join("\n"));
    }
}

fn caught(mutant: Mutant, world: World) {
    let hosts_only = std::env::var_os("AFS_MODEL_HOSTS").is_some();
    print!("{mutant:?}: ");
    let Some((what, trace)) = run(&World { mutant: Some(mutant), hosts_only, ..world }).broken
    else {
        panic!("{mutant:?} was not caught")
    };
    println!("  {what}");
    trace.iter().for_each(|line| println!("    {line}"));
}

macro_rules! worlds {
    ($($test:ident: $world:expr;)*) => {
        $(#[test]
        fn $test() {
            holds(stringify!($test), &$world);
        })*
    };
}

macro_rules! larger_worlds {
    ($($test:ident: $world:expr;)*) => {
        $(#[test]
        fn $test() {
            if std::env::var_os("AFS_MODEL_LARGE").is_some() {
                holds(stringify!($test), &$world);
            }
        })*
    };
}

macro_rules! mutants {
    ($($test:ident: $mutant:ident in $world:expr;)*) => {
        $(#[test]
        fn $test() {
            caught(Mutant::$mutant, $world);
        })*
    };
}

worlds! {
    three_replicas: World { writes: TWICE, ..THREE };
    three_replicas_and_leases: World { lapse: true, ..THREE };
    three_replicas_and_renewal: World { renew: true, ..THREE };
    three_replicas_and_slow_reads: World { slow_reads: true, ..THREE };
    three_replicas_and_resync: World { resync: true, ..THREE };
    two_replicas_and_resync: World { resync: true, writes: TWICE, ..TWO };
    two_replicas_and_all_but_watermarks:
        World { resync: true, lapse: true, renew: true, slow_reads: true, ..TWO };
    two_replicas_resync_and_watermarks: World { resync: true, watermarks: true, ..TWO };
    two_replicas_thin:
        World { watermarks: true, short_generations: true, thin: true, writes: FREED, ..TWO };
    two_replicas_two_blocks: World { min_in_sync: 2, writes: APART, ..TWO };
}

mutants! {
    drop_after_acknowledging: DropAfterAcknowledging in THREE;
    sent_twice: SentTwice in World { writes: TWICE, ..TWO };
    restart_keeps_epoch: RestartKeepsEpoch in THREE;
    no_sealing: NoSealing in THREE;
    promise_not_durable: PromiseNotDurable in THREE;
    promise_despite_lease: PromiseDespiteLease in THREE;
    restart_forgets_lease: RestartForgetsLease in THREE;
    lease_never_ends: LeaseNeverEnds in World { lapse: true, ..TWO };
    no_lease_check: NoLeaseCheck in THREE;
    lease_checked_first: LeaseCheckedFirst in World { slow_reads: true, ..TWO };
    reads_from_learner: ReadsFromLearner in World { resync: true, ..THREE };
    no_equalising: NoEqualising in THREE;
    restart_unnoticed: RestartUnnoticed in THREE;
    continuous_from_sealing: ContinuousFromSealing in THREE;
    stand_in: StandIn in THREE;
    answers_outlive_reign: AnswersOutliveReign in World { renew: true, ..THREE };
    stamp_after_data: StampAfterData in World { watermarks: true, ..TWO };
    open_generation_committed: OpenGenerationCommitted in World { watermarks: true, ..TWO };
    writes_under_way_committed: WritesUnderWayCommitted in World { watermarks: true, ..THREE };
    learner_takes_watermark: LearnerTakesWatermark in World { resync: true, watermarks: true, ..TWO };
    learner_lacks_live_writes: LearnerLacksLiveWrites in World { resync: true, ..THREE };
    learner_lacks_earlier_writes: LearnerLacksEarlierWrites in World { resync: true, watermarks: true, ..TWO };
    admitted_unfinished: AdmittedUnfinished in World { resync: true, ..THREE };
    attempts_share_fence: AttemptsShareFence in World { resync: true, writes: TWICE, ..TWO };
    admission_forgotten: AdmissionForgotten in World { resync: true, ..THREE };
    admission_needs_no_lease: AdmissionNeedsNoLease in World { resync: true, ..TWO };
}

larger_worlds! {
    large_all_but_watermarks: World {
        resync: true,
        renew: true,
        slow_reads: true,
        lapse: true,
        writes: TWICE,
        ..TWO
    };
    large_short_generations:
        World { resync: true, watermarks: true, short_generations: true, ..TWO };
    large_two_writes: World { resync: true, watermarks: true, writes: TWICE, ..TWO };
    large_freed: World { resync: true, watermarks: true, thin: true, writes: FREED, ..TWO };
    large_two_blocks: World { min_in_sync: 2, watermarks: true, writes: APART, ..TWO };
    large_two_blocks_and_resync: World { resync: true, writes: APART, ..TWO };
    large_three_replicas_and_watermarks: World { watermarks: true, ..THREE };
    large_three_replicas_one_may_be_left: World { resync: true, min_in_sync: 1, ..THREE };
    large_three_replicas_and_resync: World { resync: true, writes: TWICE, ..THREE };
}
