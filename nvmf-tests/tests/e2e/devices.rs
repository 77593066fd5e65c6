//! RDMA devices that disappear and come back, and addresses that leave them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nvmf_tests::fio::Rounds;
use nvmf_tests::guest::soft_rdma;
use nvmf_tests::node::NodeOptions;
use nvmf_tests::nvme::{self, Target, Transport};
use nvmf_tests::process::wait_until;
use nvmf_tests::scene::{Scene, nqn};

const ROUND: &str = "rw=randwrite bsrange=4k-64k iodepth=16 size=4m";
const DEADLINE: Duration = Duration::from_secs(120);

pub fn lost_device_costs_no_io_and_serves_again_when_it_is_back(scene: &mut Scene) -> Result<()> {
    scene.expect_complaints(&["nvme nvme"]);
    let targets = [0, 1].map(|device| Target::new(Transport::Rdma, soft_rdma::address(device)));
    scene.use_listeners(NodeOptions::file("4G"), &targets[1..])?;
    let mut connection = scene.volume("devices", "1G", "")?;
    nvme::connect(&scene.guest, &targets[1], &connection.nqn, "")?;
    nvme::set_policy(&scene.guest, &connection.nqn, "round-robin")?;
    let mut load = Rounds::start(&scene.guest, &connection.disk, ROUND)?;
    for device in [1, 0] {
        load.go_on(1, DEADLINE)?;
        soft_rdma::remove(&scene.guest, device)?;
        // The host gives a controller up with its device.
        let alone = "[ $(cat /sys/class/nvme/nvme*/state | grep -c live) = 1 ] && [ $(ls -d /sys/class/nvme/nvme* | wc -l) = 1 ]";
        scene.guest.eventually(DEADLINE, alone)?;
        load.go_on(1, DEADLINE).with_context(|| format!("without device {device}"))?;
        soft_rdma::start(&scene.guest, 2)?;
        let target = &targets[usize::try_from(device)?];
        let mut last = None;
        let back =
            wait_until("the node to serve the device again", DEADLINE, || {
                match nvme::connect(&scene.guest, target, &connection.nqn, "") {
                    Ok(connection) => Ok(Some(connection)),
                    Err(error) => {
                        last = Some(format!("{error:#}"));
                        Ok(None)
                    }
                }
            });
        connection = back.with_context(|| format!("the last attempt: {last:?}"))?;
        let before = nvme::path_ios(&scene.guest, &connection)?;
        load.go_on(1, DEADLINE)?;
        let after = nvme::path_ios(&scene.guest, &connection)?;
        ensure!(after > before, "no I/O by {} since it is back", target.url());
    }
    load.finish(DEADLINE)
}

pub fn address_that_leaves_its_device_is_served_where_it_appears(scene: &mut Scene) -> Result<()> {
    scene.expect_complaints(&["nvme nvme"]);
    let targets = [0, 1].map(|device| Target::new(Transport::Rdma, soft_rdma::address(device)));
    let [stays, moves] = &targets;
    scene.use_listeners(NodeOptions::file("4G"), &targets[1..])?;
    let connection = scene.volume("moves", "1G", "")?;
    let path = nvme::connect(&scene.guest, moves, &connection.nqn, "--reconnect-delay=1")?;
    nvme::set_policy(&scene.guest, &connection.nqn, "round-robin")?;
    let mut load = Rounds::start(&scene.guest, &connection.disk, ROUND)?;
    load.go_on(0, DEADLINE)?;

    soft_rdma::move_address(&scene.guest, 1, Some(1), None)?;
    wait_until("the node to see that the address is gone", DEADLINE, || {
        let label = format!("listener=\"{}\"", moves.url());
        let up = scene.node.metrics()?.sum_where("afs_listener_up", &label);
        Ok((up == Some(0.0)).then_some(()))
    })?;
    wait_until("the connections of the address to end", DEADLINE, || {
        Ok((scene.node.metrics()?.sum("afs_controllers") == Some(1.0)).then_some(()))
    })?;
    load.go_on(1, DEADLINE).context("without the address")?;
    let log = scene.guest.ok(&format!("nvme discover {}", stays.options()))?;
    // CONFORMANCE D-11: hosts must not forget a path that comes back.
    ensure!(log.contains(&moves.address), "{log}");

    // To the other device, then home again at one stroke.
    for (from, to) in [(None, 0), (Some(0), 1)] {
        let what = || format!("the address moved from {from:?} to {to}");
        let created = || -> Result<f64> {
            Ok(scene.node.metrics()?.sum("afs_controllers_created_total").unwrap_or(0.0))
        };
        let before = created()?;
        soft_rdma::move_address(&scene.guest, 1, from, Some(to))?;
        wait_until("the host to come back by itself", DEADLINE, || {
            Ok((created()? > before).then_some(()))
        })
        .with_context(what)?;
        nvme::wait_state(&scene.guest, &path, "live", DEADLINE).with_context(what)?;
        let before = nvme::path_ios(&scene.guest, &path)?;
        wait_until("I/O by the address", DEADLINE, || {
            Ok((nvme::path_ios(&scene.guest, &path)? > before + 20).then_some(()))
        })
        .with_context(what)?;
    }
    load.finish(DEADLINE)
}

pub fn ipv6_carries_io_as_well(scene: &mut Scene) -> Result<()> {
    let target = Target::new(Transport::Rdma, soft_rdma::address_v6(1));
    scene.use_listeners(NodeOptions::file("4G"), std::slice::from_ref(&target))?;
    scene.node.conductor()?.export("six", "1G", &nqn("six"))?;
    let log = scene.guest.ok(&format!("nvme discover {}", target.options()))?;
    ensure!(log.contains("ipv6") && log.contains(&target.address), "{log}");
    let connection = nvme::connect(&scene.guest, &target, &nqn("six"), "")?;
    let mut load = Rounds::start(&scene.guest, &connection.disk, ROUND)?;
    load.go_on(1, DEADLINE)?;
    load.finish(DEADLINE)
}
