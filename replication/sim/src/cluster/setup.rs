//! What a cluster is like, drawn from its seed: so that many sizes and habits are tried.

use std::time::Duration;

use afs_env::Random;
use afs_volume::Params;

use super::host::HostSetup;
use crate::clock::Drift;
use crate::disk::DiskConfig;
use crate::net::NetConfig;
use crate::random::SimRandom;

/// Milliseconds between two operations of a host's lane, mostly. Few hosts are busy: what they do in vain costs most of a run's
/// time, and faults are met as well by those that ask now and then.
const PAUSES: [u64; 8] = [100, 300, 300, 1_000, 1_000, 3_000, 3_000, 3_000];

/// A cluster and its run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What everything is drawn from.
    pub seed: u64,
    /// Nodes.
    pub machines: usize,
    /// Volumes.
    pub volumes: usize,
    /// Replicas of each shard.
    pub replicas: usize,
    /// In-sync replicas without which writes stall.
    pub min_in_sync: u8,
    /// Shards of each volume.
    pub shards: usize,
    /// Blocks of each shard.
    pub shard_blocks: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
    /// Bytes of a journal.
    pub journal_bytes: u64,
    /// The disks.
    pub disk: DiskConfig,
    /// The network.
    pub net: NetConfig,
    /// How much faster or slower a machine's clock may go, in parts per million.
    pub drift_max: i32,
    /// The protocol's times.
    pub params: Params,
    /// The hosts.
    pub hosts: Vec<HostSetup>,
    /// How long faults happen.
    pub time: Duration,
    /// Only these faults; `None`: as the seed draws them.
    pub faults: Option<Faults>,
    /// Keep a trace.
    pub trace: bool,
    /// Print it as it comes.
    pub live: bool,
}

/// Faults of some kinds.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Which ones.
    pub kinds: Vec<&'static str>,
    /// The usual time between two.
    pub pause: Duration,
    /// The longest that one lasts.
    pub time_max: Duration,
}

pub(super) fn pick<T: Copy>(random: &SimRandom, list: &[T], otherwise: T) -> T {
    list.get(random.below(list.len())).copied().unwrap_or(otherwise)
}

impl Setup {
    /// Draws a cluster.
    pub fn new(seed: u64) -> Setup {
        let random = SimRandom::new(seed ^ 0x5e70_9b1d);
        let machines = 3 + random.below(3);
        let replicas = pick(&random, &[2, 3, 3, 3], 3);
        let min_in_sync = match replicas {
            2 => pick(&random, &[1, 1, 2], 1),
            _ => pick(&random, &[2, 2, 2, 1], 2),
        };
        let (volumes, shards) = (1 + random.below(2), 1 + random.below(2));
        let shard_blocks = pick(&random, &[16, 40, 64], 40);
        let chunk_bytes = pick(&random, &[16 << 10, 32 << 10], 16 << 10);
        let journal_bytes = pick(&random, &[64 << 10, 256 << 10], 64 << 10);
        let per_machine = volumes as u64 * shards as u64 * shard_blocks * 4096;
        let disk = DiskConfig {
            size: (2 << 20) + journal_bytes + per_machine + 16 * u64::from(chunk_bytes),
            atomic: pick(&random, &[4096, 4096, 512], 4096),
            volatile_cache: random.chance(60),
            slow: (0, 0),
        };
        let hosts = (0..1 + random.below(3)).map(|_| Self::host(&random)).collect();
        let defaults = Params::default();
        let params = Params {
            patience: Duration::from_millis(pick(&random, &[1_500, 5_000, 20_000], 5_000)),
            generation: Duration::from_millis(pick(&random, &[500, 5_000, 30_000], 5_000)),
            generation_writes: pick(&random, &[3, 50, 65_536], 50),
            window: pick(&random, &[4, 64, 512, 2048], 64),
            ..defaults
        };
        Setup {
            seed,
            machines,
            volumes,
            replicas,
            min_in_sync,
            shards,
            shard_blocks,
            chunk_bytes,
            journal_bytes,
            disk,
            net: NetConfig::default(),
            drift_max: pick(&random, &[0, 200, 200, 20_000], 200),
            params,
            hosts,
            time: Duration::from_secs(600),
            faults: None,
            trace: false,
            live: false,
        }
    }

    fn host(random: &SimRandom) -> HostSetup {
        HostSetup {
            lanes: 1 + random.below(3),
            pause: Duration::from_millis(pick(random, &PAUSES, 300)),
            path_timeout: Duration::from_millis(pick(random, &[700, 2_500, 6_000], 2_500)),
            patience: Duration::from_millis(pick(random, &[3_000, 15_000, 10_000_000], 15_000)),
            blocks_max: pick(random, &[1, 4, 8], 4),
            spread: pick(random, &[2, 6, 12], 6),
            reads: 45,
            writes: 43,
        }
    }

    /// A machine's clock.
    pub(super) fn drift(&self, random: &SimRandom) -> Drift {
        let span = usize::try_from(self.drift_max * 2 + 1).unwrap_or(1);
        let drawn = i32::try_from(random.below(span)).unwrap_or(0);
        let offset = random.next_u64() % 1_000_000_000_000_000;
        Drift { offset, parts_per_million: drawn - self.drift_max }
    }
}
