//! `cargo lab demo`: one volume, one stock Linux host, and what the two do together, in front of a person's eyes.
//!
//! Nothing is acted: the commands shown are the ones that run, and each line of the closing table is something that
//! was checked, not only done.

mod cluster;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::Daemon;
use crate::fio::{self, Job};
use crate::guest::{Guest, GuestOptions, OUTSIDE, soft_rdma};
use crate::guest_node::{API_PORT, GuestNode, HTTP_PORT};
use crate::node::{Node, NodeOptions};
use crate::nvme::{self, Connection, Target, Transport};
use crate::paths;
use crate::prepare::{Consent, Kernel, prepare, say};
use crate::process::{tail, wait_until};
use crate::table::Table;

const KERNEL: Kernel = Kernel::V6_12;
const NQN: &str = "nqn.2026-11.io.afs:demo";
const RDMA_NQN: &str = "nqn.2026-11.io.afs:demo-rdma";
const MIB: u64 = 1 << 20;

/// Shows the whole way from an empty machine to a verified volume.
pub fn demo(consent: Consent) -> Result<()> {
    prepare(&[KERNEL], consent)?;
    say("building afs and conductor (some minutes the first time)");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--quiet", "--bin", "afs", "--bin", "conductor"])
        .current_dir(paths::workspace());
    if !cargo.status().context("start cargo")?.success() {
        bail!("the build failed");
    }
    let begin = Instant::now();
    let mut demo =
        Demo { table: Table::new(&["what was shown", "seen", "seconds"]), last: Instant::now() };
    demo.play()?;
    println!("\n{}", demo.table);
    println!(
        "  {} seconds; the guest, the nodes and their files are gone again.",
        begin.elapsed().as_secs()
    );
    println!(
        "  Try it yourself: `cargo lab shell` opens a shell in such a guest; the README has the rest.\n"
    );
    Ok(())
}

struct Demo {
    table: Table,
    last: Instant,
}

impl Demo {
    fn play(&mut self) -> Result<()> {
        chapter(
            "An Afs node starts: one process, a sparse file of 4 GiB as its disk, no root needed",
        );
        let mut node = Node::start(NodeOptions::file("4G"))?;
        println!("  $ {}", node.command_line());
        self.proved(
            "a node starts and is well",
            format!("http://{}/healthz says so", node.http()?),
        );

        chapter("A thin volume is made and exported to any host");
        let conductor = node.conductor()?;
        for words in [
            "volume create photos --size 1G".to_owned(),
            format!("subsystem create {NQN}"),
            format!("namespace add {NQN} --volume photos"),
            format!("host allow {NQN} any"),
            format!("connect-info {NQN}"),
        ] {
            println!("  $ conductor {words}");
            indent(&conductor.text(&words)?);
        }
        self.proved("volume, subsystem and access", "by five commands".to_owned());

        chapter(&format!("A stock Linux host boots: Debian's kernel {KERNEL} in QEMU"));
        let forwarded = vec![API_PORT, HTTP_PORT];
        let guest = Guest::boot(&GuestOptions { forwarded, ..GuestOptions::new(KERNEL) })?;
        let version = shown(&guest, "uname -sr")?;
        self.proved("a stock host boots", version.trim().to_owned());

        let connection = self.connect(&guest, &node)?;
        self.files(&guest, &node, &connection)?;
        self.survive(&guest, &mut node, &connection)?;
        self.grow_and_leave(&guest, &mut node, &connection)?;
        drop(node);
        self.rdma(&guest)?;
        cluster::show(self, &guest)
    }

    fn connect(&mut self, guest: &Guest, node: &Node) -> Result<Connection> {
        chapter("The host discovers and connects, with nothing but its own nvme-cli and nvme-tcp");
        let target = Target { port: node.port(), ..Target::new(Transport::Tcp, OUTSIDE) };
        guest.ok("modprobe nvme-tcp")?;
        let log = shown(guest, &format!("nvme discover {}", target.options()))?;
        ensure!(log.contains(NQN), "the discovery log lacks {NQN}");
        println!("  host# nvme connect {} -n {NQN}", target.options());
        let connection =
            nvme::connect(guest, &target, NQN, "--reconnect-delay 1 --ctrl-loss-tmo 120")?;
        shown(guest, "nvme list")?;
        shown(guest, "nvme list-subsys")?;
        self.proved("discovered and connected", format!("{} is there", connection.disk));
        Ok(connection)
    }

