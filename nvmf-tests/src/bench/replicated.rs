//! 4 KiB writes to a volume of three replicas against one of a single replica: the same cluster of three nodes, the same
//! machine, our own host.

use anyhow::{Context, Result, ensure};

use super::Effort;
use super::example::Example;
use super::figures::{at_least, at_most, median, no_bar};
use crate::cluster::{Cluster, Plan};
use crate::prepare::say;
use crate::table::Table;

/// The volumes and their replicas.
const VOLUMES: [(&str, u32); 2] = [("one", 1), ("three", 3)];
const DEPTHS: [u32; 2] = [1, 32];
/// Of the unreplicated volume's IOPS, at depth 32.
const RATIO_BAR: f64 = 0.3;
/// Calls to peers per write, at most: one for each remote replica, and a little for heartbeats and commits.
const CALLS_BAR: f64 = 2.1;

/// One round on one volume.
#[derive(Clone, Copy)]
struct Sample {
    iops: f64,
    /// Of all nodes, per write.
    system_calls: f64,
    /// From node to node, per write; each has one answer.
    calls: f64,
}

/// IOPS, calls between nodes and system calls.
pub fn run(effort: Effort) -> Result<Table> {
    let (rounds, seconds) = if effort == Effort::Full { (7, 2.0) } else { (1, 0.1) };
    let host = Example::build("host", effort)?;
    let cluster = Cluster::start(&Plan::small().optimised(effort == Effort::Full))?;
    let mut leaders = Vec::new();
    for (name, replicas) in VOLUMES {
        let options = format!("--replicas {replicas} --min-in-sync {}", replicas.min(2));
        cluster.export(name, "64M", &options, &nqn(name))?;
        if replicas > 1 {
            cluster.healed(name)?;
        }
        leaders.push(leader(&cluster, name)?);
    }
    let mut samples = [const { Vec::new() }; VOLUMES.len() * DEPTHS.len()];
    // The first round gives the volumes their chunks.
    for round in 0..=rounds {
        say(&format!("replicated: round {round} of {rounds}"));
        let mut place = samples.iter_mut();
        for depth in DEPTHS {
            for ((name, _), leader) in VOLUMES.iter().zip(&leaders) {
                let sample = measure(&cluster, &host, *leader, name, depth, seconds)?;
                let samples = place.next().context("a place for each shape")?;
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
    }
    cluster.assert_well()?;
    let mut table = Table::new(&[
        "replicas",
        "depth",
        "IOPS",
        "ratio",
        "bar",
        "",
        "system calls/write",
        "peer calls/write",
        "bar",
        "",
    ]);
    for (index, depth) in DEPTHS.into_iter().enumerate() {
        let [one, three] = [&samples[2 * index], &samples[2 * index + 1]];
        // Rounds are compared with themselves: what else the machine does changes from round to round.
        let ratio = median(one.iter().zip(three).map(|(one, three)| three.iops / one.iops));
        for ((name, _), samples) in VOLUMES.iter().zip([one, three]) {
            let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
            let calls = of(|sample| sample.calls);
            let replicated = *name == "three";
            let [ratio_bar, calls_bar] = match replicated && depth == 32 {
                true => [at_least(ratio, RATIO_BAR), at_most(calls, CALLS_BAR)],
                false => [no_bar(), no_bar()],
            };
            let mut row = vec![(*name).to_owned(), depth.to_string()];
            row.push(format!("{:.0}", of(|sample| sample.iops)));
            row.push(if replicated { format!("{ratio:.2}") } else { String::new() });
            row.extend(ratio_bar);
            row.push(format!("{:.2}", of(|sample| sample.system_calls)));
            row.push(format!("{calls:.2}"));
            row.extend(calls_bar);
            table.row(row);
        }
    }
    Ok(table)
}

fn nqn(volume: &str) -> String {
    format!("nqn.2026-11.io.afs.lab:replicated-{volume}")
}

/// The node that leads a volume; one with a single replica is served where that is, and needs no leader.
fn leader(cluster: &Cluster, volume: &str) -> Result<usize> {
    let shown = cluster.conductor()?.call(&format!("volume show {volume}"))?;
    let name = shown["leader"].as_str().or(shown["replicas"][0]["node"].as_str());
    let number = name.and_then(|name| name.strip_prefix('n')?.parse::<usize>().ok());
    number.and_then(|number| number.checked_sub(1)).with_context(|| format!("no leader: {shown}"))
}

/// System calls and calls to peers of all nodes so far.
fn counted(cluster: &Cluster) -> Result<[f64; 2]> {
    let mut sums = [0.0; 2];
    for node in &cluster.nodes {
        let metrics = node.metrics()?;
        for (sum, name) in
            sums.iter_mut().zip(["afs_reactor_syscalls_total", "afs_peer_calls_total"])
        {
            *sum += metrics.sum(name).unwrap_or_default();
        }
    }
    Ok(sums)
}

fn measure(
    cluster: &Cluster,
    host: &Example,
    leader: usize,
    volume: &str,
    depth: u32,
    seconds: f64,
) -> Result<Sample> {
    let before = counted(cluster)?;
    let port = cluster.target(leader)?.port;
    let words = format!("load 127.0.0.1:{port} {} write 4096 {depth} 1 {seconds}", nqn(volume));
    let [count, time] = host.figures(None, &words)?;
    ensure!(count > 0.0, "no write to {volume} was answered in {time} s");
    let after = counted(cluster)?;
    let per_write = |which: usize| (after[which] - before[which]) / count;
    Ok(Sample { iops: count / time, system_calls: per_write(0), calls: per_write(1) })
}
