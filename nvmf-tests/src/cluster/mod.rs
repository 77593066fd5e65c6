//! A cluster of native processes on this machine: nodes and conductors, each started, stopped, killed and frozen by itself.
//!
//! A [`Plan`] says how much of it there is: the plain one has one conductor and all on loopback; the full one has each node in a
//! network namespace of its own ([`network`]), two conductors, and real ZooKeeper and PostgreSQL. A stock host is in a guest.

mod manager;
mod member;
pub mod network;
mod plan;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cli::Conductor;
use crate::guest::Shell;
use crate::nvme::{self, Target};
use crate::paths::RunDir;
use crate::process::{tail, wait_until};
pub use member::Member;
pub use network::{Cut, Network};
pub use plan::{Plan, Servers};

/// How long a volume may take to have all its replicas in sync again.
const HEALED: Duration = Duration::from_secs(90);

/// See the module. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Processes end before the network and the folders that they use.
    /// The conductors.
    pub conductors: Vec<Member>,
    /// The nodes: `n1`, `n2` and so on.
    pub nodes: Vec<Member>,
    targets: Vec<Target>,
    servers: Option<Servers>,
    network: Option<Network>,
    folder: RunDir,
}

impl Cluster {
    /// Starts everything and waits until all are well.
    pub fn start(plan: &Plan) -> Result<Cluster> {
        let network = plan.full.then(|| Network::new(plan.nodes)).transpose()?;
        let servers = network.as_ref().map(|network| Servers::start(network.outside()));
        let mut cluster = Cluster {
            conductors: Vec::new(),
            nodes: Vec::new(),
            targets: Vec::new(),
            servers: servers.transpose()?,
            network,
            folder: RunDir::new("cluster")?,
        };
        for index in 0..if plan.full { 2 } else { 1 } {
            let mut conductor = cluster.plan_conductor(plan, index)?;
            // The first is ready alone; it makes the tables.
            conductor.start()?;
            cluster.conductors.push(conductor);
        }
        for index in 0..plan.nodes {
            let (mut node, target) = cluster.plan_node(plan, index)?;
            node.start()?;
            cluster.nodes.push(node);
            cluster.targets.push(target);
        }
        Ok(cluster)
    }

    /// The conductor's command line, whichever is active.
    pub fn conductor(&self) -> Result<Conductor> {
        let faces: Vec<_> = self.conductors.iter().map(Member::face).collect();
        Conductor::of_several(&faces)
    }

    /// The conductor that is active, once there is one.
    pub fn active(&self) -> Result<usize> {
        wait_until("an active conductor", HEALED, || {
            Ok(self.conductors.iter().position(|conductor| {
                let metrics = conductor.metrics();
                metrics.is_ok_and(|metrics| metrics.sum("afs_conductor_active") == Some(1.0))
            }))
        })
    }

    /// ZooKeeper and PostgreSQL of a full cluster.
    pub fn servers(&mut self) -> Result<&mut Servers> {
        self.servers.as_mut().context("this cluster has neither ZooKeeper nor PostgreSQL")
    }

    /// The network of a full cluster.
    pub fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("this cluster is on loopback")
    }

    /// Where hosts in a guest reach a node.
    pub fn target(&self, index: usize) -> Result<&Target> {
        self.targets.get(index).context("no such node")
    }

    /// A replicated volume, exported to any host by every node.
    pub fn export(&self, volume: &str, size: &str, options: &str, nqn: &str) -> Result<()> {
        self.conductor()?.export_with(volume, size, options, nqn)
    }

    /// Connects a host to every node; the disk that they are one of.
    pub fn connect(&self, host: &Shell, nqn: &str, options: &str) -> Result<String> {
        nvme::connect_all(host, &self.targets, nqn, options)
    }

    /// The node that leads a volume, once one has claimed it.
    pub fn leader(&self, volume: &str) -> Result<usize> {
        self.leader_but(volume, None)
    }

    /// The same, once it is another one than `but`.
    pub fn leader_but(&self, volume: &str, but: Option<usize>) -> Result<usize> {
        let but = but.and_then(|index| self.nodes.get(index)).map(Member::name);
        let leader = wait_until("a leader", HEALED, || {
            let Ok(shown) = self.conductor()?.call(&format!("volume show {volume}")) else {
                return Ok(None);
            };
            Ok(leader_of(&shown).filter(|leader| Some(leader.as_str()) != but))
        });
        let leader = leader.with_context(|| self.logs(15))?;
        let found = self.nodes.iter().position(|node| node.name() == leader);
        found.with_context(|| format!("the leader {leader} is no node of ours"))
    }

    /// Waits until all replicas of a volume are in sync.
    pub fn healed(&self, volume: &str) -> Result<()> {
        let mut last = Value::Null;
        let waited = wait_until("all replicas to be in sync", HEALED, || {
            let Ok(shown) = self.conductor()?.call(&format!("volume show {volume}")) else {
                return Ok(None);
            };
            let good = is_whole(&shown);
            last = shown;
            Ok(good.then_some(()))
        });
        waited.with_context(|| format!("{last}\n{}", self.logs(15)))
    }

    /// Lets each node lead a volume in turn and reads the whole disk: the replicas must be the same. The leader reads its own.
    pub fn assert_replicas_equal(&self, volume: &str, host: &Shell, disk: &str) -> Result<()> {
        let mut sums = Vec::new();
        for node in &self.nodes {
            self.conductor()?.call(&format!("volume lead {volume} --on {}", node.name()))?;
            self.healed(volume)?;
            sums.push(
                host.ok(&format!("dd if={disk} bs=1M iflag=direct status=none | sha256sum"))?,
            );
        }
        ensure!(sums.windows(2).all(|pair| pair[0] == pair[1]), "replicas differ: {sums:?}");
        Ok(())
    }

    /// The ends of all logs.
    pub fn logs(&self, lines: usize) -> String {
        let logs = self
            .members()
            .map(|member| format!("--- {}\n{}\n", member.name(), tail(&member.log(), lines)));
        logs.collect()
    }

    /// Fails when a log tells of a panic.
    pub fn assert_no_panic(&self) -> Result<()> {
        for member in self.members() {
            if let Some(line) = member.log().lines().find(|line| line.contains("panicked at")) {
                bail!("{} panicked: {line}", member.name());
            }
        }
        Ok(())
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.conductors.iter().chain(&self.nodes)
    }
}

/// The leader in what `volume show` says, once it has claimed the volume.
pub(crate) fn leader_of(shown: &Value) -> Option<String> {
    let claimed = shown["claimed"].as_bool().unwrap_or(false);
    shown["leader"].as_str().filter(|_| claimed).map(str::to_owned)
}

/// Whether `volume show` tells of a leader and of replicas that are all in sync.
pub(crate) fn is_whole(shown: &Value) -> bool {
    let replicas = shown["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    let in_sync = |replica: &Value| replica["in_sync"].as_bool() == Some(true);
    leader_of(shown).is_some() && !replicas.is_empty() && replicas.iter().all(in_sync)
}