    fn files(&mut self, guest: &Guest, node: &Node, connection: &Connection) -> Result<()> {
        let disk = &connection.disk;
        chapter("It is an ordinary disk: a file system, files, and space that comes back");
        shown(
            guest,
            &format!(
                "mkfs.ext4 -q -E nodiscard {disk} && mkdir -p /mnt/photos && mount {disk} /mnt/photos"
            ),
        )?;
        let empty = settled(node, "an empty file system", |_| true)?;
        shown(
            guest,
            "head -c 64M /dev/urandom > /mnt/photos/roll && sync && cd /mnt/photos && sha256sum roll > /tmp/sum",
        )?;
        let filled = settled(node, "the file to take space", |now| now >= empty + 60 * MIB)?;
        shown(
            guest,
            &format!(
                "umount /mnt/photos && mount {disk} /mnt/photos && cd /mnt/photos && sha256sum -c /tmp/sum"
            ),
        )?;
        self.proved(
            "ext4: 64 MiB written and read back after a new mount",
            format!("{} MiB allocated", filled / MIB),
        );
        shown(guest, "rm /mnt/photos/roll && sync && fstrim -v /mnt/photos")?;
        let trimmed = settled(node, "the pool to shrink", |now| now <= empty + 8 * MIB)?;
        shown(guest, &format!("umount /mnt/photos && e2fsck -fn {disk}"))?;
        self.proved(
            "fstrim gives the space back",
            format!("{} MiB → {} MiB", filled / MIB, trimmed / MIB),
        );
        Ok(())
    }

    fn survive(&mut self, guest: &Guest, node: &mut Node, connection: &Connection) -> Result<()> {
        chapter(
            "fio writes and verifies; in the middle the node is killed with kill -9 and started again",
        );
        let jobs = [
            Job::verified("random-16k", "rw=randwrite bs=16k iodepth=16 size=32m"),
            Job::verified(
                "mixed-64k",
                "rw=randrw bs=64k iodepth=8 numjobs=4 size=8m offset_increment=64m offset=64m",
            ),
        ];
        let load = fio::start(guest, &connection.disk, &jobs)?;
        println!(
            "  host# fio  (random 16 KiB at depth 16, then mixed 64 KiB by four jobs, all verified by CRC32C)"
        );
        wait_until("I/O to flow", Duration::from_secs(60), || {
            let done = node.metrics()?.sum("afs_namespace_operations_total").unwrap_or(0.0);
            Ok((done > 600.0).then_some(()))
        })?;
        println!("  $ kill -9 $(pidof afs)");
        node.kill()?;
        nvme::wait_state(guest, connection, "connecting", Duration::from_secs(30))?;
        println!("  host: {} is connecting", connection.controller);
        let away = Instant::now();
        node.restart()?;
        nvme::wait_state(guest, connection, "live", Duration::from_secs(60))?;
        println!(
            "  host: {} is live, {:.1} s after the restart began",
            connection.controller,
            away.elapsed().as_secs_f32()
        );
        let measured = fio::finish(load, Duration::from_secs(240))?;
        let (reads, writes) =
            measured.iter().fold((0, 0), |sum, job| (sum.0 + job.reads, sum.1 + job.writes));
        self.proved(
            "kill -9 under I/O: no error, no wrong byte",
            format!("{writes} writes, {reads} reads verified"),
        );
        Ok(())
    }

    fn grow_and_leave(
        &mut self,
        guest: &Guest,
        node: &mut Node,
        connection: &Connection,
    ) -> Result<()> {
        chapter("The volume grows while the host is connected; then the host leaves");
        println!("  $ conductor volume resize photos --size 2G");
        node.conductor()?.call("volume resize photos --size 2G")?;
        nvme::wait_size(guest, &connection.disk, 2 << 30)?;
        shown(guest, &format!("blockdev --getsize64 {}", connection.disk))?;
        self.proved("growth is seen with no reconnect", "2 GiB".to_owned());
        shown(guest, &format!("nvme disconnect -n {NQN}"))?;
        guest.assert_no_complaints_but(&["nvme nvme", "no usable path"])?;
        node.assert_no_panic()?;
        self.proved(
            "the host's kernel log",
            "no I/O error, no warning but the reconnect".to_owned(),
        );
        Ok(())
    }

