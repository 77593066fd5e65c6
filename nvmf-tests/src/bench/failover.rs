//! How long a stock host's writes stand still when the leader of its volume goes, on three nodes.
//!
//! Writers in the guest print each acknowledgement; the longest silence after a kill is the stall. At the end every acknowledged
//! write must be there, so a figure of a run that lost something does not exist.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Effort;
use super::figures::at_most;
use crate::cluster::Cluster;
use crate::guest::{Guest, GuestOptions, Running};
use crate::ledger;
use crate::nvme::{self, Transport};
use crate::prepare::{Kernel, say};
use crate::process::wait_until;
use crate::table::Table;

const NQN: &str = "nqn.2026-11.io.afs.lab:failover";
const VOLUME: &str = "failover";
const BLOCKS: u32 = 16384;
/// The writers go on for this long after each stall, so that the next kill meets full load.
const LOAD: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Kills, then freezes.
pub fn run(effort: Effort) -> Result<Table> {
    let (kills, freezes) = match effort {
        Effort::Full => (50, 20),
        Effort::Tiny => (1, 0),
    };
    let guest = Guest::boot(&GuestOptions::new(Kernel::V6_12))?;
    Transport::Tcp.load(&guest)?;
    let mut cluster = Cluster::start_built(3, "1G", effort == Effort::Full)?;
    cluster.export(VOLUME, "256M", "--replicas 3 --min-in-sync 2", NQN)?;
    cluster.healed(VOLUME)?;
    let options = "--reconnect-delay 1 --ctrl-loss-tmo 600 --keep-alive-tmo 5";
    let mut disk = String::new();
    for index in 0..cluster.nodes() {
        disk = nvme::connect(&guest, &cluster.target(index)?, NQN, options)?.disk;
    }
    let tool = format!("{} ledger", guest.folder().join("agent").display());
    let arguments = format!("--device {disk} --blocks {BLOCKS}");
    let mut writers = guest.spawn(&format!("{tool} write {arguments}"))?;

    let mut killed = Vec::new();
    for round in 1..=kills {
        say(&format!("failover: kill {round} of {kills}"));
        let leader = load(&cluster, &mut writers)?;
        killed.push(stall(&mut writers, || cluster.kill_node(leader))?);
        cluster.start_node(leader)?;
        cluster.healed(VOLUME)?;
    }
    let mut frozen = Vec::new();
    for round in 1..=freezes {
        say(&format!("failover: freeze {round} of {freezes}"));
        let leader = load(&cluster, &mut writers)?;
        frozen.push(stall(&mut writers, || cluster.freeze(leader, false))?);
        cluster.freeze(leader, true)?;
        cluster.healed(VOLUME)?;
    }
    let acknowledged = ledger::acknowledged(&writers.stdout());
    ensure!(writers.ended().is_none(), "a writer met an error: {}", writers.stdout());
    writers.kill()?;
    let found = guest.ok(&format!("{tool} read {arguments}"))?;
    ledger::compare(&acknowledged, &found).context("after all failovers")?;
    cluster.assert_no_panic()?;

    let mut table = Table::new(&["stall of a stock host's writes", "seconds", "bar", ""]);
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

/// Waits until writes flow for a while; returns who leads.
fn load(cluster: &Cluster, writers: &mut Running) -> Result<usize> {
    let leader = cluster.leader(VOLUME)?;
    let (start, from) = (Instant::now(), writers.stdout_bytes());
    wait_until("writes to flow", LONGEST, || {
        ensure!(writers.ended().is_none(), "a writer met an error: {}", writers.stdout());
        Ok((start.elapsed() > LOAD && writers.stdout_bytes() > from).then_some(()))
    })?;
    Ok(leader)
}

/// The longest silence from just before `blow` until writes have flowed again for a second.
fn stall(writers: &mut Running, blow: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (begin, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut printed = writers.stdout_bytes();
    blow()?;
    while last.elapsed() < LONGEST {
        let now = writers.stdout_bytes();
        if now > printed {
            longest = longest.max(last.elapsed());
            (printed, last) = (now, Instant::now());
            let settled = begin.elapsed() > longest + LOAD && longest > LOAD / 4;
            if settled || begin.elapsed() > 10 * LOAD {
                return Ok(longest.as_secs_f64());
            }
        }
        ensure!(writers.ended().is_none(), "a writer met an error: {}", writers.stdout());
        thread::sleep(Duration::from_millis(5));
    }
    Ok(LONGEST.as_secs_f64())
}
