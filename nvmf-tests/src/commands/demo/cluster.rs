//! Three nodes, one volume on all of them, and the death of its leader under load.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Demo, chapter, indent, shown};
use crate::cluster::{Cluster, Plan};
use crate::guest::{Guest, Running};
use crate::ledger;
use crate::nvme;
use crate::process::wait_until;

const NQN: &str = "nqn.2026-11.io.afs:demo-cluster";
const VOLUME: &str = "movies";
const BLOCKS: u32 = 32768;
/// Writes for so long before and after the blow.
const LOAD: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

pub(super) fn show(demo: &mut Demo, guest: &Guest) -> Result<()> {
    chapter(
        "A cluster: a conductor and three nodes, one process each; a volume with three replicas",
    );
    let mut cluster = Cluster::start(&Plan::small())?;
    println!("  $ conductor volume create {VOLUME} --size 256M --replicas 3 --min-in-sync 2");
    cluster.export(VOLUME, "256M", "--replicas 3 --min-in-sync 2", NQN)?;
    cluster.healed(VOLUME)?;
    show_volume(&cluster)?;
    demo.proved("cluster: three replicas in sync", "writes need two of them".to_owned());

    chapter("The host connects to all three: one disk, the path to the leader is optimized");
    let mut disk = String::new();
    for index in 0..cluster.nodes.len() {
        let target = cluster.target(index)?;
        println!("  host# nvme connect {} -n {NQN}", target.options());
        let options = "--reconnect-delay 1 --ctrl-loss-tmo 120 --keep-alive-tmo 5";
        let connection = nvme::connect(guest, target, NQN, options)?;
        ensure!(disk.is_empty() || disk == connection.disk, "{disk} and {}", connection.disk);
        disk = connection.disk;
    }
    let paths = shown(guest, "grep -H . /sys/class/nvme/nvme*/nvme*c*n1/ana_state")?;
    let count = |state: &str| paths.lines().filter(|line| line.ends_with(state)).count();
    ensure!((count(":optimized"), count(":non-optimized")) == (1, 2), "paths: {paths}");
    demo.proved("cluster: three paths to one disk", format!("{disk}, one path is optimized"));
    survive(demo, guest, &mut cluster, &disk)?;
    nvme::disconnect(guest, NQN)?;
    guest.assert_no_complaints_but(&["nvme nvme", "no usable path"])?;
    cluster.assert_well()
}

fn survive(demo: &mut Demo, guest: &Guest, cluster: &mut Cluster, disk: &str) -> Result<()> {
    chapter("Writes flow; the leader is killed with kill -9; another node takes over");
    let tool = format!("{} ledger", guest.folder().join("agent").display());
    let arguments = format!("--device {disk} --blocks {BLOCKS}");
    let mut writers = guest.spawn(&format!("{tool} write {arguments}"))?;
    println!("  host# writers that note each acknowledged write");
    let leader = cluster.leader(VOLUME)?;
    flow(&mut writers, LOAD)?;
    println!("  $ kill -9 the process of node n{}, which leads", leader + 1);
    let begun = Instant::now();
    cluster.nodes[leader].kill()?;
    let stall = flow(&mut writers, LOAD)?;
    let next = cluster.leader(VOLUME)?;
    println!(
        "  n{} leads now; writes stood still for {:.2} s, and flow again after {:.1} s",
        next + 1,
        stall.as_secs_f64(),
        begun.elapsed().saturating_sub(LOAD).as_secs_f64()
    );
    ensure!(next != leader, "the dead node leads");
    demo.proved(
        "cluster: kill -9 of the leader under load",
        format!("the longest write took {:.2} s, no error", stall.as_secs_f64()),
    );

    chapter("The node comes back; what it missed is copied, while writes go on");
    cluster.nodes[leader].start()?;
    let mut said = String::new();
    let returned = Instant::now();
    wait_until("all replicas to be in sync", LONGEST, || {
        ensure!(writers.ended().is_none(), "a writer met an error: {}", writers.stdout());
        let shown = cluster.conductor()?.call(&format!("volume show {VOLUME}"))?;
        let replicas = shown["replicas"].as_array().context("no replicas")?;
        let out = replicas.iter().find(|replica| replica["in_sync"] != true);
        let Some(out) = out else { return Ok(Some(())) };
        let line = match out["resync"].as_object() {
            Some(resync) => format!(
                "{} of {} bytes left to compare",
                resync["left_bytes"], resync["total_bytes"]
            ),
            None => "out of sync".to_owned(),
        };
        if line != said {
            println!("  {:.1} s: {}: {line}", returned.elapsed().as_secs_f64(), out["node"]);
            said = line;
        }
        Ok(None)
    })?;
    show_volume(cluster)?;
    let seconds = returned.elapsed().as_secs_f64();
    demo.proved("cluster: all in sync again", format!("{seconds:.1} s after the node's start"));

    let acknowledged = ledger::acknowledged(&writers.stdout());
    ensure!(writers.ended().is_none(), "a writer met an error: {}", writers.stdout());
    writers.kill()?;
    println!("  $ conductor volume lead {VOLUME} --on n{}", leader + 1);
    cluster.lead(VOLUME, leader)?;
    let found = guest.ok(&format!("{tool} read {arguments}"))?;
    ledger::compare(&acknowledged, &found).context("read from the node that was killed")?;
    demo.proved(
        "cluster: read from the node that was killed",
        format!("{} blocks, every acknowledged write is there", acknowledged.len()),
    );
    Ok(())
}

/// Lets writes flow for at least `time`, the last half second of it without a stall; returns the longest silence.
fn flow(writers: &mut Running, time: Duration) -> Result<Duration> {
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let mut calm = Instant::now();
    let mut printed = writers.stdout_bytes();
    while begun.elapsed() < time || calm.elapsed() < time / 4 {
        ensure!(writers.ended().is_none(), "a writer met an error: {}", writers.stdout());
        ensure!(last.elapsed() < LONGEST, "writes do not flow");
        let now = writers.stdout_bytes();
        if now > printed {
            let silence = last.elapsed();
            longest = longest.max(silence);
            (printed, last) = (now, Instant::now());
            if silence > time / 4 {
                calm = last;
            }
        } else if last.elapsed() > time / 4 {
            calm = Instant::now();
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(longest)
}

fn show_volume(cluster: &Cluster) -> Result<()> {
    println!("  $ conductor volume show {VOLUME}");
    indent(&cluster.conductor()?.text(&format!("volume show {VOLUME}"))?);
    Ok(())
}
