//! A host with many processors opens many queues.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use anyhow::{Result, ensure};
use nvmf_tests::daemon::Daemon;
use nvmf_tests::fio::{self, Job};
use nvmf_tests::guest::{Guest, GuestOptions, OUTSIDE};
use nvmf_tests::node::{Node, NodeOptions};
use nvmf_tests::nvme::{self, Target, Transport};
use nvmf_tests::prepare::Kernel;
use nvmf_tests::process::wait_until;
use nvmf_tests::scene::{may_run, nqn};

#[test]
fn thirty_two_queues_of_one_host_work_and_leave_nothing_behind() {
    if may_run("thirty_two_queues_of_one_host_work_and_leave_nothing_behind", &[Kernel::V6_12]) {
        play().map_err(|error| format!("{error:#}")).unwrap();
    }
}

fn play() -> Result<()> {
    let mut node = Node::start(NodeOptions::file("1G"))?;
    node.conductor()?.export("wide", "512M", &nqn("wide"))?;
    let before = (node.footprint()?, node.metrics()?.sum("afs_reactor_buffer_free_bytes"));
    let mut options = GuestOptions::new(Kernel::V6_12);
    options.cpus = 16;
    let guest = Guest::boot(&options)?;
    let target = Target { port: node.port(), ..Target::new(Transport::Tcp, OUTSIDE) };
    // As many read queues as processors, and as many for writes.
    let connection = nvme::connect(&guest, &target, &nqn("wide"), "-i 16 -W 16")?;
    ensure!(
        node.metrics()?.sum("afs_connections") == Some(33.0),
        "not 32 I/O queues and the admin queue"
    );
    let job = Job::verified(
        "wide",
        "rw=randrw bs=4k iodepth=8 numjobs=16 size=256k offset_increment=16m cpus_allowed=0-15 cpus_allowed_policy=split",
    );
    fio::run(&guest, &connection.disk, &[job], Duration::from_secs(240))?;
    guest.assert_no_nvme_warnings()?;
    nvme::disconnect(&guest, &nqn("wide"))?;
    wait_until("everything to be given back", Duration::from_secs(30), || {
        let now = (node.footprint()?, node.metrics()?.sum("afs_reactor_buffer_free_bytes"));
        Ok((now.0.descriptors <= before.0.descriptors && now.1 == before.1).then_some(()))
    })?;
    node.assert_no_panic()?;
    node.assert_alive()
}
