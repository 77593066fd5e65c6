//! What a resync copies, against what differs: a replica is away while a stock host writes at random places, and comes back.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Effort;
use super::figures::at_most;
use crate::cluster::{Cluster, Plan};
use crate::guest::{Guest, GuestOptions};
use crate::nvme::Transport;
use crate::prepare::Kernel;
use crate::table::Table;
use crate::writers::Writers;

const NQN: &str = "nqn.2026-11.io.afs.lab:resync";
const VOLUME: &str = "resync";
const BLOCK: f64 = 4096.0;
const MIB: f64 = 1048576.0;
const COPIED: &str = "afs_replica_resync_copied_bytes_total";
const COMPARED: &str = "afs_replica_resync_compared_bytes_total";

/// One replica's absence.
pub fn run(effort: Effort) -> Result<Table> {
    let (mib, away) = match effort {
        Effort::Full => (1024, Duration::from_secs(60)),
        Effort::Tiny => (64, Duration::from_secs(1)),
    };
    let guest = Guest::boot(&GuestOptions::new(Kernel::V6_12))?;
    Transport::Tcp.load(&guest)?;
    let disk_size = format!("{}M", 2 * mib + 256);
    let plan = Plan { disk: disk_size, ..Plan::small().optimised(effort == Effort::Full) };
    let mut cluster = Cluster::start(&plan)?;
    cluster.export(VOLUME, &format!("{mib}M"), "--replicas 3 --min-in-sync 2", NQN)?;
    cluster.healed(VOLUME)?;
    let disk = cluster.connect(&guest, NQN, "--reconnect-delay 1 --ctrl-loss-tmo 600")?;
    // Every chunk is there before, so that what is written while the replica is away are overwrites.
    guest.ok(&format!("dd if=/dev/zero of={disk} bs=1M count={mib} oflag=direct status=none"))?;

    let leader = cluster.leader(VOLUME)?;
    let lost = (leader + 1) % cluster.nodes.len();
    let before = figures(&cluster, leader)?;
    let mut writers = Writers::start(&guest, &disk, mib * 256, 0)?;
    cluster.nodes[lost].kill()?;
    // What is written before they all go on is not counted, although some of it differs.
    writers.go_on()?;
    let mark = writers.mark();
    thread::sleep(away);
    writers.go_on()?;
    let written = writers.stop()?;
    let differ = written.since(mark).len() as f64 * BLOCK;
    cluster.nodes[lost].start()?;
    cluster.healed(VOLUME)?;
    ensure!(cluster.leader(VOLUME)? == leader, "the leader moved: its figures began anew");
    let after = figures(&cluster, leader)?;
    cluster.lead(VOLUME, lost)?;
    written.assert_there().context("read from the replica that was away")?;
    cluster.assert_well()?;

    let [copied, compared] = [after.0 - before.0, after.1 - before.1];
    let mut table = Table::new(&["resync after an absence", "figure", "bar", ""]);
    table.row(["MiB that differ", &format!("{:.1}", differ / MIB), "", ""]);
    table.row(["MiB compared", &format!("{:.1}", compared / MIB), "", ""]);
    let ratio = copied / differ;
    let mut row = vec!["bytes copied / bytes that differ".to_owned(), format!("{ratio:.3}")];
    row.extend(at_most(ratio, 1.3));
    table.row(row);
    Ok(table)
}

/// Bytes that resyncs under a leader copied and compared.
fn figures(cluster: &Cluster, leader: usize) -> Result<(f64, f64)> {
    let metrics = cluster.nodes[leader].metrics()?;
    let sum = |name| metrics.sum(name).with_context(|| format!("no metric {name}"));
    Ok((sum(COPIED)?, sum(COMPARED)?))
}
