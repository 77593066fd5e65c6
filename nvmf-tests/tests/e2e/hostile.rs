//! A host without manners over RDMA: private data, capsules, descriptors, keys and deaths of every kind.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nvmf_tests::guest::{Running, Shell};
use nvmf_tests::nvme::Target;
use nvmf_tests::paths;
use nvmf_tests::process::wait_until;
use nvmf_tests::scene::{Scene, nqn};

use super::resources::{CROWD_SLACK, at_rest, returns_nearly_to, returns_to};

const DEADLINE: Duration = Duration::from_secs(240);
/// Words of the program for hosts that leave connections unfinished.
const UNFINISHED_KINDS: [&str; 2] = ["half-open", "no-connect"];
/// How many connections a host has that leaves them unfinished.
const UNFINISHED: f64 = 16.0;

pub fn hostile_host_harms_nobody_but_itself(scene: &mut Scene) -> Result<()> {
    let name = nqn("hostile");
    scene.node.conductor()?.export("hostile", "1G", &name)?;
    let target = scene.target();
    let command = |words: &str| command(&target, &name, words);
    let before = at_rest(scene)?;

    let mut silent = scene.guest.spawn(&format!("exec {}", command("no-credits")?))?;
    // Good hosts are served beside these, after each case.
    let mut unfinished = Vec::new();
    for words in UNFINISHED_KINDS {
        unfinished.push(leaves_unfinished(scene, &scene.guest, &command(words)?)?);
    }
    let printed = scene.guest.ok_within(DEADLINE, &command("")?)?;
    ensure!(printed.trim_end().ends_with("all cases held"), "{printed}");
    wait_until(
        "the node to give up hosts that take no responses or go no further",
        DEADLINE,
        || Ok((scene.node.metrics()?.sum("afs_connections") == Some(0.0)).then_some(())),
    )?;
    // By the node's own bounds, not by those of the connection manager.
    for kind in ["not_established", "no_connect"] {
        let label = format!("kind=\"{kind}\"");
        let ended = scene.node.metrics()?.sum_where("afs_protocol_errors_total", &label);
        ensure!(ended == Some(UNFINISHED), "{kind}: {ended:?} connections, not {UNFINISHED}");
    }
    ensure!(silent.stdout().contains("not looking"), "{}", silent.stdout());
    ensure!(silent.ended().is_none(), "the silent host ended: {}", silent.stdout());
    scene.guest.ok("pkill -KILL -x hostile_rdma")?;
    silent.wait(DEADLINE)?;
    for host in unfinished {
        host.wait(DEADLINE)?;
    }
    returns_nearly_to(scene, &before, CROWD_SLACK).context("after all cases")?;
    let before = at_rest(scene)?;

    let mut dying = Vec::new();
    for words in UNFINISHED_KINDS {
        dying.push(leaves_unfinished(scene, &scene.guest, &command(words)?)?);
    }
    scene.guest.ok("pkill -KILL -x hostile_rdma")?;
    for host in dying {
        host.wait(DEADLINE)?;
    }
    returns_to(scene, &before).context("after hosts died that had left connections unfinished")?;

    // The first death may fill caches that stay: buffers of the pools are touched for the first time.
    die_under_load(scene, &command("drown")?)?;
    let before = at_rest(scene)?;
    die_under_load(scene, &command("drown")?)?;
    returns_to(scene, &before).context("after a host died with RDMA READs outstanding")
}

fn command(target: &Target, nqn: &str, words: &str) -> Result<String> {
    let program = paths::built("examples/hostile_rdma")?;
    let Target { address, port, .. } = target;
    Ok(format!("{} {address}:{port} {nqn} {words} 2>&1", program.display()))
}

/// A host on this machine of the node's network asks for connections and never confirms them.
pub fn asks_and_never_confirms(
    scene: &Scene,
    machine: &Shell,
    target: &Target,
    nqn: &str,
) -> Result<Running> {
    leaves_unfinished(scene, machine, &command(target, nqn, "half-open")?)
}

/// A host on this machine that leaves its connections unfinished. Returns when the node has a queue pair for each.
fn leaves_unfinished(scene: &Scene, machine: &Shell, command: &str) -> Result<Running> {
    let open = || -> Result<f64> {
        Ok(scene.node.metrics()?.sum("afs_reactor_rdma_queue_pairs").unwrap_or(0.0))
    };
    let before = open()?;
    let mut host = machine.spawn(&format!("exec {command}"))?;
    wait_until("a host to leave its connections unfinished", DEADLINE, || {
        ensure!(host.ended().is_none(), "it ended: {}", host.stdout());
        Ok((host.stdout().contains("waiting") && open()? >= before + UNFINISHED).then_some(()))
    })?;
    Ok(host)
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
