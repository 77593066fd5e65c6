//! nvme-cli: a host finds what it may see, connects, lists, and resets.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nvmf_tests::nvme;
use nvmf_tests::scene::{Scene, nqn};
use serde_json::Value;

pub const GIB: u64 = 1 << 30;

pub fn host_discovers_and_connects_to_all_that_it_may_see(scene: &mut Scene) -> Result<()> {
    let conductor = scene.node.conductor()?;
    conductor.export("first", "1G", &nqn("first"))?;
    conductor.export("second", "2G", &nqn("second"))?;
    let target = scene.target();
    let (transport, port) = (target.transport.to_string(), target.port.to_string());
    let transport = transport.as_str();
    let log = scene.guest.json(&format!("nvme discover {} -o json", target.options()))?;
    let records = log["records"].as_array().context("records of the discovery log")?;
    for name in ["first", "second"] {
        let record = records
            .iter()
            .find(|record| record["subnqn"] == nqn(name))
            .with_context(|| format!("{name} in {log}"))?;
        ensure!(
            record["traddr"] == target.address.as_str() && record["trsvcid"] == port.as_str(),
            "address in {record}"
        );
        ensure!(
            record["trtype"] == transport
                && record["adrfam"] == "ipv4"
                && record["subtype"] == "nvme subsystem"
        );
    }
    scene.guest.ok(&format!("nvme connect-all {}", target.options()))?;
    let sizes = [("first", GIB), ("second", 2 * GIB)];
    for (name, size) in sizes {
        let disk = nvme::disk(&scene.guest, &nqn(name), 1)?;
        nvme::wait_size(&scene.guest, &disk, size)?;
    }
    let list = scene.guest.json("nvme list -o json")?;
    let devices = list["Devices"].as_array().context("devices in nvme list")?;
    for (_, size) in sizes {
        let device = devices
            .iter()
            .find(|device| device["PhysicalSize"] == size)
            .with_context(|| list.to_string())?;
        ensure!(device["SectorSize"] == 4096 && device["NameSpace"] == 1, "{device}");
        ensure!(
            device["SerialNumber"].as_str().is_some_and(|serial| !serial.trim().is_empty()),
            "{device}"
        );
    }
    let subsystems = scene.guest.json("nvme list-subsys -o json")?;
    let first =
        find_subsystem(&subsystems, &nqn("first")).with_context(|| subsystems.to_string())?;
    ensure!(
        first["Paths"][0]["State"] == "live" && first["Paths"][0]["Transport"] == transport,
        "{first}"
    );
    scene.guest.ok("nvme disconnect-all")?;
    scene
        .guest
        .eventually(Duration::from_secs(20), "! ls /sys/class/nvme/nvme* 2>/dev/null")
        .map(drop)
}

fn find_subsystem<'a>(list: &'a Value, nqn: &str) -> Option<&'a Value> {
    let hosts = list.as_array()?.iter();
    hosts
        .filter_map(|host| host["Subsystems"].as_array())
        .flatten()
        .find(|subsystem| subsystem["NQN"] == nqn)
}

pub fn reset_and_rescan_keep_the_disk(scene: &mut Scene) -> Result<()> {
    scene.expect_complaints(&["resetting controller"]);
    let connection = scene.volume("reset", "1G", "")?;
    let guest = &scene.guest;
    guest.ok(&format!(
        "echo kept | dd of={} bs=4096 conv=sync oflag=direct status=none",
        connection.disk
    ))?;
    for _ in 0..3 {
        guest.ok(&format!("nvme reset {}", connection.controller))?;
        nvme::wait_state(guest, &connection, "live", Duration::from_secs(30))?;
    }
    guest.ok(&format!("nvme ns-rescan {}", connection.controller))?;
    let content = guest.ok(&format!(
        "dd if={} bs=4096 count=1 iflag=direct status=none | head -1 | tr -d '\\0'",
        connection.disk
    ))?;
    if content.trim() != "kept" {
        bail!("after the resets the disk holds {:?}", content.get(..20));
    }
    nvme::disconnect(guest, &connection.nqn)
}
