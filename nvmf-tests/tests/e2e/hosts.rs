//! A host that is another machine than the node, and loses its power.

use std::time::Duration;

use anyhow::{Result, ensure};
use nvmf_tests::fio::Rounds;
use nvmf_tests::guest::{Guest, GuestOptions, Lan, Network};
use nvmf_tests::node::NodeOptions;
use nvmf_tests::nvme::{self, Connection, Target, Transport};
use nvmf_tests::scene::{Scene, nqn};

use crate::hostile::asks_and_never_confirms;
use crate::resources::{at_rest, returns_to};

const ROUND: &str = "rw=randwrite bsrange=4k-64k iodepth=32 size=16m";
const DEADLINE: Duration = Duration::from_secs(120);

pub fn host_that_loses_its_power_under_load_leaves_nothing_behind(scene: &mut Scene) -> Result<()> {
    let lan = scene.guest.lan(0)?;
    lan.start_rdma(&scene.guest)?;
    let target = Target::new(Transport::Rdma, lan.address());
    scene.use_listeners(NodeOptions::file("4G"), std::slice::from_ref(&target))?;
    scene.node.conductor()?.export("power", "1G", &nqn("power"))?;
    let before = at_rest(scene)?;

    let (host, connection) = boot_host(scene, lan, &target)?;
    let mut load = Rounds::start(&host, &connection.disk, ROUND)?;
    load.go_on(0, DEADLINE)?;
    ensure!(scene.node.metrics()?.sum("afs_controllers") == Some(1.0), "not one controller");
    // It is also about to connect more: what the node answers to that, and all it sends to take leave, gets lost.
    asks_and_never_confirms(scene, &host, &target, &connection.nqn)?;
    host.power_cut()?;
    returns_to(scene, &before)?;

    // The same host again, as it comes back after a power cut.
    let (host, connection) = boot_host(scene, lan, &target)?;
    let mut load = Rounds::start(&host, &connection.disk, ROUND)?;
    load.go_on(0, DEADLINE)?;
    load.finish(DEADLINE)?;
    nvme::disconnect(&host, &connection.nqn)?;
    returns_to(scene, &before)
}

fn boot_host(scene: &Scene, lan: Lan, target: &Target) -> Result<(Guest, Connection)> {
    let host = Guest::boot(&GuestOptions {
        memory_mib: 1024,
        network: Network::None,
        lans: vec![lan.other_end()],
        ..GuestOptions::new(scene.kernel)
    })?;
    lan.other_end().start_rdma(&host)?;
    let id = "6a52d2b4-5a2e-4e6b-9d3a-0f3a3a4c1d77";
    host.ok(&format!(
        "echo nqn.2014-08.org.nvmexpress:uuid:{id} > /etc/nvme/hostnqn; echo {id} > /etc/nvme/hostid"
    ))?;
    let connection = nvme::connect(&host, target, &nqn("power"), "")?;
    Ok((host, connection))
}
