//! Connections that come and go leave nothing behind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nvmf_tests::daemon::Footprint;
use nvmf_tests::guest::soft_rdma;
use nvmf_tests::nvme::{NOTICE, Transport};
use nvmf_tests::process::wait_until;
use nvmf_tests::scene::{Scene, is_long, nqn};

/// Memory that an allocator may keep for itself.
const SLACK: u64 = 24 << 20;
/// The same for each connection of many in turn.
const SLACK_IN_TURN: u64 = SLACK / 200;
/// The same of very many hosts at once. Of crowds in turn the first was seen to leave 23 to 36 MiB, the second 9, a third nothing.
pub const CROWD_SLACK: u64 = 48 << 20;

/// Connects and disconnects as nvme-cli does, by the kernel's own files, without its start-up time.
const IN_TURN: &str = r#"
for round in $(seq $ROUNDS); do
  exec 3<>/dev/nvme-fabrics
  echo "$TARGET,nqn=$NQN,hostnqn=$(cat /etc/nvme/hostnqn),hostid=$(cat /etc/nvme/hostid),nr_io_queues=2" >&3 || exit 1
  read -r answer <&3; exec 3>&-
  instance=${answer#instance=}; instance=${instance%%,*}
  echo 1 > /sys/class/nvme/nvme$instance/delete_controller || exit 1
done"#;

/// What the host's kernel says when a controller is deleted while its keep-alive is under way.
const DELETED_DURING_KEEP_ALIVE: [&str; 2] = ["long keepalive RTT", "nvme_keep_alive_end_io"];

pub fn connections_in_turn_leave_nothing_behind(scene: &mut Scene) -> Result<()> {
    // Disks go while the host still looks for partitions on them, and what its kernel says of that depends on the moment.
    // This test is about what the node keeps.
    scene.expect_complaints(&["nvme"]);
    let name = nqn("rounds");
    scene.node.conductor()?.export("rounds", "1G", &name)?;
    let target = scene.target();
    let environment = format!("TARGET={} NQN={name}", target.fabrics_options());
    let connect = |rounds: u32| {
        let command = format!("{environment} ROUNDS={rounds}\n{IN_TURN}");
        scene.guest.ok_within(Duration::from_secs(480), &command)
    };
    // The first connections may fill caches that stay.
    connect(2)?;
    let before = at_rest(scene)?;
    let rounds = if is_long() { 200 } else { 50 };
    connect(rounds)?;
    returns_nearly_to(scene, &before, SLACK_IN_TURN * u64::from(rounds))
}

pub fn sixty_four_hosts_at_once_leave_nothing_behind(scene: &mut Scene) -> Result<()> {
    scene.expect_complaints(&DELETED_DURING_KEEP_ALIVE);
    let name = nqn("hosts");
    scene.node.conductor()?.export("hosts", "1G", &name)?;
    let before = at_rest(scene)?;
    connect_hosts(scene, &name, 64, "")?;
    let counted = scene.node.metrics()?.sum("afs_controllers");
    ensure!(counted == Some(64.0), "the node counts {counted:?} controllers");
    scene.guest.ok(
        "dd if=/dev/zero of=$(ls /dev/nvme*n1 | head -1) bs=64k count=64 oflag=direct status=none",
    )?;
    scene.guest.ok_within(Duration::from_secs(240), "nvme disconnect-all")?;
    returns_nearly_to(scene, &before, CROWD_SLACK)
}

/// What a node holds.
#[derive(Clone, Debug)]
pub struct Held {
    process: Footprint,
    free_buffer_bytes: f64,
    /// Queue pairs, memory regions and the rest of each RDMA device, the host's own included; nothing over TCP.
    rdma: String,
}

/// How many hosts come back at once. Each has an admin queue and an I/O queue to connect.
const STORM: u32 = 32;

pub fn storm_of_hosts_that_come_back_leaves_nothing_behind(scene: &mut Scene) -> Result<()> {
    // Each of them tells that its controller is away.
    scene.expect_complaints(&["nvme"]);
    let name = nqn("storm");
    scene.node.conductor()?.export("storm", "1G", &name)?;
    let before = at_rest(scene)?;
    connect_hosts(scene, &name, STORM, ",reconnect_delay=1,ctrl_loss_tmo=300")?;
    scene.node.kill()?;
    scene.guest.eventually(NOTICE, "! grep -q live /sys/class/nvme/nvme*/state")?;
    // One host of this kernel would connect one controller after the other; reconnecting they all come together.
    scene.node.restart()?;
    let all_live = format!("[ $(cat /sys/class/nvme/nvme*/state | grep -c live) = {STORM} ]");
    scene.guest.eventually(Duration::from_secs(120), &all_live)?;
    let counted = scene.node.metrics()?.sum("afs_controllers");
    ensure!(counted == Some(f64::from(STORM)), "the node counts {counted:?} controllers");
    scene.guest.ok_within(Duration::from_secs(240), "nvme disconnect-all")?;
    returns_to(scene, &before)
}

/// Connects as many hosts, each with an identity of its own.
fn connect_hosts(scene: &Scene, nqn: &str, count: u32, options: &str) -> Result<()> {
    let connect = format!(
        "for host in $(seq {count}); do id=$(cat /proc/sys/kernel/random/uuid); \
         echo \"{},nqn={nqn},hostnqn=nqn.2014-08.org.nvmexpress:uuid:$id,hostid=$id,nr_io_queues=1{options}\" \
         > /dev/nvme-fabrics || exit 1; done",
        scene.target().fabrics_options()
    );
    scene.guest.ok_within(Duration::from_secs(240), &connect)?;
    let live = scene.guest.ok("cat /sys/class/nvme/nvme*/state | grep -c live")?;
    ensure!(live.trim() == count.to_string(), "{live} controllers are live");
    Ok(())
}

/// What the node holds once no host is connected.
pub fn at_rest(scene: &Scene) -> Result<Held> {
    let mut open = [None; 3];
    let rested = wait_until("all connections to be gone", Duration::from_secs(30), || {
        let metrics = scene.node.metrics()?;
        // The queue pair of an RDMA connection outlives it for a moment, and its receives hold buffers.
        open = ["afs_controllers", "afs_connections", "afs_reactor_rdma_queue_pairs"]
            .map(|name| metrics.sum(name));
        if open.iter().any(|count| count.is_none_or(|count| count > 0.0)) {
            return Ok(None);
        }
        let rdma = match scene.transport {
            Transport::Tcp => String::new(),
            Transport::Rdma => soft_rdma::resources(&scene.guest)?,
        };
        // The receives of a device hold buffers until the node lets go of it, a moment after its last queue pair.
        if scene.transport == Transport::Rdma && !rdma.contains("of processes: srq 0") {
            return Ok(None);
        }
        let free = scene
            .node
            .metrics()?
            .sum("afs_reactor_buffer_free_bytes")
            .context("the node does not show its buffers")?;
        Ok(Some(Held { process: scene.node.footprint()?, free_buffer_bytes: free, rdma }))
    });
    rested.with_context(|| format!("controllers, connections and queue pairs: {open:?}"))
}

/// Descriptors exactly, but at leisure: a scrape holds one of its own for a moment. Buffers exactly: one that is not back is lost.
pub fn returns_to(scene: &Scene, before: &Held) -> Result<()> {
    returns_nearly_to(scene, before, SLACK)
}

/// As [`returns_to`], with so many bytes of memory that an allocator may keep.
pub fn returns_nearly_to(scene: &Scene, before: &Held, slack: u64) -> Result<()> {
    let mut last = before.clone();
    let returned = wait_until("everything to be given back", Duration::from_secs(30), || {
        last = at_rest(scene)?;
        let same = last.process.descriptors <= before.process.descriptors
            && last.process.resident_bytes <= before.process.resident_bytes + slack
            && (last.free_buffer_bytes - before.free_buffer_bytes).abs() < 1.0
            && last.rdma == before.rdma;
        Ok(same.then_some(()))
    });
    returned.with_context(|| format!("before {before:?}, after {last:?}"))
}
