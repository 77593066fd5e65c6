//! Instructions per I/O in a guest whose clock advances one nanosecond per instruction and skips idle time.
//!
//! There, I/Os per second are a count of instructions: the figures are the same on every machine and no neighbour
//! disturbs them. They count host and target together, and a wait for a timer as if it were work. Caches and
//! parallelism do not show.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Effort;
use super::figures::at_most;
use crate::daemon::Daemon;
use crate::fio::{self, Job};
use crate::guest::{Guest, GuestOptions, KernelTarget, Network, soft_rdma};
use crate::guest_node::GuestNode;
use crate::nvme::{self, Target, Transport};
use crate::paths;
use crate::prepare::{Kernel, say};
use crate::table::Table;

const KERNELS_NQN: &str = "nqn.2026-11.io.afs.lab:kernel";
const OUR_NQN: &str = "nqn.2026-11.io.afs.lab:afs";
/// The port of the kernel's target; ours has the usual one.
const KERNELS_PORT: u16 = 4421;
const DEADLINE: Duration = Duration::from_secs(900);

/// Read or write and the depth: name and fio options. One queue, because the guest has one processor.
const SHAPES: [(&str, &str); 4] = [
    ("read, depth 1", "rw=randread iodepth=1"),
    ("read, depth 32", "rw=randread iodepth=32"),
    ("write, depth 1", "rw=randwrite iodepth=1"),
    ("write, depth 32", "rw=randwrite iodepth=32"),
];

/// What one benchmark counts.
struct Plan {
    transport: Transport,
    kib: &'static [u32],
    /// The most that our instructions may be of the kernel's.
    bar: f64,
}

/// Thousands of instructions per 4 KiB I/O over TCP: the kernel's target on null_blk, ours on a null disk, and the ratio.
pub fn tcp(effort: Effort) -> Result<Table> {
    Plan { transport: Transport::Tcp, kib: &[4], bar: 1.2 }.run(effort)
}

/// The same over RDMA with 64 KiB too, and what our own TCP takes in the same guest.
pub fn rdma(effort: Effort) -> Result<Table> {
    let kib: &'static [u32] = if effort == Effort::Full { &[4, 64] } else { &[4] };
    Plan { transport: Transport::Rdma, kib, bar: 1.15 }.run(effort)
}

/// What a node did beside computing.
#[derive(Clone, Copy, Default)]
struct Work {
    /// System calls.
    calls: f64,
    /// Times that it told an RDMA device of new work.
    doorbells: f64,
}

impl Work {
    /// Since the node began.
    fn of(node: &GuestNode) -> Result<Self> {
        let metrics = node.metrics()?;
        Ok(Self {
            calls: metrics
                .sum("afs_reactor_syscalls_total")
                .context("the node counts no system calls")?,
            doorbells: metrics
                .sum("afs_reactor_rdma_doorbells_total")
                .context("the node counts no doorbells")?,
        })
    }

    fn per_io(self, before: Self, ios: u32) -> Self {
        let ios = f64::from(ios);
        Self {
            calls: (self.calls - before.calls) / ios,
            doorbells: (self.doorbells - before.doorbells) / ios,
        }
    }
}

/// What was counted for one size and shape.
#[derive(Clone, Copy)]
struct Figure {
    /// Thousands of instructions per I/O.
    instructions: f64,
    /// What our node did per I/O.
    node: Work,
}

/// A figure per size and shape.
struct Figures {
    theirs: Vec<Figure>,
    ours: Vec<Figure>,
    /// Over TCP, when that is not what is measured anyway.
    ours_tcp: Vec<Figure>,
}

impl Plan {
    fn run(&self, effort: Effort) -> Result<Table> {
        let what = format!("thousands of instructions, {}", self.transport);
        let mut headings =
            vec!["kernel", &what, "kernel's target", "afs", "ratio", "bar", "", "calls/IO"];
        if self.transport == Transport::Rdma {
            headings.extend(["doorbells/IO", "afs over tcp"]);
        }
        let mut table = Table::new(&headings);
        let kernels = if effort == Effort::Full { &Kernel::ALL[..] } else { &Kernel::ALL[..1] };
        for kernel in kernels {
            say(&format!(
                "counting instructions on kernel {kernel} (a few minutes; the guest is slow on purpose)"
            ));
            let figures = self.measure(*kernel, effort)?;
            for (index, name) in self.names().into_iter().enumerate() {
                let Figure { instructions: ours, node } = figures.ours[index];
                let theirs = figures.theirs[index].instructions;
                let mut cells = vec![format!("Linux {kernel}"), name];
                cells.extend([theirs, ours].map(|figure| format!("{figure:.1}")));
                cells.push(format!("{:.2}", ours / theirs));
                cells.extend(at_most(ours / theirs, self.bar));
                cells.push(format!("{:.2}", node.calls));
                if let Some(tcp) = figures.ours_tcp.get(index) {
                    cells.extend([
                        format!("{:.2}", node.doorbells),
                        format!("{:.1}", tcp.instructions),
                    ]);
                }
                table.row(cells);
            }
        }
        Ok(table)
    }

