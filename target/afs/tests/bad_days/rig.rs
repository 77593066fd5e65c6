//! A cluster for one test: a conductor in this process, nodes as processes of their own, each with a disk that is a file.

use std::path::PathBuf;
use std::time::Duration;

use conductor::server::{Conductor, ConductorConfig, Running as RunningConductor};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::common::{Place, Running, afs, free_address, http, wait_for};

pub const NQN: &str = "nqn.2026-11.test:bad-days";
pub const VOLUME: &str = "v";

/// See the module. Everything ends with it.
pub struct Cluster {
    runtime: Runtime,
    conductor: Option<RunningConductor>,
    pub nodes: Vec<Member>,
    /// The conductor's folder and address.
    place: Place,
}

pub struct Member {
    pub name: String,
    pub place: Place,
    pub peers: std::net::SocketAddr,
    pub size: &'static str,
    pub reactors: u8,
    /// The path of its disk.
    pub disk: PathBuf,
    pub running: Option<Running>,
}

impl Member {
    fn new(number: usize, size: &'static str) -> Member {
        let place = Place::new();
        let disk = place.path("disk");
        let name = format!("n{number}");
        Member { name, place, peers: free_address(), size, reactors: 1, disk, running: None }
    }

    fn start(&mut self, conductor: &Place) {
        let mut command = afs(&["serve", "--buffers", "64M"]);
        command.args(["--reactors", &self.reactors.to_string()]);
        command.args(["--node", &self.name]).arg("--data").arg(self.place.path("data"));
        command.arg("--disk").arg(format!("{}:{}", self.disk.display(), self.size));
        command.arg("--listen").arg(format!("tcp://{}", self.place.portal));
        command.arg("--peer-listen").arg(format!("tcp://{}", self.peers));
        command.arg("--http").arg(self.place.http.to_string());
        command.arg("--conductor").arg(format!("http://{}", conductor.api));
        self.running = Some(Running::start(&mut command));
    }

    pub fn wait_until_serving(&self) {
        wait_for(&format!("{} to serve", self.name), || {
            (self.place.node("/healthz").0 == 200).then_some(())
        });
    }

    pub fn signal(&self, name: &str) {
        self.running.as_ref().unwrap().signal(name);
    }

    pub fn kill(&mut self) {
        self.running.take().unwrap().kill();
    }

