//! What an end-to-end test plays in: a booted guest, shared by all tests of one kernel, and a node of its own.
//!
//! ```text
//! nvmf_tests::on_every_kernel! {
//!     crosswise { cluster { nodes_may_die } }
//!     over tcp { digests { digests_change_nothing } }
//!     over tcp, the older kernel in long runs { tools { features_can_be_set } }
//!     over rdma, the older kernel in long runs { multipath { both_are_found } }
//!     on one kernel over tcp { resources { nothing_is_left_behind } }
//!     on one kernel over rdma { hostile { hostile_host_harms_nobody } }
//!     on one kernel over rdma in long runs { resources { nothing_is_left_behind } }
//! }
//! ```
//!
//! What asks about the node more than about the host's kernel runs with the newer kernel alone. What asks about kernel and
//! transport runs crosswise: the newer kernel over RDMA and the older one over TCP. The other two pairs, and what was answered over
//! TCP or by the newer kernel nearly as well, are left to [`LONG`] runs: emulated guests are slow.
//!
//! Over TCP the node runs natively and only the host is in the guest; over RDMA both are in the guest, on soft RDMA.
//! Such tests run only under `cargo lab test`, which prepared the machine; elsewhere they are skipped by name.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::daemon::Daemon;
use crate::guest::{Guest, GuestOptions, Lan, OUTSIDE, Shell, soft_rdma};
use crate::guest_node::{API_PORT, GuestNode, HTTP_PORT};
use crate::node::{Node, NodeOptions};
use crate::nvme::{self, Connection, Target, Transport};
use crate::paths;
use crate::prepare::{Kernel, obstacle};
use crate::process::tail;

/// Set by `cargo lab test`: the machine is prepared and nothing may be skipped.
pub const UNDER_LAB: &str = "AFS_LAB";

/// Set by `cargo lab test --long`: repetitions are many, and no combination is left out.
pub const LONG: &str = "AFS_LAB_LONG";

/// Why a test is left out of other runs; the lab knows it by these words.
pub const IN_LONG_RUNS: &str = "in long runs alone";

/// Whether this is a [`LONG`] run.
pub fn is_long() -> bool {
    env::var_os(LONG).is_some()
}

/// Where nodes in the guest keep their files: a file system that can `O_DIRECT`, on the guest's scratch disk.
pub const NODE_FOLDER: &str = "/srv/node";

/// Whether a test may run; says by name why not. Under the lab an obstacle is a failure.
pub fn may_run(test: &str, kernels: &[Kernel]) -> bool {
    let under_lab = env::var_os(UNDER_LAB).is_some();
    match obstacle(kernels) {
        _ if !under_lab => {
            println!("lab: skipped {test}: needs virtual machines; run `cargo lab test`");
            false
        }
        Some(reason) => panic!("{test} cannot run: {reason}"),
        None => true,
    }
}

/// The guest that the next test of the same kernel will find.
static SHARED: Mutex<Option<(Kernel, Guest)>> = Mutex::new(None);

/// A guest and a fresh node that the guest can reach.
#[derive(Debug)]
pub struct Scene {
    /// The stock host.
    pub guest: Guest,
    /// The node, with one file of 4 GiB as its disk.
    pub node: Box<dyn Daemon>,
    /// What the host's kernel runs.
    pub kernel: Kernel,
    /// How host and node talk, unless a test says otherwise.
    pub transport: Transport,
    target: Target,
    expected_complaints: Vec<&'static str>,
}

impl Scene {
    fn new(kernel: Kernel, transport: Transport, found: Option<Guest>) -> Result<Self> {
        let guest = match found {
            Some(guest) => guest,
            None => Guest::boot(&guest_options(kernel)?)?,
        };
        if transport == Transport::Rdma {
            prepare_rdma(&guest)?;
        }
        transport.load(&guest)?;
        let (node, target) = start(&guest, transport, &NodeOptions::file("4G"), &[])?;
        guest.clear_dmesg()?;
        Ok(Self { guest, node, kernel, transport, target, expected_complaints: Vec::new() })
    }

    /// Replaces the node by one with other options.
    pub fn use_node(&mut self, options: NodeOptions) -> Result<()> {
        self.use_listeners(options, &[])
    }

    /// Replaces the node by one with other options that, in the guest, listens on other addresses too.
    pub fn use_listeners(&mut self, options: NodeOptions, further: &[Target]) -> Result<()> {
        self.node.kill()?;
        (self.node, self.target) = start(&self.guest, self.transport, &options, further)?;
        Ok(())
    }

