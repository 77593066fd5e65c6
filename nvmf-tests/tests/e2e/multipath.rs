//! One namespace by several paths, of both transports, that come and go under I/O.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nvmf_tests::fio::Rounds;
use nvmf_tests::guest::soft_rdma;
use nvmf_tests::node::NodeOptions;
use nvmf_tests::nvme::{self, Connection, NOTICE, Target, Transport};
use nvmf_tests::prepare::Kernel;
use nvmf_tests::process::wait_until;
use nvmf_tests::scene::{Scene, nqn};

const ROUND: &str = "rw=randwrite bsrange=4k-64k iodepth=16 size=4m";
const DEADLINE: Duration = Duration::from_secs(120);

pub fn discovery_by_either_transport_lists_both(scene: &mut Scene) -> Result<()> {
    let tcp = Target::new(Transport::Tcp, soft_rdma::address(0));
    let other_port = Target::new(Transport::Rdma, soft_rdma::address(1));
    let all = [scene.target(), tcp, other_port];
    scene.use_listeners(NodeOptions::file("4G"), &all[1..])?;
    scene.node.conductor()?.export("both", "1G", &nqn("both"))?;
    for asked in &all[..2] {
        asked.transport.load(&scene.guest)?;
        let log = scene.guest.json(&format!("nvme discover {} -o json", asked.options()))?;
        let records = log["records"].as_array().context("records of the discovery log")?;
        for target in &all {
            let record = records.iter().find(|record| {
                record["subnqn"] == nqn("both")
                    && record["trtype"] == target.transport.to_string()
                    && record["traddr"] == target.address.as_str()
            });
            let record = record
                .with_context(|| format!("{} asked by {}: {log}", target.url(), asked.transport))?;
            ensure!(record["trsvcid"].as_str() == Some("4420"), "{record}");
        }
    }
    // nvme-cli connects to what it is told of the transport by which it asked.
    for asked in &all[..2] {
        scene.guest.ok(&format!("nvme connect-all {}", asked.options()))?;
    }
    let disk = nvme::disk(&scene.guest, &nqn("both"), 1)?;
    let live = "[ $(cat /sys/class/nvme/nvme*/state | grep -c live) = 3 ] && [ $(ls /dev/nvme*n1 | wc -l) = 1 ]";
    scene.guest.eventually(NOTICE, live)?;
    scene
        .guest
        .ok(&format!("dd if={disk} of=/dev/null bs=64k count=4 iflag=direct status=none"))
        .map(drop)
}

pub fn either_transport_may_go_and_come_back_under_every_path_policy(
    scene: &mut Scene,
) -> Result<()> {
    let tcp = Target::new(Transport::Tcp, soft_rdma::address(0));
    tcp.transport.load(&scene.guest)?;
    scene.use_listeners(NodeOptions::file("4G"), std::slice::from_ref(&tcp))?;
    let rdma = scene.target();
    let first = scene.volume("paths", "1G", "")?;
    let second = nvme::connect(&scene.guest, &tcp, &first.nqn, "")?;
    ensure!(first.disk == second.disk, "two disks: {} and {}", first.disk, second.disk);
    let mut paths = [(rdma, first), (tcp, second)];
    let mut load = Rounds::start(&scene.guest, &paths[0].1.disk, ROUND)?;
    for policy in policies(scene.kernel) {
        nvme::set_policy(&scene.guest, &paths[0].1.nqn, policy)?;
        for (target, path) in &mut paths {
            let what = || format!("{policy} while {} is away", target.url());
            nvme::disconnect_one(&scene.guest, path)?;
            load.go_on(1, DEADLINE).with_context(what)?;
            *path = nvme::connect(&scene.guest, target, &path.nqn, "")?;
            nvme::wait_state(&scene.guest, path, "live", DEADLINE)?;
        }
        if *policy != "numa" {
            both_carry_io(scene, &paths).with_context(|| format!("policy {policy}"))?;
        }
    }
    load.finish(DEADLINE)
}

/// The path policies that a kernel knows.
fn policies(kernel: Kernel) -> &'static [&'static str] {
    match kernel {
        Kernel::V6_1 => &["numa", "round-robin"],
        Kernel::V6_12 => &["numa", "round-robin", "queue-depth"],
    }
}

fn both_carry_io(scene: &Scene, paths: &[(Target, Connection)]) -> Result<()> {
    for (target, path) in paths {
        let before = nvme::path_ios(&scene.guest, path)?;
        wait_until(&format!("I/O by {}", target.url()), DEADLINE, || {
            Ok((nvme::path_ios(&scene.guest, path)? > before + 20).then_some(()))
        })?;
    }
    Ok(())
}
