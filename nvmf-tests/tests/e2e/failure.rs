//! A node that dies under I/O.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nvmf_tests::fio::{self, Job};
use nvmf_tests::nvme;
use nvmf_tests::process::wait_until;
use nvmf_tests::scene::Scene;

pub fn killed_node_comes_back_under_io_and_nothing_is_lost(scene: &mut Scene) -> Result<()> {
    // What a host says while its only path is away. An I/O error is not among it.
    scene.expect_complaints(&["nvme nvme", "no usable path"]);
    let connection = scene.volume("survivor", "1G", "--reconnect-delay 1 --ctrl-loss-tmo 120")?;
    let jobs = [
        Job::verified("random-16k", "rw=randwrite bs=16k iodepth=16 size=24m"),
        Job::verified("sequential-128k", "rw=write bs=128k iodepth=8 offset=64m size=64m"),
    ];
    let mut load = fio::start(&scene.guest, &connection.disk, &jobs)?;
    for round in 1..=3 {
        let start = writes(scene).unwrap_or(0.0);
        wait_until("I/O to flow", Duration::from_secs(60), || {
            Ok((writes(scene)? >= start + 100.0).then_some(()))
        })?;
        ensure!(load.ended().is_none(), "fio had ended before kill {round}: {}", load.stdout());
        scene.node.kill()?;
        nvme::wait_state(&scene.guest, &connection, "connecting", Duration::from_secs(30))?;
        scene.node.restart()?;
        nvme::wait_state(&scene.guest, &connection, "live", Duration::from_secs(60))?;
    }
    let measured = fio::finish(load, Duration::from_secs(240))?;
    ensure!(measured.iter().all(|job| job.writes > 0 && job.reads > 0), "{measured:?}");
    nvme::disconnect(&scene.guest, &connection.nqn)
}

fn writes(scene: &Scene) -> Result<f64> {
    let metrics = scene.node.metrics()?;
    metrics
        .sum_where("afs_namespace_operations_total", "write")
        .context("the node counts no writes")
}