    fn names(&self) -> Vec<String> {
        let shapes = |kib| SHAPES.iter().map(move |(shape, _)| format!("{kib} KiB {shape}"));
        self.kib.iter().flat_map(shapes).collect()
    }

    fn measure(&self, kernel: Kernel, effort: Effort) -> Result<Figures> {
        let guest = Guest::boot(&GuestOptions {
            icount: true,
            cpus: 1,
            network: Network::None,
            ..GuestOptions::new(kernel)
        })?;
        let address = match self.transport {
            Transport::Tcp => "127.0.0.1".to_owned(),
            Transport::Rdma => {
                soft_rdma::start(&guest, 1)?;
                soft_rdma::address(0)
            }
        };
        let ours = Target::new(self.transport, address);
        let theirs = Target { port: KERNELS_PORT, ..ours.clone() };
        KernelTarget { nqn: KERNELS_NQN, target: &theirs, gib: 4, keeps_data: false }
            .start(&guest)?;
        let theirs = self
            .count(&guest, &theirs, KERNELS_NQN, effort, None)
            .context("measure the kernel's target")?;

        let tcp = Target { transport: Transport::Tcp, ..ours.clone() };
        let both = [ours.clone(), tcp.clone()];
        let listen = if self.transport == Transport::Tcp { &both[..1] } else { &both[..] };
        let node = start_node(&guest, listen, effort)?;
        node.export_inside("null", "4G", OUR_NQN)?;
        let ours =
            self.count(&guest, &ours, OUR_NQN, effort, Some(&node)).context("measure afs")?;
        let ours_tcp = match self.transport {
            Transport::Tcp => Vec::new(),
            Transport::Rdma => self
                .count(&guest, &tcp, OUR_NQN, effort, Some(&node))
                .context("measure afs over TCP")?,
        };
        Ok(Figures { theirs, ours, ours_tcp })
    }

    fn count(
        &self,
        guest: &Guest,
        target: &Target,
        nqn: &str,
        effort: Effort,
        node: Option<&GuestNode>,
    ) -> Result<Vec<Figure>> {
        say(&format!(
            "counting {}",
            if node.is_some() { target.url() } else { format!("the kernel's {}", target.url()) }
        ));
        let connection = nvme::connect(guest, target, nqn, "-i 1")?;
        let mut figures = Vec::new();
        for kib in self.kib {
            for (name, options) in SHAPES {
                let options = format!(
                    "{options} ioengine=io_uring bs={kib}k size=4g number_ios={} randseed=7",
                    ios(*kib, effort)
                );
                let job = [Job::new(name, &options)];
                let work = || node.map_or(Ok(Work::default()), Work::of);
                let before = work()?;
                let measured = fio::run(guest, &connection.disk, &job, DEADLINE)?;
                let iops = measured
                    .first()
                    .map(|job| job.read_iops + job.write_iops)
                    .context("fio measured nothing")?;
                let node = work()?.per_io(before, ios(*kib, effort));
                // One nanosecond is one instruction: 10⁹ per second, told in thousands.
                figures.push(Figure { instructions: 1e6 / iops, node });
            }
        }
        nvme::disconnect(guest, nqn)?;
        Ok(figures)
    }
}

/// How many I/Os are counted: fewer large ones, which take rxe nearly a million instructions each.
fn ios(kib: u32, effort: Effort) -> u32 {
    match (effort, kib) {
        (Effort::Full, ..=16) => 10_000,
        (Effort::Full, _) => 1500,
        (Effort::Tiny, ..=16) => 200,
        (Effort::Tiny, _) => 40,
    }
}

fn start_node(guest: &Guest, listen: &[Target], effort: Effort) -> Result<GuestNode> {
    let programs =
        if effort == Effort::Full { paths::built_release("afs")? } else { paths::built("afs")? };
    let programs = programs.parent().context("the folder of the programs")?;
    let arguments = "--data /tmp/afs --disk null:8G --reactors 1";
    GuestNode::start(guest, programs, listen, arguments)
}
