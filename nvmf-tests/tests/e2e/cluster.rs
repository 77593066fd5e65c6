//! Three nodes and a conductor, and a stock host with a path to each node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nvmf_tests::cluster::Cluster;
use nvmf_tests::fio::Rounds;
use nvmf_tests::nvme::{self, NOTICE};
use nvmf_tests::scene::{Scene, nqn};

const ROUND: &str = "rw=randwrite bsrange=4k-64k iodepth=16 size=4m";
const DEADLINE: Duration = Duration::from_secs(120);

pub fn replicated_volume_outlives_each_of_its_nodes(scene: &mut Scene) -> Result<()> {
    // What a host says while a path is away. An I/O error is not among it.
    scene.expect_complaints(&["nvme nvme", "no usable path"]);
    let mut cluster = Cluster::start(3, "1G")?;
    let played = play(scene, &mut cluster);
    played.with_context(|| cluster.logs(40))
}

fn play(scene: &Scene, cluster: &mut Cluster) -> Result<()> {
    let name = nqn("trio");
    cluster.export("trio", "256M", "--replicas 3 --min-in-sync 2", &name)?;
    cluster.healed("trio")?;
    let options = "--reconnect-delay 1 --ctrl-loss-tmo 120 --keep-alive-tmo 5";
    let mut disk = String::new();
    for index in 0..cluster.nodes() {
        let connection = nvme::connect(&scene.guest, &cluster.target(index)?, &name, options)?;
        ensure!(disk.is_empty() || disk == connection.disk, "{disk} and {}", connection.disk);
        disk = connection.disk;
    }
    let states =
        "cat /sys/class/nvme/nvme*/nvme*c*n1/ana_state | sort | uniq -c | tr -s ' ' | tr '\\n' ','";
    let shown = scene.guest.ok(states)?;
    ensure!(shown.trim() == "2 non-optimized, 1 optimized,", "paths: {shown}");

    let mut load = Rounds::start(&scene.guest, &disk, ROUND)?;
    load.go_on(1, DEADLINE)?;

    let leader = cluster.leader("trio")?;
    cluster.kill_node(leader)?;
    load.go_on(1, DEADLINE).context("after the leader was killed")?;
    cluster.start_node(leader)?;
    cluster.healed("trio")?;

    let replica = (cluster.leader("trio")? + 1) % cluster.nodes();
    cluster.kill_node(replica)?;
    load.go_on(1, DEADLINE).context("after a replica was killed")?;
    cluster.start_node(replica)?;
    cluster.healed("trio")?;

    cluster.kill_conductor()?;
    load.go_on(1, DEADLINE).context("without the conductor")?;
    cluster.start_conductor()?;

    let leader = cluster.leader("trio")?;
    cluster.freeze(leader, false)?;
    load.go_on(1, DEADLINE).context("with the leader frozen")?;
    cluster.freeze(leader, true)?;
    cluster.healed("trio")?;
    load.go_on(1, DEADLINE).context("after it went on")?;
    load.finish(DEADLINE)?;

    // Each node in turn leads and reads its own replica: all hold the same.
    let mut sums = Vec::new();
    for index in 1..=cluster.nodes() {
        cluster.conductor()?.call(&format!("volume lead trio --on n{index}"))?;
        cluster.healed("trio")?;
        sums.push(
            scene.guest.ok(&format!("dd if={disk} bs=1M iflag=direct status=none | sha256sum"))?,
        );
    }
    ensure!(sums.iter().all(|sum| *sum == sums[0]), "replicas differ: {sums:?}");
    cluster.assert_no_panic()?;
    scene.guest.ok(&format!("nvme disconnect -n {name}"))?;
    scene.guest.eventually(NOTICE, "! ls /dev/nvme*n1").map(drop)
}
