//! Three nodes that reach each other by RDMA, and a stock host with a path to each by RDMA too, all in one guest.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nvmf_tests::fio::Rounds;
use nvmf_tests::guest::{Shell, soft_rdma};
use nvmf_tests::guest_cluster::{GuestCluster, PEERS_DEVICE};
use nvmf_tests::nvme::{self, NOTICE, Transport};
use nvmf_tests::paths;
use nvmf_tests::scene::{NODE_FOLDER, Scene, nqn};

/// Light, as everything shares two emulated processors: replicas must not be late by themselves.
const ROUND: &str = "rw=randwrite bsrange=4k-16k iodepth=4 size=1m";
const DEADLINE: Duration = Duration::from_secs(120);
const OPTIONS: &str = "--reconnect-delay 1 --ctrl-loss-tmo 120 --keep-alive-tmo 5 --nr-io-queues 2";

pub fn replicated_volume_outlives_its_nodes_and_the_network_between_them(
    scene: &mut Scene,
) -> Result<()> {
    // What a host says while a path is away. An I/O error is not among it.
    scene.expect_complaints(&["nvme nvme", "no usable path"]);
    scene.node.kill()?;
    let afs = paths::built("afs")?;
    let programs = afs.parent().context("the folder of the programs")?;
    let mut cluster = GuestCluster::start(&scene.guest, programs, NODE_FOLDER, 3, "512M")?;
    let name = nqn("trio");
    let options = "--replicas 3 --min-in-sync 2";
    cluster.conductor()?.export_with("trio", "32M", options, &name)?;
    cluster.healed("trio")?;
    let played = play(scene, &mut cluster);
    played.with_context(|| cluster.logs(40))
}

fn play(scene: &Scene, cluster: &mut GuestCluster) -> Result<()> {
    let host: &Shell = &scene.guest;
    let disk = nvme::connect_all(host, cluster.targets(), &nqn("trio"), OPTIONS)?;
    let states = nvme::path_states(host)?;
    ensure!(states == "2 non-optimized, 1 optimized", "paths: {states}");
    cluster.leader_reaches_peers_by("trio", Transport::Rdma)?;
    let mut load = Rounds::start(host, &disk, ROUND)?;
    load.go_on(0, DEADLINE)?;

    // Each blow falls when all replicas are in sync: a second failure within one is not what this is about.
    cluster.healed("trio").context("under load")?;
    let leader = cluster.leader("trio")?;
    cluster.node(leader)?.kill()?;
    load.go_on(0, DEADLINE).context("after the leader was killed")?;
    cluster.node(leader)?.start()?;
    cluster.healed("trio").context("after the leader was started again")?;

    let replica = (cluster.leader("trio")? + 1) % cluster.targets().len();
    cluster.node(replica)?.kill()?;
    load.go_on(0, DEADLINE).context("after a replica was killed")?;
    cluster.node(replica)?.start()?;
    cluster.healed("trio").context("after the replica was started again")?;

    let leader = cluster.leader("trio")?;
    cluster.node(leader)?.freeze()?;
    load.go_on(0, DEADLINE).context("with the leader frozen")?;
    cluster.node(leader)?.go_on()?;
    cluster.healed("trio").context("after it went on")?;
    load.go_on(0, DEADLINE).context("after it went on")?;

    // The device between the nodes goes: they reach each other by TCP, and by RDMA again when it is back. The node that led until
    // now has connections that it does not use any more; they must not keep the device.
    let next = (cluster.leader("trio")? + 1) % cluster.targets().len();
    cluster.conductor()?.call(&format!("volume lead trio --on n{}", next + 1))?;
    cluster.leader_reaches_peers_by("trio", Transport::Rdma)?;
    soft_rdma::remove(&scene.guest, PEERS_DEVICE)?;
    cluster.leader_reaches_peers_by("trio", Transport::Tcp)?;
    load.go_on(0, DEADLINE).context("without the device between the nodes")?;
    soft_rdma::start(&scene.guest, PEERS_DEVICE + 1)?;
    cluster.leader_reaches_peers_by("trio", Transport::Rdma)?;
    cluster.healed("trio").context("after the device was back")?;
    load.go_on(0, DEADLINE).context("after the device was back")?;

    // Nodes go on with what they were told, and ask again.
    cluster.conductor_program().kill()?;
    load.go_on(0, DEADLINE).context("without a conductor")?;
    cluster.conductor_program().start()?;
    cluster.healed("trio").context("after the conductor was started again")?;

    // All at once, as if the power went.
    cluster.kill_all()?;
    cluster.start_all()?;
    cluster.healed("trio").context("after all were killed")?;
    load.go_on(0, DEADLINE).context("after all were killed")?;
    load.finish(DEADLINE)?;

    same_on_all(host, cluster, &disk)?;
    cluster.assert_well()?;
    nvme::disconnect(host, &nqn("trio"))?;
    host.eventually(NOTICE, "! ls /dev/nvme*n1").map(drop)
}

/// Each node in turn leads and reads its own replica: all hold the same.
fn same_on_all(host: &Shell, cluster: &GuestCluster, disk: &str) -> Result<()> {
    let mut sums = Vec::new();
    for node in 1..=cluster.targets().len() {
        cluster.conductor()?.call(&format!("volume lead trio --on n{node}"))?;
        cluster.healed("trio")?;
        let sum = format!("dd if={disk} bs=1M count=4 iflag=direct status=none | sha256sum");
        sums.push(host.ok(&sum)?);
    }
    ensure!(sums.iter().all(|sum| *sum == sums[0]), "replicas differ: {sums:?}");
    Ok(())
}
