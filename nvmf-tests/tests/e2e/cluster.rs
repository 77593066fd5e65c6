//! Three nodes, two conductors, real ZooKeeper and PostgreSQL, and a stock host with a path to each node: whatever fails, the host's
//! I/O goes on. Over TCP each node has a network namespace of its own; over RDMA the nodes are in two guests, the first alone in one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nvmf_tests::cluster::{Cluster, Cut, Plan, network};
use nvmf_tests::fio::Rounds;
use nvmf_tests::nvme::{self, NOTICE, Transport};
use nvmf_tests::process::wait_until;
use nvmf_tests::scene::{Scene, is_long, nqn};
use nvmf_tests::writers::Writers;

const CONNECT: &str = "--reconnect-delay 1 --ctrl-loss-tmo 120 --keep-alive-tmo 5 --nr-io-queues 2";
const VOLUME: &str = "trio";
const SIZE: &str = "64M";
/// Of the volume, for stamped writes.
const BLOCKS: u64 = 16384;
/// Of each step; a path that is lost in silence takes a host as long as its keep-alive.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a leader may take to end when another one leads. Its node forwards meanwhile, but cannot lead again.
const HANDED_OVER: Duration = Duration::from_secs(3);
/// What a host may notice of a planned restart at most.
const PLANNED_STALL: Duration = Duration::from_secs(1);

pub fn no_failure_takes_a_replicated_volume_from_its_host(scene: &mut Scene) -> Result<()> {
    with_cluster(scene, "no_failure_takes_a_replicated_volume_from_its_host", everything_fails)
}

pub fn restart_of_all_nodes_in_turn_is_hardly_noticed(scene: &mut Scene) -> Result<()> {
    with_cluster(scene, "restart_of_all_nodes_in_turn_is_hardly_noticed", nodes_restart)
}

/// Plays with a full cluster whose volume the host has connected to, and looks at both afterwards.
fn with_cluster(
    scene: &mut Scene,
    test: &str,
    play: fn(&Scene, &mut Cluster, &str) -> Result<()>,
) -> Result<()> {
    if !network::may_run(test) {
        return Ok(());
    }
    // What a host says while a path is away. An I/O error is not among it.
    scene.expect_complaints(&["nvme nvme", "no usable path"]);
    let mut cluster = match scene.transport {
        Transport::Tcp => Cluster::start(&Plan::full())?,
        Transport::Rdma => {
            // The nodes take its ports.
            scene.node.kill()?;
            Cluster::start_in_guests(&Plan::full(), &scene.guest, scene.kernel)?
        }
    };
    let name = nqn(VOLUME);
    cluster.export(VOLUME, SIZE, "--replicas 3 --min-in-sync 2", &name)?;
    cluster.healed(VOLUME)?;
    let disk = cluster.connect(&scene.guest, &name, CONNECT)?;
    let states = nvme::path_states(&scene.guest)?;
    ensure!(states == "2 non-optimized, 1 optimized", "paths: {states}");
    play(scene, &mut cluster, &disk).with_context(|| cluster.logs(40))?;
    cluster.assert_well()?;
    nvme::disconnect(&scene.guest, &name)?;
    scene.guest.eventually(NOTICE, "! ls /dev/nvme*n1").map(drop)
}

fn everything_fails(scene: &Scene, cluster: &mut Cluster, disk: &str) -> Result<()> {
    let load = Rounds::start(&scene.guest, disk, round(scene.transport))?;
    let mut play = Play { cluster, load };
    play.goes_on("at the start")?;
    play.nodes_fail()?;
    // They are reached over TCP in any case.
    if scene.transport == Transport::Tcp || is_long() {
        play.those_who_decide_fail()?;
    }
    play.links_fail()?;
    if scene.transport == Transport::Rdma {
        play.device_between_nodes_fails()?;
    }
    play.power_fails()?;
    play.load.finish(DEADLINE)?;
    cluster.assert_replicas_equal(VOLUME, &scene.guest, disk)
}

/// Lighter where nodes share emulated processors with the host: replicas must not be late by themselves.
fn round(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "rw=randwrite bsrange=4k-64k iodepth=16 size=4m",
        Transport::Rdma => "rw=randwrite bsrange=4k-16k iodepth=4 size=256k",
    }
}

struct Play<'a> {
    cluster: &'a mut Cluster,
    load: Rounds,
}

