//! NVMe/TCP can check headers and data with a CRC32C of its own; RDMA leaves that to the wire.

use std::time::Duration;

use anyhow::{Result, ensure};
use nvmf_tests::fio::{self, Job};
use nvmf_tests::nvme;
use nvmf_tests::scene::{Scene, nqn};

const DEADLINE: Duration = Duration::from_secs(240);

pub fn digests_change_nothing_but_the_checking(scene: &mut Scene) -> Result<()> {
    let name = nqn("digests");
    scene.node.conductor()?.export("digests", "1G", &name)?;
    for digests in ["--hdr-digest", "--data-digest", "--hdr-digest --data-digest"] {
        let connection = nvme::connect(&scene.guest, &scene.target(), &name, digests)?;
        let jobs = [
            Job::verified(
                "random-4k-32",
                "rw=randrw bs=4k iodepth=32 numjobs=2 size=1m offset_increment=32m",
            ),
            Job::verified("sequential-64k-8", "rw=write bs=64k iodepth=8 size=4m"),
            Job::verified(
                "random-1m-4",
                "rw=randwrite bs=1m iodepth=4 numjobs=2 size=4m offset_increment=32m",
            ),
        ];
        let measured = fio::run(&scene.guest, &connection.disk, &jobs, DEADLINE)?;
        ensure!(measured.iter().all(|job| job.writes > 0), "{digests}: {measured:?}");
        nvme::disconnect(&scene.guest, &name)?;
    }
    Ok(())
}
