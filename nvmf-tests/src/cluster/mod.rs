//! A cluster on this machine: nodes and conductors, each started, stopped, killed and frozen by itself.
//!
//! A [`Plan`] says how much of it there is: the plain one has one conductor and all on loopback; the full one has two conductors,
//! real ZooKeeper and PostgreSQL, and each node in a network namespace of its own ([`network`]) or, for RDMA, in a guest. A stock
//! host is in a guest.

mod guests;
mod manager;
mod member;
pub mod network;
mod plan;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cli::Conductor;
use crate::guest::{Guest, Shell};
use crate::nvme::{self, Target, Transport};
use crate::paths::RunDir;
use crate::prepare::Kernel;
use crate::process::{tail, wait_until};
use guests::Guests;
pub use member::Member;
pub use network::Cut;
use network::Network;
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
    ground: Ground,
    folder: RunDir,
}

/// Where the nodes are.
#[derive(Debug)]
enum Ground {
    Loopback,
    Namespaces(Network),
    Guests(Box<Guests>),
}

impl Ground {
    /// This machine's own address where not all is on loopback.
    fn outside(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Loopback => None,
            Self::Namespaces(network) => Some(network.outside()),
            Self::Guests(guests) => Some(guests.network().outside()),
        }
    }

    fn guests(&self) -> Result<&Guests> {
        match self {
            Self::Guests(guests) => Ok(guests),
            Self::Loopback | Self::Namespaces(_) => bail!("the nodes of this cluster are native"),
        }
    }
}

impl Cluster {
    /// Starts everything and waits until all are well.
    pub fn start(plan: &Plan) -> Result<Cluster> {
        Self::start_on(
            plan,
            match plan.full {
                true => Ground::Namespaces(Network::new(plan.nodes)?),
                false => Ground::Loopback,
            },
        )
    }

    /// A full cluster whose nodes reach each other and hosts by RDMA: one has a guest of its own, the others are in that of the
    /// host, which has two cables.
    pub fn start_in_guests(plan: &Plan, host: &Guest, kernel: Kernel) -> Result<Cluster> {
        ensure!(plan.full, "nodes in guests find their conductors by ZooKeeper");
        Self::start_on(plan, Ground::Guests(Box::new(Guests::start(host, kernel)?)))
    }

    fn start_on(plan: &Plan, ground: Ground) -> Result<Cluster> {
        let servers = ground.outside().map(Servers::start);
        let mut cluster = Cluster {
            conductors: Vec::new(),
            nodes: Vec::new(),
            targets: Vec::new(),
            servers: servers.transpose()?,
            ground,
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

    /// Drops packets at a node from now on; in guests at the first one.
    pub fn cut(&self, index: usize, cut: Cut) -> Result<()> {
        match &self.ground {
            Ground::Loopback => bail!("this cluster is on loopback"),
            Ground::Namespaces(network) => network.cut(index, cut),
            Ground::Guests(guests) => guests.cut(index, cut),
        }
    }

    /// Lets everything pass again.
    pub fn mend(&self, index: usize) -> Result<()> {
        match &self.ground {
            Ground::Loopback => bail!("this cluster is on loopback"),
            Ground::Namespaces(network) => network.mend(index),
            Ground::Guests(guests) => guests.mend(),
        }
    }

    /// Takes the RDMA device away by which nodes in the host's guest reach others; TCP stays.
    pub fn remove_device_between_nodes(&self) -> Result<()> {
        self.ground.guests()?.remove_device_between_nodes()
    }

    /// Gives it back.
    pub fn restore_device_between_nodes(&self) -> Result<()> {
        self.ground.guests()?.restore_device_between_nodes()
    }

    /// Waits until the leader of a volume, which talks to all other nodes, does so by `transport`.
    pub fn leader_reaches_peers_by(&self, volume: &str, transport: Transport) -> Result<()> {
        let others = self.nodes.len() - 1;
        let mut last = Vec::new();
        wait_until("the leader to reach the others as expected", HEALED, || {
            let leader = self.leader(volume)?;
            last = self
                .nodes
                .get(leader)
                .map(|node| ways(&node.log_of_this_life()))
                .unwrap_or_default();
            let prefix = format!("{transport}://");
            let good = last.len() == others && last.iter().all(|way| way.starts_with(&prefix));
            Ok(good.then_some(()))
        })
        .with_context(|| format!("over {transport}: {last:?}\n{}", self.logs(15)))
    }

    /// Moves a volume, and waits until it is led by that node with all replicas in sync.
    pub fn lead(&self, volume: &str, index: usize) -> Result<()> {
        let node = self.nodes.get(index).context("no such node")?;
        let name = node.name();
        let mut denied = String::new();
        // One that was cut off is refused until it reaches others again. One that is not refused leads, although it may have to
        // connect to the others first, which takes emulated machines a second by RDMA.
        wait_until("the node to be given the volume", HEALED, || {
            let called = self.conductor()?.call(&format!("volume lead {volume} --on {name}"));
            denied = called.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
            Ok(called.is_ok().then_some(()))
        })
        .with_context(|| denied)?;
        wait_until("the node to serve", HEALED, || {
            let metrics = node.metrics().ok();
            let serving = metrics.and_then(|metrics| metrics.sum("afs_volume_serving"));
            Ok((serving == Some(1.0)).then_some(()))
        })?;
        self.healed(volume)?;
        let leader = self.leader(volume)?;
        ensure!(leader == index, "{name} was to lead, but node {} does", leader + 1);
        Ok(())
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
        for index in 0..self.nodes.len() {
            self.lead(volume, index)?;
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

    /// Fails when a log tells of a panic, or a process ended by itself.
    pub fn assert_well(&self) -> Result<()> {
        for member in self.members() {
            if let Some(how) = member.ended()? {
                bail!("{} ended by itself: {how}", member.name());
            }
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

/// The last way by which a node that logged this connected to each other one.
fn ways(log: &str) -> Vec<String> {
    let mut last = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("connected to a peer")) {
        let field = |name: &str| {
            let rest = line.split_once(&format!(" {name}="))?.1;
            rest.split_whitespace().next().map(str::to_owned)
        };
        if let (Some(node), Some(way)) = (field("node"), field("way")) {
            last.insert(node, way);
        }
    }
    last.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_way_to_each_node_counts() {
        let log = "x INFO afs: connected to a peer node=node-2 way=rdma://10.0.0.2:1\n\
                   x INFO afs: connected to a peer node=node-3 way=rdma://10.0.0.3:1\n\
                   x INFO afs: something else node=node-3 way=none\n\
                   x INFO afs: connected to a peer node=node-2 way=tcp://10.0.0.2:1\n";
        assert_eq!(ways(log), ["tcp://10.0.0.2:1", "rdma://10.0.0.3:1"]);
    }
}