    /// One of its metrics, all series added.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.place.node("/metrics").1;
        let series = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Cluster {
    /// Nodes with disks of these sizes, and no volume yet.
    pub fn start(sizes: &[&'static str]) -> Cluster {
        let runtime = Runtime::new().unwrap();
        let nodes = (1..).zip(sizes).map(|(number, size)| Member::new(number, size)).collect();
        let mut cluster = Cluster { runtime, conductor: None, nodes, place: Place::new() };
        cluster.start_conductor();
        for index in 0..cluster.nodes.len() {
            cluster.start_node(index);
        }
        cluster.nodes.iter().for_each(Member::wait_until_serving);
        wait_for("all disks to be known", || {
            let disks = cluster.place.call_if_there("/api/v1/disks")?;
            let online = disks.as_array()?.iter().filter(|disk| disk["state"] == "online");
            (online.count() == sizes.len()).then_some(())
        });
        cluster
    }

    /// Three nodes with a volume of 64 MiB on all of them that needs two, exported to any host by each.
    pub fn with_volume() -> Cluster {
        let cluster = Cluster::start(&["256M", "256M", "256M"]);
        cluster.make_volume(64 << 20);
        cluster
    }

    pub fn make_volume(&self, bytes: u64) {
        let replicas = self.nodes.len().min(3);
        let min = replicas.div_ceil(2);
        self.call(
            "POST",
            "/api/v1/volumes",
            json!({ "name": VOLUME, "size_bytes": bytes, "replicas": replicas, "min_in_sync": min }),
        );
        self.call("POST", "/api/v1/subsystems", json!({ "nqn": NQN }));
        let subsystem = format!("/api/v1/subsystems/{NQN}");
        self.call("POST", &format!("{subsystem}/hosts"), json!({ "host": "any" }));
        self.call("POST", &format!("{subsystem}/namespaces"), json!({ "volume": VOLUME }));
        self.healed();
    }

    pub fn start_conductor(&mut self) {
        let mut config =
            ConductorConfig::new(self.place.path("conductor").as_path(), self.place.api);
        config.node_timeout = Duration::from_secs(3);
        let started = self.runtime.block_on(Conductor::start(config));
        self.conductor = Some(started.unwrap());
    }

    /// Ends a node in good order and starts it with so many reactors.
    pub fn restart_with(&mut self, index: usize, reactors: u8) {
        self.stop_node(index);
        self.nodes[index].reactors = reactors;
        self.start_node(index);
        self.nodes[index].wait_until_serving();
        self.healed();
    }

    pub fn stop_conductor(&mut self) {
        self.runtime.block_on(self.conductor.take().unwrap().stop());
    }

    /// The conductor's URL.
    pub fn api(&self) -> String {
        format!("http://{}", self.place.api)
    }

    /// The conductor's folder.
    pub fn metadb(&self) -> PathBuf {
        self.place.path("conductor")
    }

    pub fn start_node(&mut self, index: usize) {
        self.nodes[index].start(&self.place);
    }

    /// Ends a node in good order.
    pub fn stop_node(&mut self, index: usize) {
        let running = self.nodes[index].running.take().unwrap();
        running.signal("TERM");
        let (status, output) = running.wait();
        assert!(status.success(), "{output}");
    }

    /// The nodes that hold a replica of the volume, and one that does not.
    pub fn nodes_with_and_without(&self) -> (Vec<usize>, usize) {
        let volume = self.volume().unwrap();
        let replicas = volume["replicas"].as_array().unwrap().iter();
        let with: Vec<_> =
            replicas.map(|replica| self.index(replica["node"].as_str().unwrap())).collect();
        let without = (0..self.nodes.len()).find(|node| !with.contains(node)).unwrap();
        (with, without)
    }

    /// Stops nodes where they stand.
    pub fn still(&self, nodes: &[usize]) {
        nodes.iter().for_each(|node| self.nodes[*node].running.as_ref().unwrap().stand_still());
    }

    /// Lets stopped nodes run again.
    pub fn go_on(&self, nodes: &[usize]) {
        nodes.iter().for_each(|node| self.nodes[*node].signal("CONT"));
    }

    /// Waits until a host's command is under way in a node.
    pub fn wait_in_flight(&self, node: usize) {
        wait_for("a command to be under way", || {
            (self.nodes[node].metric("afs_queue_in_flight") > 0.0).then_some(())
        });
    }

    /// A call of the conductor that it must grant.
    pub fn call(&self, method: &str, path: &str, body: Value) -> Value {
        self.place.call(method, path, body)
    }

    /// A call of the conductor, and its status.
    pub fn try_call(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        http(method, &format!("http://{}{path}", self.place.api), Some(body))
    }

    pub fn volume(&self) -> Option<Value> {
        self.place.call_if_there(&format!("/api/v1/volumes/{VOLUME}"))
    }

    /// Events of this kind so far.
    pub fn events(&self, kind: &str) -> Vec<String> {
        let events = self.call("GET", "/api/v1/events?limit=1000", Value::Null);
        let events = events["events"].as_array().or(events.as_array()).unwrap().clone();
        let found = events.iter().filter(|event| event["kind"] == kind);
        found.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }

    fn index(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.name == name).unwrap()
    }

    /// The node that leads the volume and has claimed it, unless it is `not`.
    pub fn leader_but(&self, not: Option<usize>) -> usize {
        wait_for("a leader", || {
            let volume = self.volume()?;
            let leader = self.index(volume["leader"].as_str()?);
            (volume["claimed"] == true && Some(leader) != not).then_some(leader)
        })
    }

    pub fn leader(&self) -> usize {
        self.leader_but(None)
    }

    /// Has this node lead the volume, and waits until it serves.
    pub fn lead(&self, index: usize) {
        let body = json!({ "node": self.nodes[index].name });
        // One that others did not reach a moment ago is refused until it is known to be back.
        wait_for("the node to be let lead", || {
            let path = format!("/api/v1/volumes/{VOLUME}/leader");
            let (code, text) = self.try_call("POST", &path, body.clone());
            assert!(code == 409 || (200..300).contains(&code), "{code} {text}");
            (code != 409).then_some(())
        });
        wait_for("the new leader to serve", || {
            (self.nodes[index].metric("afs_volume_serving") > 0.0).then_some(())
        });
    }

    /// How many replicas are in sync.
    pub fn in_sync(&self) -> usize {
        let Some(volume) = self.volume() else { return 0 };
        let replicas = volume["replicas"].as_array().unwrap();
        replicas.iter().filter(|replica| replica["in_sync"] == true).count()
    }

    /// Waits until so many replicas are in sync and a leader serves.
    pub fn wait_in_sync(&self, count: usize) {
        wait_for(&format!("{count} replicas in sync"), || {
            (self.in_sync() == count && self.volume()?["claimed"] == true).then_some(())
        });
    }

    pub fn healed(&self) {
        self.wait_in_sync(self.nodes.len().min(3));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let events = self.place.call_if_there("/api/v1/events?limit=1000");
            let events =
                events.as_ref().and_then(|page| page["events"].as_array().or(page.as_array()));
            eprintln!("--- events");
            events.into_iter().flatten().for_each(|event| eprintln!("{event}"));
        }
    }
}
