//! Planted bugs: each one must be caught by the same exploration that passes without it. So the
//! power-cut tests can fail.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "shared with other tests")]
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use afs_store::{Mutant, plant};
use common::{Depth, Setup, crowded_step, explore};

const DEPTH: Depth = Depth { second: 10, recovery: 10 };

/// Plants the bug and looks for a seed that shows it.
fn assert_caught(mutant: Mutant, adjust: impl Fn(&mut Setup)) {
    plant(Some(mutant));
    for seed in 1..60 {
        let mut setup = Setup::new(seed);
        adjust(&mut setup);
        let outcome = catch_unwind(AssertUnwindSafe(|| explore(&setup, DEPTH)));
        match outcome {
            Ok(Ok(_)) => {}
            Ok(Err(what)) => return println!("{mutant:?}: {what}"),
            Err(_) => return println!("{mutant:?}: panic, seed {seed}"),
        }
    }
    panic!("{mutant:?} was not caught");
}

macro_rules! caught {
    ($($test:ident: $mutant:ident;)*) => {
        $(#[test]
        fn $test() {
            assert_caught(Mutant::$mutant, |_| {});
        })*
    };
}

caught! {
    acknowledging_before_the_sync_is_caught: AcknowledgeBeforeSync;
    acknowledging_before_the_journal_is_caught: AcknowledgeBeforeJournal;
    reusing_a_chunk_before_its_release_is_durable_is_caught: ReuseBeforeDurable;
    replaying_without_checksums_is_caught: IgnoreChecksums;
    forgetting_what_replay_refused_is_caught: ForgetRefused;
    overwriting_without_a_barrier_is_caught: SkipBarrier;
    writing_the_checkpoint_over_the_current_copy_is_caught: CheckpointInPlace;
    taking_a_whole_chunk_for_data_is_caught: WholeChunkIsData;
    sending_an_overwrite_beside_its_stamp_is_caught: StampBesideOverwrite;
    clearing_without_a_stamp_is_caught: ClearWithoutStamp;
    acknowledging_a_label_early_is_caught: AcknowledgeLabelEarly;
    leaving_labels_out_of_a_checkpoint_is_caught: CheckpointWithoutLabels;
}

#[test]
fn overwriting_in_place_on_a_disk_that_tears_is_caught() {
    assert_caught(Mutant::TearOverwrites, |setup| setup.disk.atomic = 512);
}

/// Needs several groups under way, some of them lost.
#[test]
fn keeping_the_torn_tail_is_caught() {
    assert_caught(Mutant::KeepTornTail, |setup| setup.clients = 8);
}

/// Needs three operations on one block in a rare order.
#[test]
fn clearing_under_an_overwrite_is_caught() {
    assert_caught(Mutant::ClearDuringOverwrite, |setup| setup.draw = crowded_step);
}

#[test]
fn cutting_the_journal_too_early_is_caught() {
    assert_caught(Mutant::CutEarly, slow_tables);
}

/// Checkpoints take long, while the journal goes round.
fn slow_tables(setup: &mut Setup) {
    setup.disk.slow = (192 << 10, 6 * 4096);
    setup.clients = 6;
    setup.operations = 10;
}
