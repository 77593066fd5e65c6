//! How long a stock host's writes stand still when the leader of its volume goes, on three nodes.
//!
//! A stall is the longest single write around a failure, measured in the guest ([`crate::writers`]). At the end of each round every
//! acknowledged write must be there, so a figure of a run that lost something does not exist.

use anyhow::{Context, Result, ensure};

use super::Effort;
use super::figures::at_most;
use crate::cluster::{Cluster, Member, Plan};
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

/// Kills.
pub fn kills(effort: Effort) -> Result<Table> {
    let rounds = match effort {
        Effort::Full => 50,
        Effort::Tiny => 1,
    };
    let mut bench = Bench::start(effort, Plan::small())?;
    let stalls = bench.repeat("kill", rounds, Bench::kill)?;
    Ok(table([("kill -9 of the leader", stalls, [1.0, 2.5])]))
}

/// Freezes, with a service manager as README has it, and without.
pub fn freezes(effort: Effort) -> Result<Table> {
    let (watched, alone) = match effort {
        Effort::Full => (20, 20),
        Effort::Tiny => (1, 0),
    };
    let mut bench = Bench::start(effort, Plan::small().watched())?;
    let ended = bench.repeat("freeze, with a watchdog", watched, Bench::freeze_watched)?;
    let killed: u64 = bench.cluster.nodes.iter().map(Member::killed_by_watchdog).sum();
    ensure!(killed == watched, "{killed} nodes were killed by watchdogs in {watched} freezes");
    if alone > 0 {
        bench.unwatch()?;
    }
    let silent = bench.repeat("freeze, without", alone, Bench::freeze)?;
    Ok(table([
        ("SIGSTOP of the leader, with its unit's watchdog", ended, [8.0, 8.0]),
        ("SIGSTOP of the leader, without", silent, [8.0, 8.0]),
    ]))
}

/// p50 and p99 of stalls, and the bars for these.
fn table(rows: impl IntoIterator<Item = (&'static str, Vec<f64>, [f64; 2])>) -> Table {
    let mut table = Table::new(&["longest write of a stock host", "seconds", "bar", ""]);
    for (what, mut stalls, bars) in rows {
        stalls.sort_by(f64::total_cmp);
        for (percent, bar) in [50, 99].into_iter().zip(bars) {
            let index = (stalls.len() * percent).div_ceil(100).saturating_sub(1);
            let Some(figure) = stalls.get(index) else { continue };
            let mut cells =
                vec![format!("{what}, p{percent} of {}", stalls.len()), format!("{figure:.2}")];
            cells.extend(at_most(*figure, bar));
            table.row(cells);
        }
    }
    table
}

struct Bench {
    guest: Guest,
    cluster: Cluster,
    disk: String,
    rounds: u64,
}

impl Bench {
    fn start(effort: Effort, plan: Plan) -> Result<Bench> {
        let guest = Guest::boot(&GuestOptions::new(Kernel::V6_12))?;
        Transport::Tcp.load(&guest)?;
        let cluster = Cluster::start(&plan.optimised(effort == Effort::Full))?;
        cluster.export(VOLUME, "256M", "--replicas 3 --min-in-sync 2", NQN)?;
        cluster.healed(VOLUME)?;
        let options = "--reconnect-delay 1 --ctrl-loss-tmo 600 --keep-alive-tmo 5";
        let disk = cluster.connect(&guest, NQN, options)?;
        Ok(Bench { guest, cluster, disk, rounds: 0 })
    }

    fn repeat(
        &mut self,
        what: &str,
        rounds: u64,
        measure: impl Fn(&mut Bench) -> Result<f64>,
    ) -> Result<Vec<f64>> {
        let mut stalls = Vec::new();
        for round in 1..=rounds {
            let stall = measure(self)?;
            say(&format!("{what} {round} of {rounds}: {stall:.2} s"));
            stalls.push(stall);
        }
        self.cluster.assert_well()?;
        Ok(stalls)
    }

    /// From here on no node has a service manager.
    fn unwatch(&mut self) -> Result<()> {
        for index in 0..self.cluster.nodes.len() {
            let node = &mut self.cluster.nodes[index];
            node.watch(false);
            node.stop()?;
            node.start()?;
            self.cluster.healed(VOLUME)?;
        }
        Ok(())
    }

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

    fn freeze_watched(&mut self) -> Result<f64> {
        self.round(
            |cluster, leader| cluster.nodes[leader].freeze(),
            |cluster, leader| cluster.nodes[leader].ready(),
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
        // A replica may be late when the writing begins; this is about one failure, not two.
        self.cluster.healed(VOLUME)?;
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
