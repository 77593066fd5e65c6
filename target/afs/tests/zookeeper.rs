//! `afs serve` with a real ZooKeeper: it registers, finds its conductor, and serves hosts whatever becomes of both.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use afs_coordination::{Coordination, Nodes, ZooKeeper, ZooKeeperConfig};
use common::{Place, Running, SOON, afs, keep_busy, wait_for};
use conductor::server::{Conductor, ConductorConfig, Running as RunningConductor};
use nvmf_tests::zookeeper::server_for;
use tokio::runtime::Runtime;

const SESSION: Duration = Duration::from_millis(1500);
const NQN: &str = "nqn.2026-11.test:a";

fn serve(place: &Place, zookeeper: &str) -> Running {
    let mut command = afs(&["serve", "--node", "n1", "--reactors", "2", "--buffers", "64M"]);
    command.arg("--data").arg(place.path("data")).args(["--disk", &place.disk("64M")]);
    command.arg("--listen").arg(format!("tcp://{}", place.portal));
    command.arg("--http").arg(place.http.to_string());
    command.args(["--zookeeper", zookeeper, "--cluster", "c"]);
    command.args(["--zookeeper-session-timeout-ms", &SESSION.as_millis().to_string()]);
    Running::start(&mut command)
}

fn conductor(runtime: &Runtime, place: &Place, config: &ZooKeeperConfig) -> RunningConductor {
    let mut conductor = ConductorConfig::new(place.path("conductor").as_path(), place.api);
    conductor.zookeeper = Some(config.clone());
    runtime.block_on(Conductor::start(conductor)).unwrap()
}

fn is_serving(place: &Place) -> bool {
    place.node("/healthz").0 == 200
}

/// Operations of hosts so far.
fn operations(place: &Place) -> f64 {
    let metrics = place.node("/metrics").1;
    let counters =
        metrics.lines().filter(|line| line.starts_with("afs_namespace_operations_total{"));
    counters.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn wait_for_nodes(runtime: &Runtime, what: &str, seen: &Coordination, is_so: fn(&Nodes) -> bool) {
    let mut nodes = seen.nodes();
    let found =
        runtime.block_on(async { tokio::time::timeout(SOON, nodes.wait_for(is_so)).await.is_ok() });
    assert!(found, "{what}: {:?}", *nodes.borrow());
}

#[test]
fn a_node_registers_finds_its_conductor_and_serves_on_without_zookeeper() {
    let name = "a_node_registers_finds_its_conductor_and_serves_on_without_zookeeper";
    let Some(mut server) = server_for(name) else { return };
    let runtime = Runtime::new().unwrap();
    let entered = runtime.enter();
    let config = ZooKeeperConfig::new(&server.address(), "c").unwrap();
    let config = config.with_session_timeout(SESSION).unwrap().watching_nodes(true);
    let place = Place::new();

    // The node first: it knows no address, and waits until ZooKeeper has one.
    let node = serve(&place, &server.address());
    let seen = Coordination::ZooKeeper(ZooKeeper::start(config.clone()));
    wait_for_nodes(&runtime, "the node with its disk", &seen, |nodes| {
        let node = nodes.nodes.get("n1").and_then(Option::as_ref);
        node.is_some_and(|node| {
            node.disks.len() == 1 && node.capacity_bytes > 0 && node.addresses.len() == 1
        })
    });
    assert!(!is_serving(&place));
    let _conductor = conductor(&runtime, &place, &config);
    wait_for("the node to serve", || is_serving(&place).then_some(()));
    place.export(NQN, "v1", 16 << 20);
    let _host = keep_busy(place.portal, NQN);
    wait_for("the host", || (operations(&place) > 0.0).then_some(()));
    let metric = |value: &str| {
        let line = format!("afs_zookeeper_connected {value}\n");
        wait_for(&line, || place.node("/metrics").1.contains(&line).then_some(()));
    };
    metric("1");

    server.stop().unwrap();
    metric("0");
    // Longer than any session.
    std::thread::sleep(SESSION);
    let before = operations(&place);
    wait_for("further operations", || (operations(&place) > before + 10.0).then_some(()));
    assert!(is_serving(&place));

    // It starts without ZooKeeper, too, with what it was last told.
    drop(node);
    let node = serve(&place, &server.address());
    wait_for("the node to serve", || is_serving(&place).then_some(()));

    server.resume().unwrap();
    metric("1");
    wait_for_nodes(&runtime, "it is back", &seen, |nodes| {
        nodes.current && nodes.nodes.contains_key("n1")
    });
    wait_for("its conductor", || {
        let nodes = place.call_if_there("/api/v1/nodes")?;
        (nodes[0]["state"] == "up").then_some(())
    });
    let said = node.output();
    assert_eq!(said.matches("ZooKeeper is away").count(), 1, "{said}");

    node.signal("TERM");
    wait_for_nodes(&runtime, "it left", &seen, |nodes| nodes.nodes.is_empty());
    assert!(node.wait().0.success());
    drop(entered);
}
