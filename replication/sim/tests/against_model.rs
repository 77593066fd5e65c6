//! Random operations, crashes and restarts, against a plain model: proptest looks for a short
//! sequence that breaks the store.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

#[allow(dead_code, reason = "shared with other tests")]
mod common;

use afs_sim::{Loss, SimRandom};
use afs_store::StoreError;
use common::{BLOCKS, Expected, Setup, Step, World, format_disk, recover};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Operation {
    Step(Step),
    Together(Vec<Step>),
    Compare,
    Close,
    Crash(Loss),
}

fn place() -> impl Strategy<Value = (u64, u64, u64)> {
    (1..=2_u64, 0..BLOCKS)
        .prop_flat_map(|(replica, lba)| (Just(replica), Just(lba), 1..=(BLOCKS - lba).min(9)))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => place().prop_map(|(replica, lba, blocks)| Step::Write { replica, lba, blocks }),
        2 => place().prop_map(|(replica, lba, blocks)| Step::Trim { replica, lba, blocks }),
        1 => (place(), any::<bool>()).prop_map(|((replica, lba, blocks), deallocate)| {
            Step::Zero { replica, lba, blocks, deallocate }
        }),
        1 => (1..=2_u64, 0..4_u64).prop_map(|(replica, step)| {
            Step::Generation { replica, step }
        }),
        1 => (1..=2_u64).prop_map(|replica| Step::Label { replica }),
        1 => (1..=2_u64, 1..=BLOCKS).prop_map(|(replica, blocks)| {
            Step::Resize { replica, blocks }
        }),
        1 => Just(Step::Checkpoint),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => step().prop_map(Operation::Step),
        3 => proptest::collection::vec(step(), 2..6).prop_map(Operation::Together),
        1 => Just(Operation::Compare),
        1 => Just(Operation::Close),
        1 => (0..Loss::ALL.len()).prop_map(|n| Operation::Crash(Loss::ALL[n])),
    ]
}

fn acceptable(result: Result<(), StoreError>) -> Result<(), String> {
    match result {
        Ok(()) | Err(StoreError::Full | StoreError::OutOfRange) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn run(operations: &[Operation], setup: &Setup) -> Result<(), String> {
    let mut world = World::open(setup, &format_disk(setup), Expected::default()).unwrap();
    world.create(1, BLOCKS);
    world.create(2, BLOCKS);
    let random = SimRandom::new(setup.seed);
    for operation in operations {
        match operation.clone() {
            Operation::Step(step) => {
                let handle = world.clone();
                acceptable(world.sim.run(async move { handle.step(step).await }).unwrap())?;
            }
            Operation::Together(steps) => {
                let handles = steps.into_iter().map(|step| (world.clone(), step));
                let all: Vec<_> =
                    handles.map(|(w, step)| async move { w.step(step).await }).collect();
                for result in world.sim.run(futures_util::future::join_all(all)).unwrap() {
                    acceptable(result)?;
                }
            }
            Operation::Compare => drop(world.compare()?),
            Operation::Close => {
                world.close();
                let image = world.disk.cut(Loss::All, &random);
                let expected = world.compare_closed(setup, &image)?;
                world.sim.kill();
                world = World::open(setup, &image, expected).map_err(|e| e.to_string())?;
                if !world.store.was_clean() {
                    return Err("a clean close left an unclean disk".into());
                }
            }
            Operation::Crash(loss) => {
                let image = world.disk.cut(loss, &random);
                let expected = world.expected_after_cut();
                world.sim.kill();
                let (recovered, found) = recover(setup, &image, expected)?;
                *recovered.expected.borrow_mut() = found;
                world = recovered;
            }
        }
        world.store.check_invariants()?;
    }
    world.compare()?;
    world.sim.kill();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_does_what_a_plain_model_does(
        operations in proptest::collection::vec(operation(), 1..40),
        seed in any::<u64>(),
        cache in any::<bool>(),
        tears in any::<bool>(),
    ) {
        let mut setup = Setup::new(seed);
        setup.disk.volatile_cache = cache;
        setup.disk.atomic = if tears { 512 } else { 4096 };
        prop_assert_eq!(run(&operations, &setup), Ok(()));
    }
}
