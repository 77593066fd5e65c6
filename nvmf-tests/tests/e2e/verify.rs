//! fio with verification over the shapes of I/O that hosts send.

use std::time::Duration;

use anyhow::{Result, ensure};
use nvmf_tests::fio::{self, Job};
use nvmf_tests::scene::Scene;

const DEADLINE: Duration = Duration::from_secs(240);

/// Block sizes from 4 KiB to 1 MiB, random and sequential and mixed, depth 1 to 128, four jobs at once. The sizes are small: a
/// guest is often emulated, and the shapes are what matters.
const SHAPES: [(&str, &str); 9] = [
    ("random-4k-1", "rw=randwrite bs=4k iodepth=1 numjobs=4 size=512k offset_increment=32m"),
    ("random-4k-128", "rw=randwrite bs=4k iodepth=128 numjobs=4 size=4m offset_increment=32m"),
    ("mixed-4k-32", "rw=randrw bs=4k iodepth=32 numjobs=4 size=2m offset_increment=32m"),
    (
        "odd-sizes-16",
        "rw=randwrite bsrange=4k-128k iodepth=16 numjobs=4 size=4m offset_increment=32m",
    ),
    ("sequential-16k-8", "rw=write bs=16k iodepth=8 numjobs=4 size=2m offset_increment=32m"),
    ("mixed-64k-16", "rw=rw bs=64k iodepth=16 numjobs=4 size=4m offset_increment=32m"),
    ("random-256k-64", "rw=randwrite bs=256k iodepth=64 numjobs=4 size=8m offset_increment=32m"),
    ("sequential-1m-4", "rw=write bs=1m iodepth=4 numjobs=4 size=8m offset_increment=32m"),
    ("mixed-1m-128", "rw=randrw bs=1m iodepth=128 numjobs=4 size=16m offset_increment=32m"),
];

pub fn every_shape_of_io_is_read_back_as_written(scene: &mut Scene) -> Result<()> {
    let connection = scene.volume("shapes", "1G", "")?;
    let jobs: Vec<Job> =
        SHAPES.iter().map(|(name, options)| Job::verified(*name, options)).collect();
    let measured = fio::run(&scene.guest, &connection.disk, &jobs, DEADLINE)?;
    ensure!(
        measured.len() == jobs.len() && measured.iter().all(|job| job.writes > 0 && job.reads > 0),
        "{measured:?}"
    );
    Ok(())
}
