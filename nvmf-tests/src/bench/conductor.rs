//! A conductor with a large cluster: 1024 simulated nodes, 100,000 volumes of three replicas. One node dies; how long until
//! another leader is decided for each volume that it led, which knows it and has claimed. And what the cluster costs the conductor.
//!
//! The nodes are one process of ours that speaks the API as real nodes do (`conductor/examples/fleet`): reports, waiting for
//! states, claims, accusations. It shares the machine with the conductor.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Effort;
use super::example::Example;
use super::figures::{at_most, median, no_bar};
use crate::cli::Conductor;
use crate::http;
use crate::node::free_port;
use crate::paths::{self, RunDir};
use crate::prepare::say;
use crate::process::{Tied, spawn, tail, tied, wait_until};
use crate::table::Table;

const READY: Duration = Duration::from_secs(60);
const DECIDED_BAR_MS: f64 = 1000.0;
const MEMORY_BAR_MIB: f64 = 2048.0;
const MIB: f64 = 1_048_576.0;

struct Scale {
    nodes: u32,
    volumes: u32,
    exported: u32,
    /// All nodes start within so many seconds. They share one machine with the conductor, as real ones do not.
    start_seconds: f64,
    deaths: u32,
    idle: Duration,
}

impl Scale {
    fn of(effort: Effort) -> Scale {
        match effort {
            Effort::Full => Scale {
                nodes: 1024,
                // Each node leads 100 and holds 300.
                volumes: 102_400,
                exported: 1000,
                start_seconds: 20.0,
                deaths: 5,
                idle: Duration::from_secs(20),
            },
            Effort::Tiny => Scale {
                nodes: 12,
                volumes: 300,
                exported: 20,
                start_seconds: 0.2,
                deaths: 1,
                idle: Duration::from_millis(500),
            },
        }
    }
}

/// Deaths, memory, idling, and what an operator waits for.
pub fn run(effort: Effort) -> Result<Table> {
    let scale = Scale::of(effort);
    let Scale { nodes, volumes, exported, .. } = scale;
    let fleet = Example::build("fleet", effort)?;
    let folder = RunDir::new("fleet")?;
    // Another MetaDB than a file: an empty database of PostgreSQL.
    let place = std::env::var("AFS_LAB_DATABASE")
        .unwrap_or_else(|_| folder.join("data").display().to_string());
    say(&format!("conductor: a MetaDB of {nodes} nodes and {volumes} volumes"));
    fleet.output(None, &format!("prepare {place} {nodes} {volumes} {exported}"))?;
    let conductor = Served::start(&folder, &place, effort)?;
    say("conductor: all nodes come up and claim");
    let mut fleet = Fleet::start(&fleet, &folder, conductor.api, nodes, scale.start_seconds)?;
    let mut table = Table::new(&["", "ours", "bar", ""]);
    let mut row = |name: &str, figure: String, bar: [String; 2]| {
        table.row([vec![name.to_owned(), figure], bar.to_vec()].concat());
    };
    let [cold, claims, early] = fleet.answer::<3>("ready")?;
    ensure!(claims >= f64::from(volumes), "{claims} of {volumes} volumes were claimed");
    row("s until all volumes are led, from nothing", format!("{cold:.2}"), no_bar());
    row("  volumes taken from nodes that were there, meanwhile", early.to_string(), no_bar());
    say("conductor: nothing to do");
    // Let what the start has left behind pass.
    thread::sleep(scale.idle / 4);
    let (begin, used) = (Instant::now(), conductor.cpu_time()?);
    thread::sleep(scale.idle);
    let used = conductor.cpu_time()?.saturating_sub(used).as_secs_f64();
    let percent = 100.0 * used / begin.elapsed().as_secs_f64();
    row("% of a core, idle, every node reporting", format!("{percent:.1}"), no_bar());
    for words in ["status", "volume show volume-000100", "node list", "volume list"] {
        let cli = Conductor::new(conductor.api)?;
        let mut times = Vec::new();
        for _ in 0..3 {
            let begin = Instant::now();
            cli.text(words)?;
            times.push(begin.elapsed().as_secs_f64());
        }
        row(&format!("s for `conductor {words}`"), format!("{:.3}", median(times)), no_bar());
    }
    let mut deaths = Vec::new();
    for death in 1..=scale.deaths {
        say(&format!("conductor: death {death} of {}", scale.deaths));
        deaths.push(fleet.kill()?);
    }
    let worst = |of: fn(&Death) -> f64| deaths.iter().map(of).fold(0.0, f64::max);
    let (led, held) =
        (median(deaths.iter().map(|it| it.led)), median(deaths.iter().map(|it| it.held)));
    let what = format!("of a node that led {led:.0} and held {held:.0}, worst of {}", deaths.len());
    let decided = worst(|death| death.decided);
    let name = format!("ms from the death {what}, until all new leaders are decided");
    row(&name, format!("{decided:.0}"), at_most(decided, DECIDED_BAR_MS));
    let told = worst(|death| death.told);
    row("  until all of them know", format!("{told:.0}"), no_bar());
    let claimed = worst(|death| death.claimed);
    row("  until all of them have claimed", format!("{claimed:.0}"), no_bar());
    let dropped = worst(|death| death.dropped);
    row("  until its replicas are dropped elsewhere", format!("{dropped:.0}"), no_bar());
    let late = deaths.last().map_or(0.0, |death| death.lost) - early;
    row("  volumes taken from nodes that did not die", late.to_string(), at_most(late, 0.0));
    let [now, most] = conductor.memory_mib()?;
    row("MiB of memory at the end", format!("{now:.0}"), no_bar());
    row("MiB of memory at most", format!("{most:.0}"), at_most(most, MEMORY_BAR_MIB));
    Ok(table)
}

