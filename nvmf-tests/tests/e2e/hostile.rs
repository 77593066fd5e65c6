//! A host without manners over RDMA: private data, capsules, descriptors, keys and deaths of every kind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nvmf_tests::paths;
use nvmf_tests::process::wait_until;
use nvmf_tests::scene::{Scene, nqn};

use super::resources::{at_rest, returns_to};

const DEADLINE: Duration = Duration::from_secs(240);

pub fn hostile_host_harms_nobody_but_itself(scene: &mut Scene) -> Result<()> {
    let name = nqn("hostile");
    scene.node.conductor()?.export("hostile", "1G", &name)?;
    let program = paths::built("examples/hostile_rdma")?;
    let target = scene.target();
    let address = format!("{}:{}", target.address, target.port);
    let command = |words: &str| format!("{} {address} {name} {words} 2>&1", program.display());
    let before = at_rest(scene)?;

    let mut silent = scene.guest.spawn(&format!("exec {}", command("no-credits")))?;
    let printed = scene.guest.ok_within(DEADLINE, &command(""))?;
    ensure!(printed.trim_end().ends_with("all cases held"), "{printed}");
    wait_until("the node to give up a host that takes no responses", DEADLINE, || {
        Ok((scene.node.metrics()?.sum("afs_connections") == Some(0.0)).then_some(()))
    })?;
    ensure!(silent.stdout().contains("not looking"), "{}", silent.stdout());
    ensure!(silent.ended().is_none(), "the silent host ended: {}", silent.stdout());
    scene.guest.ok("pkill -KILL -x hostile_rdma")?;
    silent.wait(DEADLINE)?;
    returns_to(scene, &before).context("after all cases")?;

    // The first death may fill caches that stay: buffers of the pools are touched for the first time.
    die_under_load(scene, &command("drown"))?;
    let before = at_rest(scene)?;
    die_under_load(scene, &command("drown"))?;
    returns_to(scene, &before).context("after a host died with RDMA READs outstanding")
}

/// A host with many RDMA READs and WRITEs under way is killed.
fn die_under_load(scene: &Scene, command: &str) -> Result<()> {
    let operations = || -> Result<f64> {
        Ok(scene.node.metrics()?.sum("afs_namespace_operations_total").unwrap_or(0.0))
    };
    let start = operations()?;
    let mut drowning = scene.guest.spawn(&format!("exec {command}"))?;
    wait_until("RDMA READs and WRITEs to be under way", DEADLINE, || {
        ensure!(drowning.ended().is_none(), "it ended: {}", drowning.stdout());
        Ok((operations()? >= start + 200.0).then_some(()))
    })?;
    scene.guest.ok("pkill -KILL -x hostile_rdma")?;
    drowning.wait(DEADLINE).map(drop)
}
