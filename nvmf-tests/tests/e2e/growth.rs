//! Volumes that grow under a mounted file system, and a pool that fills up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nvmf_tests::node::NodeOptions;
use nvmf_tests::nvme;
use nvmf_tests::scene::Scene;

pub fn mounted_host_sees_its_volume_grow(scene: &mut Scene) -> Result<()> {
    let connection = scene.volume("grows", "512M", "")?;
    let (guest, disk) = (&scene.guest, &connection.disk);
    guest.ok(&format!(
        "mkdir -p /mnt/lab && mkfs.ext4 -q -E nodiscard {disk} && mount {disk} /mnt/lab"
    ))?;
    guest.ok(
        "head -c 20M /dev/urandom > /mnt/lab/file && sync && sha256sum /mnt/lab/file > /tmp/sum",
    )?;
    scene.node.conductor()?.call("volume resize grows --size 1G")?;
    nvme::wait_size(guest, disk, 1 << 30)?;
    guest.ok(&format!("resize2fs {disk}"))?;
    let blocks = guest.ok("stat -f -c '%b %S' /mnt/lab")?;
    let (count, size) = blocks.trim().split_once(' ').context("stat of the file system")?;
    let bytes = count.parse::<u64>()? * size.parse::<u64>()?;
    ensure!(bytes > 900 << 20, "the file system has {bytes} bytes after growing");
    guest.ok("sha256sum --quiet -c /tmp/sum && umount /mnt/lab")?;
    guest.ok(&format!("e2fsck -fn {disk}")).map(drop)
}

/// fio's exit after an error, with the error number in its terse text.
fn fill(scene: &Scene, disk: &str, offset: &str, size: &str) -> Result<(i32, String)> {
    let command = format!(
        "fio --name=fill --filename={disk} --direct=1 --ioengine=libaio --iodepth=4 --rw=write --bs=256k \
         --offset={offset} --size={size} 2>&1"
    );
    let output = scene.guest.run_within(Duration::from_secs(180), &command)?;
    Ok((output.code, output.stdout))
}

pub fn full_pool_stops_new_blocks_only(scene: &mut Scene) -> Result<()> {
    scene.expect_complaints(&[
        "space allocation error",
        "Capacity Exceeded",
        "(sct 0x0 / sc 0x81)",
    ]);
    scene.use_node(NodeOptions::file("192M"))?;
    let connection = scene.volume("thin", "1G", "")?;
    let disk = &connection.disk;
    let (code, text) = fill(scene, disk, "0", "32m")?;
    ensure!(code == 0, "the first writes fail: {text}");
    let (code, text) = fill(scene, disk, "32m", "512m")?;
    ensure!(
        code != 0 && text.contains("No space left on device"),
        "a full pool gives another error: {text}"
    );

    let guest = &scene.guest;
    guest.ok(&format!("dd if={disk} of=/dev/null bs=1M count=32 iflag=direct status=none"))?;
    let (code, text) = fill(scene, disk, "0", "16m")?;
    ensure!(code == 0, "an overwrite fails in a full pool: {text}");
    guest.ok(&format!("blkdiscard -f -o 0 -l {} {disk}", 32 << 20))?;
    let (code, text) = fill(scene, disk, "768m", "16m")?;
    ensure!(code == 0, "no room after a trim: {text}");
    let (code, _) = fill(scene, disk, "800m", "128m")?;
    ensure!(code != 0, "more was written than the disk holds");
    Ok(())
}
