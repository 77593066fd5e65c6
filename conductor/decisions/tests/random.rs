//! Random sequences of decisions, by leaders of now and of long ago, with views that are often
//! wrong: every invariant holds after each step. With bugs planted they do not.

#![allow(clippy::unwrap_used)]

mod common;

use afs_decisions::*;
use common::{alive, new_volume};
use proptest::prelude::*;
use uuid::Uuid;

const NODES: u32 = 6;

#[derive(Clone, Debug)]
enum Do {
    /// Node 0 stands for the leader.
    Claim {
        node: u32,
        process: u64,
    },
    Renew {
        past: usize,
    },
    Drop {
        past: usize,
        shard: u32,
        member: usize,
    },
    Admit {
        past: usize,
        shard: u32,
        member: usize,
    },
    Elect,
    Move {
        to: u32,
    },
    Add {
        shard: u32,
        node: u32,
    },
    Remove {
        shard: u32,
        member: usize,
    },
    Force {
        shard: u32,
        member: usize,
    },
    Min {
        min: u8,
    },
    Grow {
        nodes: Vec<u32>,
    },
    Alive {
        node: u32,
        alive: bool,
    },
    Unreachable {
        node: u32,
        peer: u32,
    },
    Later {
        ms: u64,
    },
    Relocate {
        shard: u32,
        member: usize,
        to: u32,
    },
}

fn step() -> impl Strategy<Value = Do> {
    let node = || 1..=NODES;
    // 0 is now; more is a state of earlier, whose leader speaks late.
    let past = || prop_oneof![3 => Just(0usize), 1 => 1usize..6];
    let member = || 0usize..4;
    prop_oneof![
        8 => (prop_oneof![3 => Just(0), 1 => node()], 0u64..4).prop_map(|(node, process)| Do::Claim { node, process }),
        2 => past().prop_map(|past| Do::Renew { past }),
        6 => (past(), 0u32..3, member())
            .prop_map(|(past, shard, member)| Do::Drop { past, shard, member }),
        6 => (past(), 0u32..3, member())
            .prop_map(|(past, shard, member)| Do::Admit { past, shard, member }),
        4 => Just(Do::Elect),
        2 => node().prop_map(|to| Do::Move { to }),
        3 => (0u32..3, node()).prop_map(|(shard, node)| Do::Add { shard, node }),
        2 => (0u32..3, member()).prop_map(|(shard, member)| Do::Remove { shard, member }),
        1 => (0u32..3, member()).prop_map(|(shard, member)| Do::Force { shard, member }),
        1 => (0u8..5).prop_map(|min| Do::Min { min }),
        1 => prop::collection::vec(node(), 1..4).prop_map(|nodes| Do::Grow { nodes }),
        1 => (0u32..3, member(), node())
            .prop_map(|(shard, member, to)| Do::Relocate { shard, member, to }),
        6 => (node(), any::<bool>()).prop_map(|(node, alive)| Do::Alive { node, alive }),
        4 => (node(), node()).prop_map(|(node, peer)| Do::Unreachable { node, peer }),
        1 => (0u64..20_000).prop_map(|ms| Do::Later { ms }),
    ]
}

struct World {
    history: Vec<VolumeConfig>,
    view: ClusterView,
    now_ms: u64,
    last_replica: u128,
}

impl World {
    fn now(&self) -> &VolumeConfig {
        self.history.last().unwrap()
    }

    fn asker(&self, past: usize) -> Asker {
        let then = &self.history[self.history.len().saturating_sub(past + 1)];
        let node = then.leader.unwrap_or_default();
        Asker { node, process: then.leader_process, epoch: then.epoch }
    }

    fn replica(&self, shard: u32, member: usize) -> Uuid {
        let shard = self.now().shards.get(shard as usize);
        let member = shard.and_then(|shard| shard.members.get(member));
        member.map_or(Uuid::from_u128(3), |member| member.replica)
    }

    fn place(&mut self, node: u32) -> Place {
        self.last_replica += 1;
        Place { replica: Uuid::from_u128(self.last_replica), node: NodeId(node) }
    }

    fn claim(&self, node: u32, process: u64) -> Result<Claim, Denied> {
        let leader = self.now().leader.unwrap_or_default();
        claim(self.now(), if node == 0 { leader } else { NodeId(node) }, process)
    }

