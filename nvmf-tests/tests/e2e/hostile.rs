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

    let patient = scene.guest.spawn(&command("no-credits"))?;
    let printed = scene.guest.ok_within(DEADLINE, &command(""))?;
    ensure!(printed.trim_end().ends_with("all cases held"), "{printed}");
    let output = patient.wait(DEADLINE)?;
    ensure!(output.code == 0, "a host that takes no responses: {}", output.stdout);
    returns_to(scene, &before).context("after all cases")?;

    let mut drowning = scene.guest.spawn(&format!("exec {}", command("drown")))?;
    wait_until("RDMA READs and WRITEs to be under way", DEADLINE, || {
        ensure!(drowning.ended().is_none(), "it ended: {}", drowning.stdout());
        let busy = scene.node.metrics()?.sum("afs_namespace_operations_total");
        Ok((busy.unwrap_or(0.0) > 200.0).then_some(()))
    })?;
    scene.guest.ok("pkill -KILL -x hostile_rdma")?;
    drowning.wait(DEADLINE)?;
    returns_to(scene, &before).context("after a host died with RDMA READs outstanding")
}