    /// Soft RDMA is a thing of the guest's kernel, so the node runs there too.
    fn rdma(&mut self, guest: &Guest) -> Result<()> {
        chapter(
            "RDMA: a node in the guest, on the kernel's soft RoCE, for the same in-box drivers",
        );
        soft_rdma::start(guest, 1)?;
        shown(guest, "rdma link")?;
        let [rdma, tcp] = [Transport::Rdma, Transport::Tcp]
            .map(|transport| Target::new(transport, soft_rdma::address(0)));
        let afs = paths::built("afs")?;
        let programs = afs.parent().context("the folder of the programs")?;
        let listen = [rdma.clone(), tcp.clone()];
        let arguments = "--data /tmp/afs --disk /tmp/afs.disk:512M";
        let mut node = GuestNode::start(guest, programs, &listen, arguments)?;
        println!("  host# {}", node.command_line());
        node.conductor()?.export("films", "256M", RDMA_NQN)?;
        let log = shown(guest, &format!("nvme discover {}", rdma.options()))?;
        ensure!(
            ["trtype:  rdma", "trtype:  tcp", RDMA_NQN].iter().all(|part| log.contains(part)),
            "the discovery log lacks a transport or {RDMA_NQN}"
        );
        println!("  host# nvme connect {} -n {RDMA_NQN}", rdma.options());
        let connection = nvme::connect(guest, &rdma, RDMA_NQN, "")?;
        self.proved("RDMA: discovered and connected", format!("{} is there", connection.disk));

        let before = nvme::path_ios(guest, &connection)?;
        let job = Job::verified("films", "rw=randwrite bsrange=4k-256k iodepth=16 size=32m");
        println!("  host# fio: {}", job.options.join(" "));
        let measured = fio::run(guest, &connection.disk, &[job], Duration::from_secs(240))?;
        let [done] = measured.as_slice() else { bail!("fio told of {} jobs", measured.len()) };
        let ios = nvme::path_ios(guest, &connection)? - before;
        ensure!(done.reads > 0 && ios >= done.reads + done.writes, "{ios} I/Os by RDMA: {done:?}");
        self.proved(
            "RDMA: written and verified",
            format!("{} writes, {} reads verified", done.writes, done.reads),
        );

        println!("  host# nvme connect {} -n {RDMA_NQN}", tcp.options());
        let second = nvme::connect(guest, &tcp, RDMA_NQN, "")?;
        ensure!(second.disk == connection.disk, "{} and {}", connection.disk, second.disk);
        shown(guest, "nvme list-subsys")?;
        self.proved("RDMA and TCP: two paths to one disk", second.disk);
        nvme::disconnect(guest, RDMA_NQN)?;
        guest.assert_no_complaints_but(&["nvme nvme", "no usable path"])?;
        node.assert_no_panic()?;
        node.assert_alive()
    }

    fn proved(&mut self, what: &str, seen: String) {
        println!("  ✓ {what}: {seen}");
        self.table.row([what, &seen, &format!("{:.1}", self.last.elapsed().as_secs_f32())]);
        self.last = Instant::now();
    }
}

fn chapter(title: &str) {
    println!("\n▸ {title}");
}

fn indent(text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        println!("      {line}");
    }
}

/// Runs a command in the guest that must succeed, and shows it with what it printed.
fn shown(guest: &Guest, command: &str) -> Result<String> {
    println!("  host# {command}");
    let text = guest.ok(command)?;
    indent(&tail(&text, 24));
    Ok(text)
}

/// Waits until the volume's allocated bytes are as wished, and returns them.
fn settled(node: &Node, what: &str, reached: impl Fn(u64) -> bool) -> Result<u64> {
    let conductor = node.conductor()?;
    wait_until(what, Duration::from_secs(60), || {
        let now = conductor.allocated_bytes("photos")?;
        Ok(reached(now).then_some(now))
    })
}
