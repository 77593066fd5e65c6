//! How long a stock host's writes stand still when the leader of its volume goes, on three nodes.
//!
//! A stall is the longest single write around a failure, measured in the guest ([`crate::writers`]). At the end of each round every
//! acknowledged write must be there, so a figure of a run that lost something does not exist.

use anyhow::{Context, Result};

use super::Effort;
use super::figures::at_most;
use crate::cluster::{Cluster, Plan};
use crate::guest::{Guest, GuestOptions};
use crate::nvme::Transport;
use crate::prepare::{Kernel, say};
use crate::table::Table;
use crate::writers::Writers;

const NQN: &str = "nqn.2026-11.io.afs.lab:failover";
const VOLUME: &str = "failover";
const BLOCKS: u64 = 16384;
/// Writers of one round begin above all stamps of earlier ones.
const STAMPS_A_ROUND: u64 = 1 << 32;

/// Kills, then freezes.
pub fn run(effort: Effort) -> Result<Table> {
    let (kills, freezes) = match effort {
        Effort::Full => (50, 20),
        Effort::Tiny => (1, 0),
    };
    let guest = Guest::boot(&GuestOptions::new(Kernel::V6_12))?;
    Transport::Tcp.load(&guest)?;
    let cluster = Cluster::start(&Plan::small().optimised(effort == Effort::Full))?;
    cluster.export(VOLUME, "256M", "--replicas 3 --min-in-sync 2", NQN)?;
    cluster.healed(VOLUME)?;
    let options = "--reconnect-delay 1 --ctrl-loss-tmo 600 --keep-alive-tmo 5";
    let disk = cluster.connect(&guest, NQN, options)?;
    let mut bench = Bench { guest, cluster, disk, rounds: 0 };

    let mut killed = Vec::new();
    for round in 1..=kills {
        killed.push(bench.kill()?);
        say(&format!("failover: kill {round} of {kills}: {:.2} s", killed[killed.len() - 1]));
    }
    let mut frozen = Vec::new();
    for round in 1..=freezes {
        frozen.push(bench.freeze()?);
        say(&format!("failover: freeze {round} of {freezes}: {:.2} s", frozen[frozen.len() - 1]));
    }
    bench.cluster.assert_no_panic()?;

    let mut table = Table::new(&["longest write of a stock host", "seconds", "bar", ""]);
    let mut row = |what: &str, stalls: &mut Vec<f64>, percent: usize, bar: f64| {
        stalls.sort_by(f64::total_cmp);
        let index = (stalls.len() * percent).div_ceil(100).saturating_sub(1);
        let Some(figure) = stalls.get(index) else { return };
        let mut cells =
            vec![format!("{what}, p{percent} of {}", stalls.len()), format!("{figure:.2}")];
        cells.extend(at_most(*figure, bar));
        table.row(cells);
    };
    row("kill -9 of the leader", &mut killed, 50, 1.0);
    row("kill -9 of the leader", &mut killed, 99, 2.5);
    row("SIGSTOP of the leader", &mut frozen, 50, 8.0);
    row("SIGSTOP of the leader", &mut frozen, 99, 8.0);
    Ok(table)
}

struct Bench {
    guest: Guest,
    cluster: Cluster,
    disk: String,
    rounds: u64,
}

impl Bench {
    fn kill(&mut self) -> Result<f64> {
        self.round(
            |cluster, leader| cluster.nodes[leader].kill(),
            |cluster, leader| cluster.nodes[leader].start(),
        )
    }

    fn freeze(&mut self) -> Result<f64> {
        self.round(
            |cluster, leader| cluster.nodes[leader].freeze(),
            |cluster, leader| cluster.nodes[leader].thaw(),
        )
    }

    /// Seconds of the longest write from just before `blow` to the leader until all writers have gone on under another one.
    fn round(
        &mut self,
        blow: impl FnOnce(&mut Cluster, usize) -> Result<()>,
        back: impl FnOnce(&mut Cluster, usize) -> Result<()>,
    ) -> Result<f64> {
        let from = self.rounds * STAMPS_A_ROUND;
        self.rounds += 1;
        let leader = self.cluster.leader(VOLUME)?;
        let mut writers = Writers::start(&self.guest, &self.disk, BLOCKS, from)?;
        let mark = writers.mark();
        blow(&mut self.cluster, leader)?;
        self.cluster.leader_but(VOLUME, Some(leader))?;
        let gone_on = writers.go_on();
        gone_on.with_context(|| self.cluster.logs(40))?;
        let stall = writers.longest_since(mark)?;
        writers.end().with_context(|| format!("after round {}", self.rounds))?;
        back(&mut self.cluster, leader)?;
        self.cluster.healed(VOLUME)?;
        Ok(stall.as_secs_f64())
    }
}
