//! Measurements, side by side with something that everybody has. `cargo lab bench` runs them.
//!
//! A benchmark is an entry of [`BENCHES`]: a name, what it compares, the programs it needs, and a function that
//! returns a table. Each has a tiny mode, which tests run so that benchmarks do not rot.

mod conductor;
mod example;
mod failover;
mod figures;
mod idle;
mod instructions;
mod loopback;
mod replicated;
mod resync;
mod start;
mod store;

use anyhow::{Result, bail};

use crate::prepare::Kernel;
use crate::table::Table;

/// How much to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Release builds, enough rounds for a figure to be quoted.
    Full,
    /// Debug builds and next to no rounds: shows that the benchmark runs, its figures mean nothing.
    Tiny,
}

/// One measurement.
pub struct Bench {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is measured against what, in one line.
    pub about: &'static str,
    /// Programs of this workspace that it runs, built in release mode before a full run.
    pub programs: &'static [&'static str],
    /// Kernels that it boots.
    pub kernels: &'static [Kernel],
    /// Measures.
    pub run: fn(Effort) -> Result<Table>,
}

/// All measurements.
pub const BENCHES: &[Bench] = &[
    Bench {
        name: "instructions",
        about: "instructions per I/O over TCP, host and target together, against the kernel's own target in the same guest",
        programs: &["afs", "conductor"],
        kernels: &Kernel::ALL,
        run: instructions::tcp,
    },
    Bench {
        name: "instructions-rdma",
        about: "instructions per I/O over soft RDMA, against the kernel's own target and our own TCP in the same guest",
        programs: &["afs", "conductor"],
        kernels: &Kernel::ALL,
        run: instructions::rdma,
    },
    Bench {
        name: "loopback",
        about: "4 KiB I/O of a node on one core with a null disk, our own host on another; system calls per I/O of the node",
        programs: &["afs"],
        kernels: &[],
        run: loopback::run,
    },
    Bench {
        name: "store",
        about: "I/O per second of the store on a file, no fabric, against fio's io_uring with O_DIRECT on the same file",
        programs: &[],
        kernels: &[],
        run: store::run,
    },
    Bench {
        name: "start",
        about: "start-up after a crash and memory, per TiB of disk on which every chunk is in use",
        programs: &[],
        kernels: &[],
        run: start::run,
    },
    Bench {
        name: "replicated",
        about: "4 KiB writes to three replicas against one, on the same three nodes; calls between nodes and system calls per write",
        programs: &["afs", "conductor"],
        kernels: &[],
        run: replicated::run,
    },
    Bench {
        name: "failover",
        about: "how long a stock host's writes stand still when the leader of a volume on three nodes is killed",
        programs: &["afs", "conductor"],
        kernels: &[Kernel::V6_12],
        run: failover::kills,
    },
    Bench {
        name: "freezes",
        about: "the same when the leader is frozen, with the watchdog of its systemd unit and without",
        programs: &["afs", "conductor"],
        kernels: &[Kernel::V6_12],
        run: failover::freezes,
    },
    Bench {
        name: "resync",
        about: "bytes that a resync copies, against those that differ, after a replica was away for a minute of random writes",
        programs: &["afs", "conductor"],
        kernels: &[Kernel::V6_12],
        run: resync::run,
    },
    Bench {
        name: "conductor",
        about: "a conductor with 1024 simulated nodes and 100,000 volumes: a node dies, time to all new leaders; memory, idling, answers",
        programs: &["conductor"],
        kernels: &[],
        run: conductor::run,
    },
    Bench {
        name: "idle",
        about: "processor time of a node with 16 hosts connected and nothing to do",
        programs: &["afs"],
        kernels: &[],
        run: idle::run,
    },
];

/// The benchmarks with these names, all when there are none.
pub fn named(names: &[String]) -> Result<Vec<&'static Bench>> {
    for name in names {
        if !BENCHES.iter().any(|bench| bench.name == name) {
            let known: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
            bail!("no benchmark is called `{name}`; there are: {}", known.join(", "));
        }
    }
    Ok(BENCHES
        .iter()
        .filter(|bench| names.is_empty() || names.iter().any(|name| name == bench.name))
        .collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn unknown_name_is_answered_with_the_known_ones() {
        assert_eq!(named(&[]).unwrap().len(), BENCHES.len());
        assert!(
            named(&["nonsense".to_owned()]).err().unwrap().to_string().contains("instructions")
        );
    }
}
