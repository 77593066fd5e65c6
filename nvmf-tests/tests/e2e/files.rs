//! File systems on a thin volume: made, filled, trimmed, checked.

use std::time::Duration;

use anyhow::{Result, ensure};
use nvmf_tests::process::wait_until;
use nvmf_tests::scene::Scene;

const MIB: u64 = 1 << 20;
/// What the test writes into the file system.
const FILL: u64 = 96 * MIB;

pub fn ext4_holds_its_files_and_gives_space_back(scene: &mut Scene) -> Result<()> {
    holds_its_files(scene, "mkfs.ext4 -q -E nodiscard", "e2fsck -fn")
}

pub fn xfs_holds_its_files_and_gives_space_back(scene: &mut Scene) -> Result<()> {
    holds_its_files(scene, "mkfs.xfs -q -K -f", "xfs_repair -n")
}

fn holds_its_files(scene: &mut Scene, make: &str, check: &str) -> Result<()> {
    let connection = scene.volume("files", "2G", "")?;
    let (guest, disk) = (&scene.guest, &connection.disk);
    guest.ok(&format!("mkdir -p /mnt/lab && {make} {disk} && mount {disk} /mnt/lab && sync"))?;
    let empty = allocated(scene)?;
    guest.ok(&format!(
        "cd /mnt/lab && for i in 1 2 3; do head -c {} /dev/urandom > file$i; done && sync && sha256sum file* > /tmp/sums",
        FILL / 3
    ))?;
    let filled = settles(scene, "the files to take space", |now| now >= empty + FILL * 9 / 10)?;
    // Mounted anew, so that the files come from the volume and not from memory.
    guest.ok(&format!(
        "umount /mnt/lab && mount {disk} /mnt/lab && cd /mnt/lab && sha256sum --quiet -c /tmp/sums"
    ))?;
    guest.ok("rm /mnt/lab/file* && sync && fstrim -v /mnt/lab && sync")?;
    let trimmed =
        settles(scene, "the pool to shrink back after fstrim", |now| now <= empty + FILL / 10)?;
    guest.ok(&format!("umount /mnt/lab && {check} {disk}"))?;
    ensure!(trimmed < filled, "{trimmed} bytes after fstrim, {filled} before");
    Ok(())
}

fn allocated(scene: &Scene) -> Result<u64> {
    scene.node.conductor()?.allocated_bytes("files")
}

fn settles(scene: &Scene, what: &str, reached: impl Fn(u64) -> bool) -> Result<u64> {
    let mut last = 0;
    let settled = wait_until(what, Duration::from_secs(60), || {
        last = allocated(scene)?;
        Ok(reached(last).then_some(last))
    });
    settled.map_err(|error| error.context(format!("{} MiB are allocated", last / MIB)))
}
