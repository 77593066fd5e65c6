//! A cluster in one guest: a conductor and nodes, each with addresses of its own on two soft RDMA devices, one for hosts and one for
//! the other nodes.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cli::Conductor;
use crate::cluster::{is_whole, leader_of};
use crate::guest::{Guest, Program, soft_rdma};
use crate::guest_node::{API_PORT, HTTP_PORT};
use crate::nvme::{Target, Transport};
use crate::process::{tail, wait_until};

/// The soft RDMA device by which nodes reach each other.
pub const PEERS_DEVICE: u32 = 0;
/// The one by which hosts reach them.
pub const HOSTS_DEVICE: u32 = 1;
const PEERS_PORT: u16 = 4430;
/// Nodes have the addresses from this one on in both networks.
const FIRST_ADDRESS: u8 = 11;
/// How long a volume may take to have a leader, or all its replicas in sync again.
const HEALED: Duration = Duration::from_secs(90);

/// See the module. Everything goes when it is dropped.
#[derive(Debug)]
pub struct GuestCluster {
    api: SocketAddr,
    conductor: Program,
    nodes: Vec<Program>,
    targets: Vec<Target>,
}

impl GuestCluster {
    /// A conductor and `count` nodes with one file of `size` each in `folder` of the guest, all of them ready. The guest has both
    /// devices up.
    pub fn start(
        guest: &Guest,
        programs: &Path,
        folder: &str,
        count: u8,
        size: &str,
    ) -> Result<Self> {
        guest.ok(&format!("rm -rf {folder}/*"))?;
        let command = format!(
            "exec {} serve --data {folder}/conductor --api 0.0.0.0:{API_PORT}",
            programs.join("conductor").display()
        );
        let conductor = Program::new(guest, "conductor", &command, &[API_PORT]);
        let api = guest.forwarded(API_PORT)?;
        let mut cluster = Self { api, conductor, nodes: Vec::new(), targets: Vec::new() };
        cluster.conductor.start()?;
        let afs = programs.join("afs");
        for index in 0..count {
            let name = format!("n{}", index + 1);
            let address = soft_rdma::add_address(guest, HOSTS_DEVICE, FIRST_ADDRESS + index)?;
            let target = Target::new(Transport::Rdma, address);
            let peers = soft_rdma::add_address(guest, PEERS_DEVICE, FIRST_ADDRESS + index)?;
            let http = HTTP_PORT + u16::from(index);
            let command = format!(
                "exec {} serve --node {name} --data {folder}/{name} --disk {folder}/{name}.disk:{size} --listen {} \
                 --peer-listen rdma://{peers}:{PEERS_PORT},tcp://{peers}:{PEERS_PORT} --http 0.0.0.0:{http} \
                 --conductor http://127.0.0.1:{API_PORT} --reactors 1 --buffers 64M",
                afs.display(),
                target.url()
            );
            let mut node = Program::new(guest, &name, &command, &[http]);
            node.launch()?;
            cluster.nodes.push(node);
            cluster.targets.push(target);
        }
        cluster.nodes.iter_mut().try_for_each(Program::ready)?;
        Ok(cluster)
    }

    /// The conductor's command line.
    pub fn conductor(&self) -> Result<Conductor> {
        Conductor::new(self.api)
    }

    /// Where hosts in the guest reach the nodes.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The conductor's process.
    pub fn conductor_program(&mut self) -> &mut Program {
        &mut self.conductor
    }

    /// Kills the conductor and all nodes.
    pub fn kill_all(&mut self) -> Result<()> {
        self.members().try_for_each(Program::kill)
    }

    /// Starts them again.
    pub fn start_all(&mut self) -> Result<()> {
        self.conductor.start()?;
        self.nodes.iter_mut().try_for_each(Program::launch)?;
        self.nodes.iter_mut().try_for_each(Program::ready)
    }

    fn members(&mut self) -> impl Iterator<Item = &mut Program> {
        std::iter::once(&mut self.conductor).chain(&mut self.nodes)
    }

    /// A node by its index.
    pub fn node(&mut self, index: usize) -> Result<&mut Program> {
        self.nodes.get_mut(index).context("no such node")
    }

    /// The node that leads a volume, once one has claimed it.
    pub fn leader(&self, volume: &str) -> Result<usize> {
        let name = wait_until("a leader", HEALED, || Ok(leader_of(&self.shown(volume))))?;
        let found = self.nodes.iter().position(|node| node.name() == name);
        found.with_context(|| format!("the leader {name} is no node of ours"))
    }

    /// Waits until a volume has a leader and all its replicas are in sync.
    pub fn healed(&self, volume: &str) -> Result<()> {
        let mut last = Value::Null;
        wait_until("all replicas to be in sync", HEALED, || {
            last = self.shown(volume);
            Ok(is_whole(&last).then_some(()))
        })
        .with_context(|| last.to_string())
    }

    fn shown(&self, volume: &str) -> Value {
        let shown = self.conductor().and_then(|it| it.call(&format!("volume show {volume}")));
        // It may be about to elect, or busy.
        shown.unwrap_or_default()
    }

    /// Waits until the leader of a volume, which talks to all other nodes, does so by `transport`.
    pub fn leader_reaches_peers_by(&mut self, volume: &str, transport: Transport) -> Result<()> {
        let others = self.nodes.len() - 1;
        let mut last = Vec::new();
        wait_until("the leader to reach the others as expected", HEALED, || {
            let Some(name) = leader_of(&self.shown(volume)) else { return Ok(None) };
            let node = self.nodes.iter_mut().find(|node| node.name() == name);
            last = node.map(|node| ways(&node.log_of_this_life())).unwrap_or_default();
            let prefix = format!("{transport}://");
            let good = last.len() == others && last.iter().all(|way| way.starts_with(&prefix));
            Ok(good.then_some(()))
        })
        .with_context(|| format!("over {transport}: {last:?}"))
    }

    /// The ends of all logs.
    pub fn logs(&mut self, lines: usize) -> String {
        let logs = self.members().map(|member| {
            let log = tail(&member.log(), lines);
            format!("--- {}\n{log}\n", member.name())
        });
        logs.collect()
    }

    /// Fails when a log tells of a panic, or a process ended by itself.
    pub fn assert_well(&mut self) -> Result<()> {
        for member in self.members() {
            if let Some(line) = member.log().lines().find(|line| line.contains("panicked at")) {
                bail!("{} panicked: {line}", member.name());
            }
            if let Some(code) = member.ended() {
                bail!("{} ended by itself with {code}", member.name());
            }
        }
        Ok(())
    }
}

/// The last way by which a node that logged this connected to each other one.
fn ways(log: &str) -> Vec<String> {
    let mut last = std::collections::BTreeMap::new();
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