impl Play<'_> {
    /// Waits until a whole round was written and read back that began after whatever has just failed.
    fn goes_on(&mut self, when: &str) -> Result<()> {
        let begin = Instant::now();
        self.load.go_on(1, DEADLINE).with_context(|| format!("I/O {when}"))?;
        println!("I/O goes on {when}: {:.1} s", begin.elapsed().as_secs_f32());
        Ok(())
    }

    fn healed(&self) -> Result<()> {
        self.cluster.healed(VOLUME)
    }

    fn nodes_fail(&mut self) -> Result<()> {
        let leader = self.cluster.leader(VOLUME)?;
        self.cluster.nodes[leader].kill()?;
        self.goes_on("after the leader was killed")?;
        self.cluster.nodes[leader].start()?;
        self.healed()?;

        let replica = (self.cluster.leader(VOLUME)? + 1) % self.cluster.nodes.len();
        self.cluster.nodes[replica].kill()?;
        self.goes_on("after a replica was killed")?;
        self.cluster.nodes[replica].start()?;
        self.healed()?;

        let leader = self.cluster.leader(VOLUME)?;
        self.cluster.nodes[leader].freeze()?;
        self.goes_on("with the leader frozen")?;
        self.cluster.nodes[leader].thaw()?;
        self.goes_on("after it went on")?;
        self.healed()
    }

    fn those_who_decide_fail(&mut self) -> Result<()> {
        let active = self.cluster.active()?;
        self.cluster.conductors[active].kill()?;
        self.goes_on("after the active conductor was killed")?;
        ensure!(self.cluster.active()? != active, "the other one is active");
        self.cluster.conductors[active].start()?;

        self.cluster.servers()?.zookeeper.stop()?;
        self.goes_on("without ZooKeeper")?;
        self.cluster.servers()?.zookeeper.resume()?;
        self.cluster.active()?;
        // With the database away nothing else may happen, and a ZooKeeper that starts is hard work for a small machine.
        self.healed().context("with ZooKeeper again")?;
        self.goes_on("with ZooKeeper again")?;

        self.cluster.servers()?.postgres.kill()?;
        self.goes_on("without PostgreSQL")?;
        self.cluster.servers()?.postgres.go_on()?;
        self.healed().context("with PostgreSQL again")
    }

    fn links_fail(&mut self) -> Result<()> {
        for cut in [Cut::FromPeers, Cut::Everything] {
            let leader = 0;
            self.cluster.lead(VOLUME, leader)?;
            self.cluster.cut(leader, cut)?;
            self.goes_on(&format!("with the leader's link cut: {cut:?}"))?;
            self.cluster.mend(leader)?;
            self.healed().with_context(|| format!("after the cut was mended: {cut:?}"))?;
        }
        Ok(())
    }

    /// Nodes whose device goes reach others by TCP, and by RDMA again when it is back. The node that led until now has connections
    /// that it does not use any more; they must not keep the device.
    fn device_between_nodes_fails(&mut self) -> Result<()> {
        for leader in [2, 1] {
            self.cluster.lead(VOLUME, leader)?;
            self.cluster.leader_reaches_peers_by(VOLUME, Transport::Rdma)?;
        }
        self.cluster.remove_device_between_nodes()?;
        self.cluster.leader_reaches_peers_by(VOLUME, Transport::Tcp)?;
        self.goes_on("without the device between the nodes")?;
        self.cluster.restore_device_between_nodes()?;
        self.cluster.leader_reaches_peers_by(VOLUME, Transport::Rdma)?;
        self.healed().context("with the device back")?;
        self.goes_on("with the device back")
    }

    /// All at once, and back one by one in an order that nobody would choose.
    fn power_fails(&mut self) -> Result<()> {
        let cluster = &mut *self.cluster;
        for member in cluster.nodes.iter_mut().chain(&mut cluster.conductors) {
            member.kill()?;
        }
        cluster.servers()?.zookeeper.stop()?;
        cluster.servers()?.postgres.kill()?;

        cluster.nodes[2].launch()?;
        cluster.servers()?.postgres.go_on()?;
        cluster.nodes[0].launch()?;
        cluster.conductors[1].launch()?;
        cluster.servers()?.zookeeper.resume()?;
        cluster.nodes[1].launch()?;
        cluster.conductors[0].launch()?;
        for member in cluster.nodes.iter_mut().chain(&mut cluster.conductors) {
            member.ready()?;
        }
        self.goes_on("after everything lost its power")?;
        self.healed()
    }
}

fn nodes_restart(scene: &Scene, cluster: &mut Cluster, disk: &str) -> Result<()> {
    let mut writers = Writers::start(&scene.guest, disk, BLOCKS, 0)?;
    for index in 0..cluster.nodes.len() {
        let name = cluster.nodes[index].name().to_owned();
        let mark = writers.mark();
        cluster.conductor()?.call(&format!("node drain {name}"))?;
        cluster.leader_but(VOLUME, Some(index))?;
        let node = &cluster.nodes[index];
        wait_until("the old leader to end", HANDED_OVER, || {
            Ok(node.metrics()?.sum("afs_volume_serving").is_none().then_some(()))
        })?;
        cluster.nodes[index].stop()?;
        writers.go_on().with_context(|| format!("without {name}"))?;
        cluster.nodes[index].start()?;
        cluster.conductor()?.call(&format!("node resume {name}"))?;
        cluster.healed(VOLUME)?;
        writers.go_on().with_context(|| format!("with {name} back"))?;
        let stall = writers.longest_since(mark)?;
        println!("restart of {name}: the longest write took {stall:?}");
        ensure!(stall < PLANNED_STALL, "restart of {name}: a write took {stall:?}");
    }
    writers.end()
}
