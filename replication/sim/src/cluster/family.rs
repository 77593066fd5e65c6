//! Clusters that press on one rule each. In the clusters of [`Setup::new`] everything happens, and so each rule is needed now and
//! then only; here the times, the sizes and the faults are such that a broken rule shows within seconds. They prove that the
//! checks can fail, and press on the code that keeps the rule.
//!
//! What the families have in common: one small volume; few blocks, so that reads and writes meet; hosts that die, so that what
//! they left behind is not overwritten by their next attempt; no zeroes, which cannot be told from each other.

use std::time::Duration;

use afs_volume::Params;

use super::host::HostSetup;
use super::setup::{Faults, Setup, pick};
use crate::disk::DiskConfig;
use crate::net::NetConfig;
use crate::random::SimRandom;

/// What a cluster presses on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Nothing: everything happens, as in [`Setup::new`], for a shorter time.
    Anything,
    /// No replica may be dropped, so each failure is a new epoch with the same replicas, while messages and disks are slow: what
    /// is left of an epoch meets the next one (rules 2, 3, 5).
    Stubborn,
    /// Leaders lose their peers, not their hosts, and are replaced at once, while answers and disks take their time (rules 4, 5).
    Isolated,
    /// Hosts are told soon that their writes failed, and replicas are dropped (rule 6).
    Impatient,
    /// Leaders are replaced with writes under way, and the replicas live on with their lists (rule 6).
    Survivors,
    /// The same, and volumes come back to a leader that has not learned that another one led meanwhile (rule 10).
    Returns,
    /// Leaders and replicas die with writes under way (rules 6 and 7).
    Orphans,
    /// The same with short generations (rule 8).
    Generations,
    /// Disks lose the record of a replica (rule 7).
    Forgetful,
    /// Replicas leave and come back all the time under writes (rule 8).
    Learners,
    /// The same, with messages that are late by more than an attempt to bring a replica back, which takes long (rules 8, 10).
    Ghosts,
    /// Nodes take long to connect to each other, and nothing else happens but that volumes are moved (rule 11).
    Strangers,
    /// The same while they die and lose their connections (rules 2 and 11).
    ColdStarts,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 13] = [
        Family::Anything,
        Family::Stubborn,
        Family::Isolated,
        Family::Impatient,
        Family::Survivors,
        Family::Returns,
        Family::Orphans,
        Family::Generations,
        Family::Forgetful,
        Family::Learners,
        Family::Ghosts,
        Family::Strangers,
        Family::ColdStarts,
    ];
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn faults(kinds: &[&'static str], pause: u64, time_max: u64) -> Option<Faults> {
    Some(Faults { kinds: kinds.to_vec(), pause: ms(pause), time_max: ms(time_max) })
}

fn latency(spread: u64) -> NetConfig {
    NetConfig { latency_spread: ms(spread), ..NetConfig::default() }
}

/// Two connections in three are slower than a promise is waited for.
fn strangers() -> NetConfig {
    NetConfig { connect_max: ms(1_500), ..NetConfig::default() }
}

/// Three hosts: one that mostly reads, one that does both, one that mostly writes.
fn hosts(lanes: usize, pause: u64, spread: u64, reads: [usize; 3]) -> Vec<HostSetup> {
    let host = |reads| HostSetup {
        lanes,
        pause: ms(pause),
        path_timeout: ms(300),
        patience: ms(10_000_000),
        blocks_max: 2,
        spread,
        reads,
        writes: 100 - reads,
    };
    reads.map(host).into()
}

const MIXED: [usize; 3] = [90, 50, 10];

impl Setup {
    /// Draws a cluster of a family.
    pub fn of_family(family: Family, seed: u64) -> Setup {
        let random = SimRandom::new(seed ^ 0x0fa3_11e5);
        let base = Setup::small(&random, seed);
        let params = base.params;
        match family {
            Family::Anything => Setup { time: Duration::from_secs(150), ..Setup::new(seed) },
            Family::Stubborn => Setup {
                replicas: 2,
                min_in_sync: 2,
                net: latency(1),
                params: Params { answer: ms(pick(&random, &[100, 150], 150)), ..params },
                hosts: hosts(4, 30, 16, MIXED),
                faults: faults(&["late messages", "slow disk", "reset", "host killed"], 300, 1_500),
                ..base
            },
            Family::Isolated => Setup {
                replicas: pick(&random, &[2, 3], 3),
                min_in_sync: 1,
                net: latency(1),
                drift_max: pick(&random, &[200, 20_000], 200),
                params: Params { answer: ms(1_500), tick_age: ms(250), ..params },
                hosts: hosts(6, 15, 16, [97, 95, 85]),
                faults: faults(
                    &["isolated", "slow disk", "slow path"],
                    pick(&random, &[500, 1_000], 500),
                    3_000,
                ),
                ..base
            },
            Family::Impatient => Setup {
                min_in_sync: 1,
                net: latency(20),
                params: Params { patience: ms(60), answer: ms(60), ..params },
                hosts: hosts(6, 10, 16, MIXED),
                faults: faults(&["reset", "one-way cut", "host killed"], 150, 400),
                ..base
            },
            Family::Survivors => Setup {
                net: latency(60),
                hosts: hosts(6, 10, 16, MIXED),
                faults: faults(&["isolated", "host killed"], 500, 1_500),
                ..base
            },
            Family::Returns => Setup {
                net: latency(60),
                hosts: hosts(6, 10, 16, MIXED),
                faults: faults(
                    &["isolated", "false death", "leader moved", "host killed"],
                    300,
                    1_500,
                ),
                ..base
            },
            Family::Orphans | Family::Generations => Setup {
                net: latency(pick(&random, &[1, 20, 100], 20)),
                params: match family {
                    Family::Generations => {
                        Params { generation: ms(60), generation_writes: 3, ..params }
                    }
                    _ => params,
                },
                hosts: hosts(3, 20, 16, MIXED),
                faults: faults(&["one-way cut", "kill", "isolated", "host killed"], 150, 900),
                ..base
            },
            Family::Forgetful => Setup {
                min_in_sync: pick(&random, &[1, 2], 2),
                hosts: hosts(2, 60, 16, MIXED),
                faults: faults(&["record lost", "leader moved"], 1_500, 1_500),
                ..base
            },
            Family::Learners => Setup {
                net: latency(pick(&random, &[5, 20, 40], 20)),
                params: Params {
                    answer: ms(150),
                    tick_age: ms(250),
                    learner_pause: ms(320),
                    ..params
                },
                hosts: hosts(3, 20, 16, MIXED),
                faults: faults(
                    &["reset", "sick database", "one-way cut", "false death", "host killed"],
                    400,
                    800,
                ),
                ..base
            },
            Family::Ghosts => Setup {
                net: latency(40),
                params: Params {
                    answer: ms(250),
                    tick_age: ms(250),
                    learner_pause: ms(320),
                    ..params
                },
                hosts: hosts(3, 20, 16, MIXED),
                faults: faults(&["late messages"], 600, 3_000),
                ..base
            },
            Family::Strangers => Setup {
                replicas: pick(&random, &[2, 3], 3),
                min_in_sync: 1,
                net: strangers(),
                hosts: hosts(2, 20, 16, MIXED),
                faults: faults(&["leader moved"], 2_000, 1_000),
                ..base
            },
            Family::ColdStarts => Setup {
                replicas: pick(&random, &[2, 3], 3),
                min_in_sync: pick(&random, &[1, 2], 2),
                net: strangers(),
                hosts: hosts(2, 20, 16, MIXED),
                faults: faults(
                    &["leader moved", "kill", "reset", "isolated", "host killed"],
                    2_000,
                    2_000,
                ),
                ..base
            },
        }
    }

    /// One small volume on three machines.
    fn small(random: &SimRandom, seed: u64) -> Setup {
        let (shard_blocks, chunk_bytes, journal_bytes) = (16, 16 << 10, 64 << 10);
        let disk = DiskConfig {
            size: (2 << 20) + journal_bytes + shard_blocks * 4 * 4096 + 16 * u64::from(chunk_bytes),
            atomic: 4096,
            volatile_cache: random.chance(30),
            slow: (0, 0),
        };
        Setup {
            machines: 3,
            volumes: 1,
            replicas: 3,
            min_in_sync: 2,
            shards: 1,
            shard_blocks,
            chunk_bytes,
            journal_bytes,
            disk,
            net: NetConfig::default(),
            drift_max: 200,
            params: Params { generation: Duration::from_secs(5), window: 64, ..Params::default() },
            time: Duration::from_secs(30),
            ..Setup::new(seed)
        }
    }
}
