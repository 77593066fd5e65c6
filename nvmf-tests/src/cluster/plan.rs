//! What a cluster is made of, and the command lines of its members.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Cluster, Member, Network};
use crate::guest::OUTSIDE;
use crate::node::free_port;
use crate::nvme::{Target, Transport};
use crate::paths;
use crate::process::tied;
use crate::{postgres, zookeeper};

/// Ports of a node that has an address of its own.
const PEERS_PORT: u16 = 4430;
const HTTP_PORT: u16 = 49181;

/// As short as ZooKeeper's ticks in the lab allow without taking a busy machine for a dead one.
const SESSION_MS: &str = "2000";
const NAME: &str = "lab";

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes, each with one file as its disk.
    pub nodes: usize,
    /// Size of that file.
    pub disk: String,
    /// Run release builds, for measurements.
    pub optimised: bool,
    /// Each node in a network namespace of its own, two conductors with PostgreSQL, elected by ZooKeeper. Else
    /// all on loopback, and one conductor with a file.
    pub full: bool,
    /// Each node has a service manager that kills it when it stands still, and starts it again.
    pub watched: bool,
}

impl Plan {
    /// Three nodes with 1 GiB each, development builds.
    pub fn small() -> Self {
        Self { nodes: 3, disk: "1G".to_owned(), optimised: false, full: false, watched: false }
    }

    /// The same with namespaces, ZooKeeper, PostgreSQL and a second conductor.
    pub fn full() -> Self {
        Self { full: true, ..Self::small() }
    }

    /// The same of release builds, if `optimised`.
    pub fn optimised(self, optimised: bool) -> Self {
        Self { optimised, ..self }
    }

    /// The same with a service manager for each node.
    pub fn watched(self) -> Self {
        Self { watched: true, ..self }
    }

    fn program(&self, name: &str) -> Result<std::path::PathBuf> {
        if self.optimised { paths::built_release(name) } else { paths::built(name) }
    }
}

/// The servers that only a full cluster has.
#[derive(Debug)]
pub struct Servers {
    /// Where conductors are elected and nodes register.
    pub zookeeper: zookeeper::Server,
    /// Where decisions are kept.
    pub postgres: postgres::Server,
    database: String,
}

impl Servers {
    pub(super) fn start(outside: Ipv4Addr) -> Result<Self> {
        let postgres = postgres::Server::start()?;
        let zookeeper = zookeeper::Server::start_on(outside)?;
        let database = postgres.url(&postgres.new_database()?);
        Ok(Self { zookeeper, postgres, database })
    }
}

impl Cluster {
    /// A conductor, in no order with others.
    pub(super) fn plan_conductor(&self, plan: &Plan, index: usize) -> Result<Member> {
        let name = format!("c{}", index + 1);
        let ip = self.network.as_ref().map_or(Ipv4Addr::LOCALHOST, Network::outside);
        let api = SocketAddr::new(IpAddr::V4(ip), free_port()?.port());
        let mut command = tied(plan.program("conductor")?);
        command.args(["serve", "--api", &api.to_string()]);
        match &self.servers {
            Some(servers) => {
                command.args(["--database", &servers.database]);
                registers(&mut command, servers);
            }
            None => {
                command.arg("--data").arg(self.folder.join("conductor"));
            }
        }
        let log = self.folder.join(&format!("{name}.log"));
        Ok(Member::new(name, command, api, log))
    }

    /// A node, and where a guest reaches it.
    pub(super) fn plan_node(&self, plan: &Plan, index: usize) -> Result<(Member, Target)> {
        let name = format!("n{}", index + 1);
        let program = plan.program("afs")?;
        let (mut command, faces, target) = match &self.network {
            Some(network) => {
                let ip = network.node(index);
                let ports = [Target::PORT, PEERS_PORT, HTTP_PORT];
                let faces = ports.map(|port| SocketAddr::new(IpAddr::V4(ip), port));
                let target = Target::new(Transport::Tcp, ip.to_string());
                (network.tied(index, program)?, faces, target)
            }
            None => {
                let faces = [free_port()?, free_port()?, free_port()?];
                let target = Target::new(Transport::Tcp, OUTSIDE);
                (tied(program), faces, Target { port: faces[0].port(), ..target })
            }
        };
        let [fabric, peers, http] = faces;
        let path = |what: &str| self.folder.join(&format!("{name}-{what}")).display().to_string();
        command.args(["serve", "--node", &name, "--data", &path("data")]);
        command.args(["--disk", &format!("{}:{}", path("disk"), plan.disk)]);
        command.args(["--listen", &format!("tcp://{fabric}"), "--advertise", &target.url()]);
        command.args(["--peer-listen", &format!("tcp://{peers}"), "--http", &http.to_string()]);
        command.args(["--reactors", "1", "--buffers", "64M"]);
        match &self.servers {
            Some(servers) => registers(&mut command, servers),
            None => {
                let conductor = self.conductors.first().context("no conductor")?.face();
                command.args(["--conductor", &format!("http://{conductor}")]);
            }
        }
        let log = self.folder.join(&format!("{name}.log"));
        let member = Member::new(name, command, http, log);
        member.watch(plan.watched);
        Ok((member, target))
    }
}

/// Members of a full cluster find each other through ZooKeeper alone.
fn registers(command: &mut Command, servers: &Servers) {
    command.args(["--zookeeper", &servers.zookeeper.address(), "--cluster", NAME]);
    command.args(["--zookeeper-session-timeout-ms", SESSION_MS]);
}
