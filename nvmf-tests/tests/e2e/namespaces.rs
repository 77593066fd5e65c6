//! Who sees which namespace, and that changes reach connected hosts.

use anyhow::{Result, ensure};
use nvmf_tests::nvme::{self, NOTICE};
use nvmf_tests::scene::{Scene, nqn};

pub fn namespaces_come_and_go_without_a_reconnect(scene: &mut Scene) -> Result<()> {
    let connection = scene.volume("main", "1G", "")?;
    let conductor = scene.node.conductor()?;
    conductor.call("volume create extra --size 2G")?;
    conductor.call(&format!("namespace add {} --volume extra --nsid 7", connection.nqn))?;
    let extra = nvme::disk(&scene.guest, &connection.nqn, 7)?;
    nvme::wait_size(&scene.guest, &extra, 2 << 30)?;
    scene
        .guest
        .ok(&format!("dd if=/dev/zero of={extra} bs=64k count=4 oflag=direct status=none"))?;
    conductor.call(&format!("namespace remove {} --nsid 7", connection.nqn))?;
    scene.guest.eventually(NOTICE, &format!("[ ! -e {extra} ]"))?;
    conductor.call("volume resize main --size 3G")?;
    nvme::wait_size(&scene.guest, &connection.disk, 3 << 30)?;
    let controllers = scene.guest.ok("ls -d /sys/class/nvme/nvme* | wc -l")?;
    ensure!(controllers.trim() == "1", "the host reconnected: {controllers} controllers");
    Ok(())
}

pub fn host_that_is_not_allowed_sees_and_gets_nothing(scene: &mut Scene) -> Result<()> {
    scene.expect_complaints(&["nvme nvme"]);
    let conductor = scene.node.conductor()?;
    let (own, foreign) = (nqn("own"), nqn("foreign"));
    let host = scene.guest.ok("cat /etc/nvme/hostnqn")?.trim().to_owned();
    for (volume, subsystem) in [("own", &own), ("foreign", &foreign)] {
        conductor.call(&format!("volume create {volume} --size 1G"))?;
        conductor.call(&format!("subsystem create {subsystem}"))?;
        conductor.call(&format!("namespace add {subsystem} --volume {volume} --nsid 1"))?;
    }
    conductor.call(&format!("host allow {own} {host}"))?;
    let target = scene.target();
    let log = scene.guest.ok(&format!("nvme discover {}", target.options()))?;
    ensure!(
        log.contains(&own) && !log.contains(&foreign),
        "the discovery log shows a foreign subsystem:\n{log}"
    );
    let refused = scene.guest.run(&format!("nvme connect {} -n {foreign}", target.options()))?;
    ensure!(refused.code != 0, "a host that is not allowed could connect");
    nvme::connect(&scene.guest, &target, &own, "")?;
    conductor.call(&format!("host deny {own} {host}"))?;
    scene.guest.ok("nvme disconnect-all")?;
    let refused = scene.guest.run(&format!("nvme connect {} -n {own}", target.options()))?;
    ensure!(refused.code != 0, "a host could connect after it was denied");
    Ok(())
}
