//! A cluster of native processes on this machine: a conductor and several nodes, each started, stopped, killed and frozen by
//! itself.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cli::Conductor;
use crate::guest::OUTSIDE;
use crate::http::{self, Metrics};
use crate::node::free_port;
use crate::nvme::{Target, Transport};
use crate::paths::{self, RunDir};
use crate::process::{Tied, spawn, tail, tied, wait_until};

const READY: Duration = Duration::from_secs(60);
/// How long a volume may take to have all its replicas in sync again.
const HEALED: Duration = Duration::from_secs(90);

/// One process of the cluster.
#[derive(Debug)]
struct Member {
    name: String,
    arguments: Vec<String>,
    program: &'static str,
    face: SocketAddr,
    process: Option<Tied>,
}

/// See the module. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    folder: RunDir,
    api: SocketAddr,
    optimised: bool,
    conductor: Member,
    nodes: Vec<Member>,
    ports: Vec<SocketAddr>,
}

impl Cluster {
    /// A conductor and `count` nodes with one file of `size` each, all of them ready.
    pub fn start(count: usize, size: &str) -> Result<Cluster> {
        Cluster::start_built(count, size, false)
    }

    /// The same, of release builds if `optimised`.
    pub fn start_built(count: usize, size: &str, optimised: bool) -> Result<Cluster> {
        let folder = RunDir::new("cluster")?;
        let api = free_port()?;
        let data = folder.join("conductor").display().to_string();
        let conductor = Member {
            name: "conductor".to_owned(),
            arguments: words(&["serve", "--data", &data, "--api", &api.to_string()]),
            program: "conductor",
            face: api,
            process: None,
        };
        let mut cluster =
            Cluster { folder, api, optimised, conductor, nodes: Vec::new(), ports: Vec::new() };
        cluster.start_conductor()?;
        for index in 0..count {
            let [fabric, peers, http] = [free_port()?, free_port()?, free_port()?];
            let name = format!("n{}", index + 1);
            let path =
                |what: &str| cluster.folder.join(&format!("{name}-{what}")).display().to_string();
            let arguments = words(&[
                "serve",
                "--node",
                &name,
                "--data",
                &path("data"),
                "--disk",
                &format!("{}:{size}", path("disk")),
                "--listen",
                &format!("tcp://{fabric}"),
                "--advertise",
                &format!("tcp://{OUTSIDE}:{}", fabric.port()),
                "--peer-listen",
                &format!("tcp://{peers}"),
                "--http",
                &http.to_string(),
                "--conductor",
                &format!("http://{api}"),
                "--reactors",
                "1",
                "--buffers",
                "64M",
            ]);
            cluster.nodes.push(Member {
                name,
                arguments,
                program: "afs",
                face: http,
                process: None,
            });
            cluster.ports.push(fabric);
            cluster.start_node(index)?;
        }
        Ok(cluster)
    }

    /// The conductor's command line.
    pub fn conductor(&self) -> Result<Conductor> {
        Conductor::new(self.api)
    }

    /// Starts the conductor, which does not run.
    pub fn start_conductor(&mut self) -> Result<()> {
        start(&self.folder, &mut self.conductor, self.optimised)
    }

    /// `kill -9` of the conductor.
    pub fn kill_conductor(&mut self) -> Result<()> {
        self.conductor.process.take().context("the conductor does not run")?.kill()
    }

    /// Starts a node that does not run.
    pub fn start_node(&mut self, index: usize) -> Result<()> {
        let node = self.nodes.get_mut(index).context("no such node")?;
        start(&self.folder, node, self.optimised)
    }

    /// `kill -9` of a node.
    pub fn kill_node(&mut self, index: usize) -> Result<()> {
        let node = self.nodes.get_mut(index).context("no such node")?;
        node.process.take().context("the node does not run")?.kill()
    }

    /// SIGTERM of a node, and its end.
    pub fn stop_node(&mut self, index: usize) -> Result<()> {
        let node = self.nodes.get_mut(index).context("no such node")?;
        let status = node.process.take().context("the node does not run")?.terminate(READY)?;
        ensure!(status.success(), "the node ended with {status}");
        Ok(())
    }