    /// Replaces the node by one in the guest that listens on these addresses alone, started by these words of the
    /// shell (see [`GuestNode::start_by`]).
    pub fn launch(&mut self, launch: &str, listen: &[Target]) -> Result<()> {
        // It may have been one that did not start.
        let _ = self.node.kill();
        self.node =
            Box::new(start_in_guest(&self.guest, launch, &NodeOptions::file("4G"), listen)?);
        Ok(())
    }

    /// Where the node is, seen from the guest.
    pub fn target(&self) -> Target {
        self.target.clone()
    }

    /// A new volume of `size`, exported to any host and connected with further `options` of `nvme connect`.
    pub fn volume(&self, name: &str, size: &str, options: &str) -> Result<Connection> {
        let nqn = nqn(name);
        self.node.conductor()?.export(name, size, &nqn)?;
        nvme::connect(&self.guest, &self.target(), &nqn, options)
    }

    /// A test that breaks connections on purpose names what the kernel then says.
    pub fn expect_complaints(&mut self, texts: &[&'static str]) {
        self.expected_complaints.extend(texts);
    }

    /// Leaves the guest as it was and checks that neither side has anything to complain about.
    fn finish(&mut self) -> Result<()> {
        self.guest
            .ok("for m in $(grep -o '/mnt/lab[^ ]*' /proc/mounts); do umount $m || exit 1; done")?;
        self.guest.ok("nvme disconnect-all").context("disconnect everything at the end")?;
        self.node.assert_no_panic()?;
        self.node.assert_alive()?;
        self.guest.assert_no_complaints_but(&self.expected_complaints)
    }

    fn story(&mut self) -> String {
        let log = self.guest.dmesg().unwrap_or_else(|_| "(the guest does not answer)".to_owned());
        format!(
            "--- kernel log of the guest ({}):\n{}\n--- console:\n{}\n--- log of the node:\n{}",
            self.kernel,
            tail(&log, 25),
            tail(&self.guest.console(), 10),
            self.node.log_tail(15)
        )
    }
}

/// One guest serves both transports: it can hold a node too.
fn guest_options(kernel: Kernel) -> Result<GuestOptions> {
    Ok(GuestOptions {
        memory_mib: 3072,
        scratch_gib: Some(16),
        forwarded: vec![API_PORT, HTTP_PORT, HTTP_PORT + 1],
        lans: vec![Lan::new(0)?, Lan::new(1)?],
        ..GuestOptions::new(kernel)
    })
}

/// Two soft RDMA devices, and a folder for nodes.
fn prepare_rdma(guest: &Guest) -> Result<()> {
    soft_rdma::start(guest, 2)?;
    prepare_folder(guest)
}

/// Makes [`NODE_FOLDER`], empty, on a real file system on the guest's only disk.
pub fn prepare_folder(guest: &Shell) -> Result<()> {
    let command = format!(
        "mkdir -p {NODE_FOLDER} && if mountpoint -q {NODE_FOLDER}; then rm -rf {NODE_FOLDER}/*; else \
         mkfs.ext4 -q -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 /dev/vda && mount /dev/vda {NODE_FOLDER}; fi"
    );
    guest.ok(&command).context("make a folder for a node in the guest").map(drop)
}

/// A node with its first disk anew, and where hosts in the guest reach it.
fn start(
    guest: &Guest,
    transport: Transport,
    options: &NodeOptions,
    further: &[Target],
) -> Result<(Box<dyn Daemon>, Target)> {
    if transport == Transport::Tcp {
        let node = Node::start(options.clone())?;
        let target = Target { port: node.port(), ..Target::new(transport, OUTSIDE) };
        return Ok((Box::new(node), target));
    }
    let target = Target::new(transport, soft_rdma::address(0));
    let listen: Vec<Target> = [&target].into_iter().chain(further).cloned().collect();
    let node = start_in_guest(guest, "exec", options, &listen)?;
    Ok((Box::new(node), target))
}

fn start_in_guest(
    guest: &Guest,
    launch: &str,
    options: &NodeOptions,
    listen: &[Target],
) -> Result<GuestNode> {
    guest.ok(&format!("rm -rf {NODE_FOLDER}/*"))?;
    let disks = options.disks.iter().map(|disk| disk.replace("{folder}", NODE_FOLDER));
    let disks: String = disks.map(|disk| format!("--disk {disk} ")).collect();
    let arguments = format!("--data {NODE_FOLDER}/data {disks}{}", options.arguments.join(" "));
    let afs = paths::built("afs")?;
    let programs = afs.parent().context("the folder of the programs")?;
    GuestNode::start_by(guest, launch, programs, listen, &arguments)
}

/// The subsystem name that tests give to a volume's export.
pub fn nqn(name: &str) -> String {
    format!("nqn.2026-11.io.afs.lab:{name}")
}

/// Runs one test; [`on_every_kernel!`](crate::on_every_kernel) calls it. A failure costs the guest: the next test boots a fresh one.
#[allow(clippy::panic, reason = "called by tests only, where a panic is the way to fail")]
pub fn run(kernel: Kernel, transport: Transport, test: &str, body: fn(&mut Scene) -> Result<()>) {
    if !may_run(test, &[kernel]) {
        return;
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = shared.take().filter(|(booted, guest)| *booted == kernel && guest.is_alive());
    let what = format!("{test} over {transport} on kernel {kernel}");
    let mut scene = match Scene::new(kernel, transport, found.map(|(_, guest)| guest)) {
        Ok(scene) => scene,
        Err(error) => panic!("{what} could not begin: {error:#}"),
    };
    let played = catch_unwind(AssertUnwindSafe(|| body(&mut scene).and_then(|()| scene.finish())));
    match played {
        Ok(Ok(())) => *shared = Some((kernel, scene.guest)),
        Ok(Err(error)) => {
            let story = scene.story();
            panic!("{what}: {error:#}\n{story}");
        }
        Err(panic) => {
            eprintln!("{}", scene.story());
            resume_unwind(panic);
        }
    }
}

/// Makes `#[test]`s out of functions `fn(&mut Scene) -> anyhow::Result<()>`, grouped by module, per kernel and transport. All tests
/// of one kernel sort together, so each kernel boots once. What is `crosswise` is usually run by the newer kernel over RDMA and the
/// older one over TCP, and by the other two pairs in long runs.
#[macro_export]
#[allow(
    clippy::crate_in_macro_def,
    reason = "the functions are at the root of the crate that calls it"
)]
macro_rules! on_every_kernel {
    (crosswise $cross:tt over tcp $tcp:tt
     over tcp, the older kernel in long runs $tcp_once:tt over rdma, the older kernel in long runs $rdma_once:tt
     on one kernel over tcp $one_tcp:tt on one kernel over rdma $one_rdma:tt
     on one kernel over rdma in long runs $one_rdma_long:tt) => {
        $crate::on_every_kernel!(@line linux_6_12 V6_12 tcp [$tcp $tcp_once] rdma [$cross $rdma_once]
            in long runs: tcp [$cross] rdma []);
        $crate::on_every_kernel!(@line linux_6_1 V6_1 tcp [$cross $tcp] rdma []
            in long runs: tcp [$tcp_once] rdma [$cross $rdma_once]);
        $crate::on_every_kernel!(@line linux_6_12_alone V6_12 tcp [$one_tcp] rdma [$one_rdma]
            in long runs: tcp [] rdma [$one_rdma_long]);
    };
    (@line $line:ident $kernel:ident tcp $tcp:tt rdma $rdma:tt in long runs: tcp $tcp_long:tt rdma $rdma_long:tt) => {
        mod $line {
            $crate::on_every_kernel!(@transports $kernel [] $tcp $rdma);
            mod long {
                $crate::on_every_kernel!(@transports $kernel [#[ignore = "in long runs alone"]] $tcp_long $rdma_long);
            }
        }
    };
    (@transports $kernel:ident $when:tt [$($tcp:tt)*] [$($rdma:tt)*]) => {
        mod tcp {
            $($crate::on_every_kernel!(@tests $kernel Tcp $when $tcp);)*
        }
        mod rdma {
            $($crate::on_every_kernel!(@tests $kernel Rdma $when $rdma);)*
        }
    };
    (@tests $kernel:ident $transport:ident $when:tt { $($module:ident { $($test:ident),+ $(,)? })+ }) => {
        $(mod $module {
            $($crate::on_every_kernel!(@test $kernel $transport $when $module $test);)+
        })+
    };
    (@test $kernel:ident $transport:ident [$($when:tt)*] $module:ident $test:ident) => {
        #[test]
        $($when)*
        fn $test() {
            $crate::scene::run(
                $crate::prepare::Kernel::$kernel,
                $crate::nvme::Transport::$transport,
                stringify!($test),
                crate::$module::$test,
            );
        }
    };
}
