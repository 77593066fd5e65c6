//! Instructions per I/O in a guest whose clock advances one nanosecond per instruction and skips idle time.
//!
//! There, I/Os per second are a count of instructions: the figures are the same on every machine and no neighbour
//! disturbs them. They count host and target together, and a wait for a timer as if it were work. Caches and
//! parallelism do not show.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Effort;
use crate::fio::{self, Job};
use crate::guest::{Guest, GuestOptions, KernelTarget, Network};
use crate::guest_node::GuestNode;
use crate::nvme::{self, Target};
use crate::paths;
use crate::prepare::{Kernel, say};
use crate::table::Table;

const KERNELS_NQN: &str = "nqn.2026-11.io.afs.lab:kernel";
const OUR_NQN: &str = "nqn.2026-11.io.afs.lab:afs";
const DEADLINE: Duration = Duration::from_secs(900);

/// The jobs: name and fio options. One queue, because the guest has one processor.
const SHAPES: [(&str, &str); 4] = [
    ("read, depth 1", "rw=randread iodepth=1"),
    ("read, depth 32", "rw=randread iodepth=32"),
    ("write, depth 1", "rw=randwrite iodepth=1"),
    ("write, depth 32", "rw=randwrite iodepth=32"),
];

/// Thousands of instructions per 4 KiB I/O: the kernel's target on null_blk, ours on a null disk, and the ratio.
pub fn run(effort: Effort) -> Result<Table> {
    let mut table = Table::new(&["kernel", "4 KiB, TCP", "kernel's target", "afs", "ratio"]);
    let kernels: &[Kernel] = if effort == Effort::Full { &Kernel::ALL } else { &Kernel::ALL[..1] };
    for kernel in kernels {
        say(&format!(
            "counting instructions on kernel {kernel} (a few minutes; the guest is slow on purpose)"
        ));
        let (theirs, ours) = measure(*kernel, effort)?;
        for ((shape, theirs), ours) in SHAPES.iter().zip(theirs).zip(ours) {
            let ratio = format!("{:.2}", ours / theirs);
            table.row([
                &format!("Linux {kernel}"),
                shape.0,
                &format!("{theirs:.1}"),
                &format!("{ours:.1}"),
                &ratio,
            ]);
        }
    }
    Ok(table)
}

fn measure(kernel: Kernel, effort: Effort) -> Result<(Vec<f64>, Vec<f64>)> {
    let guest = Guest::boot(&GuestOptions {
        icount: true,
        cpus: 1,
        network: Network::None,
        ..GuestOptions::new(kernel)
    })?;
    let target = KernelTarget { nqn: KERNELS_NQN, port: 4421, gib: 4, keeps_data: false };
    let address = target.start(&guest)?;
    let theirs = instructions(&guest, &address, KERNELS_NQN, effort)
        .context("measure the kernel's target")?;

    let programs =
        if effort == Effort::Full { paths::built_release("afs")? } else { paths::built("afs")? };
    let programs = programs.parent().context("the folder of the programs")?;
    let node = GuestNode::start(&guest, programs, "/tmp/afs", "null:8G", "--reactors 1")?;
    node.export(&guest, "null", "4G", OUR_NQN)?;
    let ours = instructions(&guest, &node.target(), OUR_NQN, effort).context("measure afs")?;
    Ok((theirs, ours))
}

fn instructions(guest: &Guest, target: &Target, nqn: &str, effort: Effort) -> Result<Vec<f64>> {
    let connection = nvme::connect(guest, target, nqn, "-i 1")?;
    let count = if effort == Effort::Full { 10_000 } else { 200 };
    let mut figures = Vec::new();
    for (name, options) in SHAPES {
        let options =
            format!("{options} ioengine=io_uring bs=4k size=4g number_ios={count} randseed=7");
        let measured = fio::run(guest, &connection.disk, &[Job::new(name, &options)], DEADLINE)?;
        let iops = measured
            .first()
            .map(|job| job.read_iops + job.write_iops)
            .context("fio measured nothing")?;
        // One nanosecond is one instruction: 10⁹ per second, told in thousands.
        figures.push(1e6 / iops);
    }
    nvme::disconnect(guest, nqn)?;
    Ok(figures)
}