    /// SIGSTOP and, with `go`, SIGCONT.
    pub fn freeze(&self, index: usize, go: bool) -> Result<()> {
        let node = self.nodes.get(index).context("no such node")?;
        let id = node.process.as_ref().context("the node does not run")?.id();
        let pid = rustix::process::Pid::from_raw(i32::try_from(id)?).context("process id")?;
        let signal = if go { rustix::process::Signal::CONT } else { rustix::process::Signal::STOP };
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// What a node shows to Prometheus.
    pub fn metrics(&self, index: usize) -> Result<Metrics> {
        Metrics::scrape(self.nodes.get(index).context("no such node")?.face)
    }

    /// Where hosts in a guest reach a node.
    pub fn target(&self, index: usize) -> Result<Target> {
        let port = self.ports.get(index).context("no such node")?.port();
        Ok(Target { port, ..Target::new(Transport::Tcp, OUTSIDE) })
    }

    /// A replicated volume, exported to any host by every node.
    pub fn export(&self, volume: &str, size: &str, options: &str, nqn: &str) -> Result<()> {
        let conductor = self.conductor()?;
        conductor.call(&format!("volume create {volume} --size {size} {options}"))?;
        conductor.call(&format!("subsystem create {nqn}"))?;
        conductor.call(&format!("host allow {nqn} any"))?;
        conductor.call(&format!("namespace add {nqn} --volume {volume} --nsid 1"))?;
        Ok(())
    }

    /// The node that leads a volume, once one has claimed it.
    pub fn leader(&self, volume: &str) -> Result<usize> {
        let leader = wait_until("a leader", HEALED, || {
            let Ok(shown) = self.conductor()?.call(&format!("volume show {volume}")) else {
                return Ok(None);
            };
            Ok(leader_of(&shown))
        })?;
        let found = self.nodes.iter().position(|node| node.name == leader);
        found.with_context(|| format!("the leader {leader} is no node of ours"))
    }

    /// Waits until all replicas of a volume are in sync.
    pub fn healed(&self, volume: &str) -> Result<()> {
        let mut last = Value::Null;
        let waited = wait_until("all replicas to be in sync", HEALED, || {
            let Ok(shown) = self.conductor()?.call(&format!("volume show {volume}")) else {
                return Ok(None);
            };
            let good = leader_of(&shown).is_some() && out_of_sync(&shown) == 0;
            last = shown;
            Ok(good.then_some(()))
        });
        waited.with_context(|| format!("{last}\n{}", self.logs(15)))
    }

    /// The ends of all logs.
    pub fn logs(&self, lines: usize) -> String {
        let members = std::iter::once(&self.conductor).chain(&self.nodes);
        let logs = members.map(|member| {
            let log = fs::read_to_string(self.folder.join(&format!("{}.log", member.name)));
            format!("--- {}\n{}\n", member.name, tail(&log.unwrap_or_default(), lines))
        });
        logs.collect()
    }

    /// Fails when a log tells of a panic.
    pub fn assert_no_panic(&self) -> Result<()> {
        let all = self.logs(usize::MAX);
        match all.lines().find(|line| line.contains("panicked at")) {
            Some(line) => bail!("somebody panicked: {line}"),
            None => Ok(()),
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn leader_of(shown: &Value) -> Option<String> {
    let claimed = shown["claimed"].as_bool().unwrap_or(false);
    shown["leader"].as_str().filter(|_| claimed).map(str::to_owned)
}

fn out_of_sync(shown: &Value) -> usize {
    let replicas = shown["replicas"].as_array().into_iter().flatten();
    replicas.filter(|replica| replica["in_sync"].as_bool() != Some(true)).count()
}

fn start(folder: &RunDir, member: &mut Member, optimised: bool) -> Result<()> {
    ensure!(member.process.is_none(), "{} is running", member.name);
    let path = folder.join(&format!("{}.log", member.name));
    let log = fs::OpenOptions::new().create(true).append(true).open(&path)?;
    let program = match optimised {
        true => paths::built_release(member.program)?,
        false => paths::built(member.program)?,
    };
    let mut command = tied(program);
    command.args(&member.arguments);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut process = spawn(command)?;
    let ready = wait_until("a member of the cluster to be ready", READY, || {
        if let Some(status) = process.ended()? {
            bail!("{} ended: {status}", member.name);
        }
        Ok(http::get(member.face, "/healthz").is_ok().then_some(()))
    });
    ready.with_context(|| tail(&fs::read_to_string(&path).unwrap_or_default(), 20))?;
    member.process = Some(process);
    Ok(())
}
