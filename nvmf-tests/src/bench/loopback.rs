//! A node natively on this machine: one reactor on one processor, a null disk, our own host library on another one.
//!
//! There is nobody to compare with but ourselves: the table shows the figure of the last full run on this machine too.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::Effort;
use super::example::Example;
use super::figures::{at_most, median, no_bar};
use crate::daemon::Daemon;
use crate::node::{Node, NodeOptions};
use crate::paths;
use crate::prepare::say;
use crate::process::run as run_program;
use crate::table::Table;

const NQN: &str = "nqn.2026-11.io.afs.lab:loopback";
/// System calls of the node per I/O, at most, at depth 32.
const CALLS_BAR: f64 = 0.4;
const NODE_CORE: usize = 0;
const HOST_CORE: usize = 1;

/// What one measurement gave.
#[derive(Clone, Copy)]
struct Sample {
    iops: f64,
    calls: Calls,
}

/// System calls of the node's reactor.
#[derive(Clone, Copy)]
struct Calls {
    all: f64,
    /// Looks for events while polling.
    looks: f64,
    /// Sleeps.
    parks: f64,
    /// Both of these, and looks between two pieces of work.
    rounds: f64,
}

impl Calls {
    fn of(node: &Node) -> Result<Calls> {
        let metrics = node.metrics()?;
        let sum = |name: &str| metrics.sum(name).with_context(|| format!("no metric {name}"));
        Ok(Calls {
            all: sum("afs_reactor_syscalls_total")?,
            looks: sum("afs_reactor_polls_total")?,
            parks: sum("afs_reactor_parks_total")?,
            rounds: sum("afs_reactor_rounds_total")?,
        })
    }

    fn map2(self, other: Calls, both: impl Fn(f64, f64) -> f64) -> Calls {
        Calls {
            all: both(self.all, other.all),
            looks: both(self.looks, other.looks),
            parks: both(self.parks, other.parks),
            rounds: both(self.rounds, other.rounds),
        }
    }
}

#[derive(Clone, Copy)]
struct Shape {
    pattern: &'static str,
    depth: u32,
    queues: u32,
}

fn shapes(effort: Effort) -> Vec<Shape> {
    let depths: &[u32] = if effort == Effort::Full { &[1, 32, 128] } else { &[32] };
    let mut shapes = Vec::new();
    for pattern in ["read", "write"] {
        for &depth in depths {
            shapes.extend([1, 4].map(|queues| Shape { pattern, depth, queues }));
        }
    }
    shapes
}

/// 4 KiB I/O per second and system calls per I/O of the node, by depth and number of queues.
pub fn run(effort: Effort) -> Result<Table> {
    let host = Example::build("host", effort)?;
    let node = null_node(effort)?;
    node.conductor()?.export("null", "4G", NQN)?;
    let pinned = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > HOST_CORE);
    if pinned {
        let pid = node.pid()?.to_string();
        let cores = NODE_CORE.to_string();
        run_program(Command::new("taskset").args([
            "--all-tasks",
            "--cpu-list",
            "--pid",
            &cores,
            &pid,
        ]))?;
    }
    let (rounds, seconds) = if effort == Effort::Full { (5, 1.0) } else { (1, 0.05) };
    let shapes = shapes(effort);
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); shapes.len()];
    for round in 1..=rounds {
        say(&format!("loopback: round {round} of {rounds}"));
        for (shape, samples) in shapes.iter().zip(&mut samples) {
            let core = pinned.then_some(HOST_CORE);
            samples.push(measure(&node, &host, core, *shape, seconds)?);
        }
    }
    let previous = Previous::read()?;
    let mut table = Table::new(&[
        "4 KiB", "depth", "queues", "IOPS", "before", "ratio", "us/IO", "calls/IO", "sockets",
        "looks", "parks", "bar", "",
    ]);
    let mut figures = Vec::new();
    for (shape, samples) in shapes.iter().zip(&samples) {
        let row = row(*shape, samples, &previous);
        table.row(row.0);
        figures.push((shape.name(), row.1));
    }
    if effort == Effort::Full {
        previous.replace(&figures)?;
    }
    Ok(table)
}

/// A node with one reactor and a null disk.
fn null_node(effort: Effort) -> Result<Node> {
    let arguments = vec!["--reactors".to_owned(), "1".to_owned()];
    let disks = vec!["null:8G".to_owned()];
    Node::start(NodeOptions { disks, arguments, optimised: effort == Effort::Full })
}

fn measure(
    node: &Node,
    host: &Example,
    core: Option<usize>,
    shape: Shape,
    seconds: f64,
) -> Result<Sample> {
    let Shape { pattern, depth, queues } = shape;
    let before = Calls::of(node)?;
    let words =
        format!("load 127.0.0.1:{} {NQN} {pattern} 4096 {depth} {queues} {seconds}", node.port());
    let [count, time] = host.figures(core, &words)?;
    let calls = Calls::of(node)?.map2(before, |after, before| (after - before) / count);
    Ok(Sample { iops: count / time, calls })
}

fn row(shape: Shape, samples: &[Sample], previous: &Previous) -> (Vec<String>, f64) {
    let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
    let iops = of(|sample| sample.iops);
    let calls = of(|sample| sample.calls.all);
    let before = previous.of(&shape.name());
    let bar = if shape.depth == 32 { at_most(calls, CALLS_BAR) } else { no_bar() };
    let mut cells = vec![
        shape.pattern.to_owned(),
        shape.depth.to_string(),
        shape.queues.to_string(),
        format!("{iops:.0}"),
        before.map_or_else(String::new, |before| format!("{before:.0}")),
        before.map_or_else(String::new, |before| format!("{:.2}", iops / before)),
        format!("{:.2}", 1e6 / iops),
        format!("{calls:.3}"),
        format!("{:.3}", of(|sample| sample.calls.all - sample.calls.rounds)),
        format!("{:.3}", of(|sample| sample.calls.looks)),
        format!("{:.3}", of(|sample| sample.calls.parks)),
    ];
    cells.extend(bar);
    (cells, iops)
}

impl Shape {
    fn name(&self) -> String {
        format!("{}-{}-{}", self.pattern, self.depth, self.queues)
    }
}

/// The figures of the last full run on this machine, in the lab's cache.
struct Previous {
    path: PathBuf,
    text: String,
}

impl Previous {
    fn read() -> Result<Previous> {
        let path = paths::cache()?.join("loopback.figures");
        let text = fs::read_to_string(&path).unwrap_or_default();
        Ok(Previous { path, text })
    }

    fn of(&self, shape: &str) -> Option<f64> {
        let mut lines = self.text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == shape).and_then(|(_, figure)| figure.parse().ok())
    }

    fn replace(&self, figures: &[(String, f64)]) -> Result<()> {
        let lines = figures.iter().map(|(name, figure)| format!("{name} {figure:.0}\n"));
        fs::write(&self.path, lines.collect::<String>()).context("keep the figures")
    }
}
