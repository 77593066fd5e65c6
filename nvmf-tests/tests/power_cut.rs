//! The whole machine loses its power: node, disk and host together, in one guest.
//!
//! The disk image is such that what was not flushed is lost with QEMU, and the host's writes are known outside.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nvmf_tests::guest::{Drive, Guest, GuestOptions, Network};
use nvmf_tests::guest_node::GuestNode;
use nvmf_tests::ledger::{self, Stamps};
use nvmf_tests::nvme::{self, Target, Transport};
use nvmf_tests::paths::{self, RunDir};
use nvmf_tests::prepare::Kernel;
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
    let mut options = GuestOptions::new(Kernel::V6_12);
    options.network = Network::None;
    options.drives = vec![
        Drive::qcow2(folder.join("disk.qcow2"), 2 << 30)?,
        Drive::raw(folder.join("data.raw"), 256 << 20)?,
        Drive::qcow2(folder.join("control.qcow2"), 2 << 30)?,
    ];

    let (mut acknowledged, mut unflushed) = (Stamps::new(), Stamps::new());
    for round in 1..=3 {
        let guest = Guest::boot(&options)?;
        let tool = format!("{} ledger", guest.folder().join("agent").display());
        if round == 2 {
            // The control: a disk that was written with no flush must have lost something, or this test shows nothing.
            let found = guest.ok(&format!("{tool} read --device /dev/vdc --blocks {BLOCKS}"))?;
            ensure!(
                ledger::compare(&unflushed, &found).is_err(),
                "the disk kept what was never flushed"
            );
        }
        let node = start_node(&guest, round == 1)?;
        let connection = nvme::connect(&guest, &node.listen()[0], &nqn("cut"), "")?;
        let arguments = format!("--device {} --blocks {BLOCKS}", connection.disk);
        let found = guest.ok(&format!("{tool} read {arguments}"))?;
        ledger::compare(&acknowledged, &found)
            .with_context(|| format!("after {} power cuts", round - 1))?;

        let first = round * 1_000_000;
        let mut writer = guest.spawn(&format!("{tool} write {arguments} --from {first}"))?;
        let mut control = guest
            .spawn(&format!("{tool} write --device /dev/vdc --blocks {BLOCKS} --from {first}"))?;
        for writer in [&mut control, &mut writer] {
            writer.wait_for(&format!(" {} ", first + 400), Duration::from_secs(120))?;
        }
        let printed = writer.stdout();
        unflushed = ledger::acknowledged(&control.stdout());
        guest.power_cut()?;
        acknowledged.extend(ledger::acknowledged(&printed));
    }
    Ok(())
}

fn start_node(guest: &Guest, first: bool) -> Result<GuestNode> {
    let afs = paths::built("afs")?;
    if first {
        guest.ok(&format!("mkfs.ext4 -q /dev/vdb && {} disk format /dev/vda", afs.display()))?;
    }
    guest.ok("mkdir -p /mnt/data && mount /dev/vdb /mnt/data")?;
    let programs = afs.parent().context("the folder of the programs")?;
    let node = GuestNode::start(
        guest,
        programs,
        &[Target::new(Transport::Tcp, "127.0.0.1")],
        "--data /mnt/data/afs --disk /dev/vda",
    )?;
    if first {
        node.export_inside("cut", "1G", &nqn("cut"))?;
    }
    Ok(node)
}
