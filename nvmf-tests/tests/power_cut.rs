//! The whole machine loses its power: node, disk and host together, in one guest.
//!
//! The disk image is such that what was not flushed is lost with QEMU, and the host's writes are known outside.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nvmf_tests::guest::{Drive, Guest, GuestOptions, Network};
use nvmf_tests::guest_node::GuestNode;
use nvmf_tests::ledger::{self, Stamps};
use nvmf_tests::nvme;
use nvmf_tests::paths::{self, RunDir};
use nvmf_tests::prepare::Kernel;
use nvmf_tests::process;
use nvmf_tests::scene::{may_run, nqn};

const BLOCKS: u32 = 8192;

#[test]
fn acknowledged_writes_outlive_a_power_cut_of_the_whole_machine() {
    if may_run("acknowledged_writes_outlive_a_power_cut_of_the_whole_machine", &[Kernel::V6_12]) {
        play().map_err(|error| format!("{error:#}")).unwrap();
    }
}

fn play() -> Result<()> {
    let folder = RunDir::new("power-cut")?;
    let (disk, data) = (folder.join("disk.qcow2"), folder.join("data.raw"));
    process::run(
        Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("2G"),
    )?;
    File::create(&data)?.set_len(256 << 20)?;
    let mut options = GuestOptions::new(Kernel::V6_12);
    options.network = Network::None;
    options.drives =
        vec![Drive { image: disk, format: "qcow2" }, Drive { image: data, format: "raw" }];

    let mut acknowledged = Stamps::new();
    for round in 0..3 {
        let guest = Guest::boot(&options)?;
        let node = start_node(&guest, round == 0)?;
        let connection = nvme::connect(&guest, &node.target(), &nqn("cut"), "")?;
        let tool = format!("{} ledger", guest.folder().join("agent").display());
        let arguments = format!("--device {} --blocks {BLOCKS}", connection.disk);
        let found = guest.ok(&format!("{tool} read {arguments}"))?;
        ledger::compare(&acknowledged, &found)
            .with_context(|| format!("after {round} power cuts"))?;
        let mut writer =
            guest.spawn(&format!("{tool} write {arguments} --from {}", (round + 1) * 1_000_000))?;
        writer
            .wait_for(&format!(" {}\n", (round + 1) * 1_000_000 + 400), Duration::from_secs(120))?;
        let printed = writer.stdout();
        guest.power_cut()?;
        for (block, stamp) in ledger::acknowledged(&printed) {
            acknowledged.insert(block, stamp);
        }
    }
    Ok(())
}

fn start_node(guest: &Guest, first: bool) -> Result<GuestNode> {
    if first {
        guest.ok("mkfs.ext4 -q /dev/vdb")?;
    }
    guest.ok("mkdir -p /mnt/data && mount /dev/vdb /mnt/data")?;
    let programs = paths::built("afs")?;
    let programs = programs.parent().context("the folder of the programs")?;
    let node = GuestNode::start(guest, programs, "/mnt/data/afs", "/dev/vda", "")?;
    if first {
        node.export(guest, "cut", "1G", &nqn("cut"))?;
    }
    Ok(node)
}
