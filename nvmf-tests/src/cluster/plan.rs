//! What a cluster is made of, and the command lines of its members.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};

use super::guests::PEERS_BY;
use super::{Cluster, Ground, Member};
use crate::guest::{OUTSIDE, Program};
use crate::node::free_port;
use crate::nvme::{Target, Transport};
use crate::paths;
use crate::process::tied;
use crate::scene::NODE_FOLDER;
use crate::{postgres, zookeeper};

/// Ports of a node that has an address of its own.
const PEERS_PORT: u16 = 4430;
const HTTP_PORT: u16 = 49181;

/// As short as ZooKeeper's ticks in the lab allow without taking a busy machine for a dead one; an emulated one is slower.
const SESSION_MS: u32 = 2000;
const SESSION_IN_GUEST_MS: u32 = 6000;
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
    /// Each node with an address of its own, two conductors with PostgreSQL, elected by ZooKeeper. Else all on loopback, and
    /// one conductor with a file.
    pub full: bool,
    /// Each node has a service manager that kills it when it stands still, and starts it again.
    pub watched: bool,
}

impl Plan {
    /// Three nodes with 1 GiB each, development builds.
    pub fn small() -> Self {
        Self { nodes: 3, disk: "1G".to_owned(), optimised: false, full: false, watched: false }
    }

    /// The same with networks, ZooKeeper, PostgreSQL and a second conductor.
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

    /// Members of a full cluster find each other through ZooKeeper alone.
    fn arguments(&self, session_ms: u32) -> Vec<String> {
        let zookeeper = self.zookeeper.address();
        let session = session_ms.to_string();
        ["--zookeeper", &zookeeper, "--cluster", NAME, "--zookeeper-session-timeout-ms", &session]
            .map(str::to_owned)
            .to_vec()
    }
}

impl Cluster {
    /// A conductor, in no order with others.
    pub(super) fn plan_conductor(&self, plan: &Plan, index: usize) -> Result<Member> {
        let name = format!("c{}", index + 1);
        let ip = self.ground.outside().unwrap_or(Ipv4Addr::LOCALHOST);
        let api = SocketAddr::new(IpAddr::V4(ip), free_port()?.port());
        let mut command = tied(plan.program("conductor")?);
        command.args(["serve", "--api", &api.to_string()]);
        match &self.servers {
            Some(servers) => {
                command.args(["--database", &servers.database]);
                command.args(servers.arguments(SESSION_MS));
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
        let log = self.folder.join(&format!("{name}.log"));
        let (member, target) = match &self.ground {
            Ground::Loopback => {
                let [fabric, peers, http] = [free_port()?, free_port()?, free_port()?];
                let target = Target { port: fabric.port(), ..Target::new(Transport::Tcp, OUTSIDE) };
                let seat = self.native_seat(fabric, peers, http, target);
                let mut command = tied(program);
                command.args(self.node_arguments(plan, &name, &seat)?);
                (Member::new(name, command, http, log), seat.target)
            }
            Ground::Namespaces(network) => {
                let ip = IpAddr::V4(network.node(index));
                let face = |port| SocketAddr::new(ip, port);
                let target = Target::new(Transport::Tcp, ip.to_string());
                let (fabric, http) = (face(Target::PORT), face(HTTP_PORT));
                let seat = self.native_seat(fabric, face(PEERS_PORT), http, target);
                let mut command = network.tied(index, program)?;
                command.args(self.node_arguments(plan, &name, &seat)?);
                (Member::new(name, command, http, log), seat.target)
            }
            Ground::Guests(guests) => {
                let place = guests.place(index)?;
                let target = Target::new(Transport::Rdma, place.address);
                let seat = Seat {
                    folder: NODE_FOLDER.to_owned(),
                    listen: target.url(),
                    peers: PEERS_BY
                        .map(|by| format!("{by}://{}:{PEERS_PORT}", place.peers))
                        .join(","),
                    http: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), place.http),
                    session_ms: SESSION_IN_GUEST_MS,
                    target,
                };
                let words = self.node_arguments(plan, &name, &seat)?.join(" ");
                let command = format!("exec {} {words}", program.display());
                let program = Program::new(place.shell, &name, &command, &[place.http]);
                (Member::in_guest(program, place.face), seat.target)
            }
        };
        member.watch(plan.watched);
        Ok((member, target))
    }

    fn native_seat(
        &self,
        fabric: SocketAddr,
        peers: SocketAddr,
        http: SocketAddr,
        target: Target,
    ) -> Seat {
        Seat {
            folder: self.folder.path().display().to_string(),
            listen: format!("tcp://{fabric}"),
            peers: format!("tcp://{peers}"),
            http,
            session_ms: SESSION_MS,
            target,
        }
    }

    fn node_arguments(&self, plan: &Plan, name: &str, seat: &Seat) -> Result<Vec<String>> {
        let path = |what: &str| format!("{}/{name}-{what}", seat.folder);
        let disk = format!("{}:{}", path("disk"), plan.disk);
        let (data, http, advertised) = (path("data"), seat.http.to_string(), seat.target.url());
        let words = ["serve", "--node", name, "--data", &data, "--disk", &disk];
        let faces = ["--listen", &seat.listen, "--advertise", &advertised, "--http", &http];
        let others = ["--peer-listen", &seat.peers, "--reactors", "1", "--buffers", "64M"];
        let words = words.into_iter().chain(faces).chain(others);
        let mut words: Vec<String> = words.map(str::to_owned).collect();
        match &self.servers {
            Some(servers) => words.extend(servers.arguments(seat.session_ms)),
            None => {
                let conductor = self.conductors.first().context("no conductor")?.face();
                words.extend(["--conductor".to_owned(), format!("http://{conductor}")]);
            }
        }
        Ok(words)
    }
}

/// Where a node is, as it is told.
struct Seat {
    folder: String,
    /// What hosts are told.
    target: Target,
    listen: String,
    peers: String,
    http: SocketAddr,
    session_ms: u32,
}