/// A conductor that serves.
struct Served {
    api: SocketAddr,
    process: Tied,
}

impl Served {
    fn start(folder: &RunDir, place: &str, effort: Effort) -> Result<Served> {
        let api = free_port()?;
        let program = match effort {
            Effort::Full => paths::built_release("conductor")?,
            Effort::Tiny => paths::built("conductor")?,
        };
        let path = folder.join("conductor.log");
        let log = File::create(&path)?;
        let mut command = tied(program);
        let data = if place.contains("://") { "--database" } else { "--data" };
        command.args(["serve", data, place, "--api", &api.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = spawn(command)?;
        wait_until("the conductor to be ready", READY, || {
            if let Some(status) = process.ended()? {
                bail!("the conductor ended with {status}: {}", end_of(&path));
            }
            Ok(http::get(api, "/healthz").is_ok().then_some(()))
        })?;
        Ok(Served { api, process })
    }

    fn proc(&self, file: &str) -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/{file}", self.process.id()))?)
    }

    fn cpu_time(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        // Fields 14 and 15 (user and system time in ticks of 10 ms) count from the closing bracket of the name.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields = after_name.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident now, and at most so far.
    fn memory_mib(&self) -> Result<[f64; 2]> {
        let status = self.proc("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1024.0 / MIB)
        };
        let both = field("VmRSS:").zip(field("VmHWM:")).context("no memory in /proc")?;
        Ok([both.0, both.1])
    }
}

fn end_of(log: &Path) -> String {
    tail(&fs::read_to_string(log).unwrap_or_default(), 20)
}

/// The death of a node; times in milliseconds.
struct Death {
    led: f64,
    held: f64,
    decided: f64,
    told: f64,
    claimed: f64,
    dropped: f64,
    lost: f64,
}

/// All nodes.
struct Fleet {
    _process: Tied,
    log: std::path::PathBuf,
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Fleet {
    fn start(
        example: &Example,
        folder: &RunDir,
        api: SocketAddr,
        nodes: u32,
        seconds: f64,
    ) -> Result<Fleet> {
        let log = folder.join("fleet.log");
        let mut command = example.command(None, &format!("run http://{api} {nodes} {seconds}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut process = spawn(command)?;
        let words = process.stdin().context("the fleet's input")?;
        let answers = BufReader::new(process.stdout().context("the fleet's output")?);
        Ok(Fleet { _process: process, log, words, answers })
    }

    /// The numbers of its next line, which begins with this word, if any.
    fn answer<const N: usize>(&mut self, word: &str) -> Result<[f64; N]> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers = line.trim().strip_prefix(word).unwrap_or_default().split_whitespace();
        let numbers: Vec<f64> = numbers.filter_map(|word| word.parse().ok()).collect();
        let numbers = numbers.try_into().ok();
        numbers.with_context(|| format!("the fleet said {line:?}; {}", end_of(&self.log)))
    }

    fn kill(&mut self) -> Result<Death> {
        writeln!(self.words, "kill")?;
        let [led, held, decided, told, claimed, dropped, lost] = self.answer("")?;
        Ok(Death { led, held, decided, told, claimed, dropped, lost })
    }
}