    fn decide(&mut self, step: &Do) -> Option<(Result<VolumeConfig, Denied>, Step)> {
        let config = self.now().clone();
        let view = self.view.clone();
        Some(match step {
            Do::Claim { node, process } => match self.claim(*node, *process) {
                Ok(Claim::New(next)) => (Ok(next), Step::Other),
                Ok(Claim::AlreadyYours) => return None,
                Err(denied) => (Err(denied), Step::Other),
            },
            Do::Renew { past } => (renew(&config, self.asker(*past)), Step::Other),
            Do::Drop { past, shard, member } => {
                let replica = self.replica(*shard, *member);
                let dropped = drop_member(&config, self.asker(*past), *shard, replica, &view);
                (dropped, Step::Other)
            }
            Do::Admit { past, shard, member } => {
                let replica = self.replica(*shard, *member);
                (admit(&config, self.asker(*past), *shard, replica), Step::Admit)
            }
            Do::Elect => (elect(&config, &view), Step::Other),
            Do::Move { to } => (move_leader(&config, NodeId(*to), &view), Step::Other),
            Do::Add { shard, node } => {
                let place = self.place(*node);
                (add_member(&config, *shard, place), Step::Other)
            }
            Do::Remove { shard, member } => {
                let replica = self.replica(*shard, *member);
                (remove_member(&config, *shard, replica), Step::Other)
            }
            Do::Force { shard, member } => {
                let replica = self.replica(*shard, *member);
                (force_in_sync(&config, *shard, replica, &view), Step::Force)
            }
            Do::Min { min } => (set_min_in_sync(&config, *min), Step::Other),
            Do::Grow { nodes } => {
                let places = nodes.iter().map(|node| self.place(*node)).collect();
                (grow(&config, config.blocks + 100, &[places]), Step::Grow)
            }
            Do::Relocate { shard, member, to } => {
                let replica = self.replica(*shard, *member);
                (relocate(&config, replica, NodeId(*to)), Step::Relocate)
            }
            Do::Alive { node, alive } => {
                self.view.set_alive(NodeId(*node), *alive);
                return None;
            }
            Do::Unreachable { node, peer } => {
                self.view.add_unreachable(NodeId(*node), NodeId(*peer));
                return None;
            }
            Do::Later { ms } => {
                self.now_ms += ms;
                self.view.set_now_ms(self.now_ms);
                return None;
            }
        })
    }

    /// Who was believed must have been the leader of now; that is judged here once more, from the
    /// outside.
    fn check_believed(&self, step: &Do) -> Result<(), String> {
        let (Do::Renew { past } | Do::Drop { past, .. } | Do::Admit { past, .. }) = step else {
            return Ok(());
        };
        let asker = self.asker(*past);
        if self.now().is_led_by(asker.node, asker.process, asker.epoch) {
            return Ok(());
        }
        Err(format!("{asker:?} was believed"))
    }

    fn run(&mut self, step: &Do) -> Result<(), String> {
        let Some((Ok(next), kind)) = self.decide(step) else { return Ok(()) };
        self.check_believed(step)?;
        if let Do::Drop { past, shard, member } = step {
            let (accuser, replica) = (self.asker(*past).node, self.replica(*shard, *member));
            let accused = self.now().shards[*shard as usize].member(replica).unwrap().node;
            let gone = |node| !self.view.is_alive(node);
            if gone(accuser) && !gone(accused) {
                return Err(format!("{accuser} was believed against {accused}"));
            }
        }
        check_step(self.now(), &next, kind).map_err(|broken| broken.to_string())?;
        self.history.push(next);
        Ok(())
    }
}

fn world(min: u8) -> World {
    let view = alive(NODES);
    let config = create(&new_volume(&[&[1, 2, 3], &[2, 3, 4]], min), &view).unwrap();
    World { history: vec![config], view, now_ms: 0, last_replica: 1 << 64 }
}

fn run(min: u8, steps: &[Do]) -> Result<usize, String> {
    let mut world = world(min);
    for step in steps {
        world.run(step).map_err(|broken| format!("{broken} after {step:?}"))?;
    }
    Ok(world.history.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_decisions_keeps_every_invariant(
        min in 1u8..=3,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        prop_assert!(run(min, &steps).is_ok(), "{:?}", run(min, &steps));
    }
}

/// Runs many random sequences with a bug planted; says what the first failing one broke.
#[cfg(feature = "mutants")]
fn hunt(mutant: Mutant) -> Option<String> {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(step(), 1..120);
    (1..=3u8).cycle().take(3000).find_map(|min| {
        let steps = strategy.new_tree(&mut runner).unwrap().current();
        plant(Some(mutant));
        let broken = run(min, &steps).err();
        plant(None);
        broken
    })
}

#[cfg(feature = "mutants")]
#[test]
fn each_planted_bug_is_found() {
    for mutant in Mutant::ALL {
        let broken = hunt(mutant);
        assert!(broken.is_some(), "{mutant:?} was not found");
        println!("{mutant:?}: {}", broken.unwrap());
    }
}

#[test]
fn random_sequences_do_get_somewhere() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(step(), 100);
    let decided = (0..100).map(|_| run(2, &strategy.new_tree(&mut runner).unwrap().current()));
    let decided: usize = decided.map(Result::unwrap).sum();
    println!("of 10000 random steps {decided} were decisions");
    assert!(decided > 1500, "{decided}");
}
