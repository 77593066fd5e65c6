//! What a node costs that does nothing: hosts are connected and keep their controllers alive, that is all.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Effort;
use super::example::Example;
use super::figures::{at_most, median, no_bar};
use crate::daemon::Daemon;
use crate::node::{Node, NodeOptions};
use crate::prepare::say;
use crate::process::spawn;
use crate::table::Table;

const NQN: &str = "nqn.2026-11.io.afs.lab:idle";
const HOSTS: u32 = 16;
/// Percent of one core.
const BAR: f64 = 1.0;

/// CPU of a node with no host, and with 16 of them, of which each has 1 to 4 I/O queues and a keep-alive time of 5 s.
pub fn run(effort: Effort) -> Result<Table> {
    let example = Example::build("host", effort)?;
    let options = NodeOptions { optimised: effort == Effort::Full, ..NodeOptions::file("1G") };
    let node = Node::start(options)?;
    node.conductor()?.export("idle", "512M", NQN)?;
    let (rounds, time) = match effort {
        Effort::Full => (3, Duration::from_secs(10)),
        Effort::Tiny => (1, Duration::from_millis(500)),
    };
    say("idle: nobody connected");
    let alone: Vec<f64> = (0..rounds).map(|_| percent(&node, time)).collect::<Result<_>>()?;
    say(&format!("idle: {HOSTS} hosts connected"));
    let words = format!("sit 127.0.0.1:{} {NQN} {HOSTS}", node.port());
    let mut command = example.command(None, &words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut hosts = spawn(command)?;
    let mut output = BufReader::new(hosts.stdout().context("the hosts' output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line.trim() == "connected", "the hosts did not connect");
    let connected: Vec<f64> = (0..rounds).map(|_| percent(&node, time)).collect::<Result<_>>()?;
    drop(hosts.stdin());
    let mut rest = String::new();
    output.read_to_string(&mut rest)?;
    ensure!(rest.trim() == "alive", "a connection was lost meanwhile");

    let mut table = Table::new(&["an idle node, all of the process", "% of a core", "bar", ""]);
    let (alone, connected) = (median(alone), median(connected));
    let mut cells = vec!["no host".to_owned(), format!("{alone:.2}")];
    cells.extend(no_bar());
    table.row(cells);
    let mut cells = vec![format!("{HOSTS} hosts, 40 I/O queues"), format!("{connected:.2}")];
    cells.extend(at_most(connected, BAR));
    table.row(cells);
    Ok(table)
}

fn percent(node: &Node, time: Duration) -> Result<f64> {
    let (begin, used) = (Instant::now(), node.cpu_time()?);
    thread::sleep(time);
    let used = node.cpu_time()?.saturating_sub(used);
    Ok(100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64())
}
