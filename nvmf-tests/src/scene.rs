//! What an end-to-end test plays in: a booted guest, shared by all tests of one kernel, and a node of its own.
//!
//! ```text
//! nvmf_tests::on_every_kernel! { files { ext4_survives, xfs_survives } }
//! ```
//!
//! Such tests run only under `cargo lab test`, which prepared the machine; elsewhere they are skipped by name.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::guest::{Guest, GuestOptions, OUTSIDE};
use crate::node::{Node, NodeOptions};
use crate::nvme::{self, Connection, Target};
use crate::prepare::{Kernel, obstacle};
use crate::process::tail;

/// Set by `cargo lab test`: the machine is prepared and nothing may be skipped.
pub const UNDER_LAB: &str = "AFS_LAB";

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

/// A guest and a fresh node whose port the guest can reach.
#[derive(Debug)]
pub struct Scene {
    /// The stock host.
    pub guest: Guest,
    /// The node, with one file of 4 GiB as its disk.
    pub node: Node,
    /// What the host's kernel runs.
    pub kernel: Kernel,
    expected_complaints: Vec<&'static str>,
}

impl Scene {
    fn new(kernel: Kernel, found: Option<Guest>) -> Result<Self> {
        // The node first: one that does not start should not cost a boot.
        let node = Node::start(NodeOptions::file("4G"))?;
        let guest = found.map_or_else(|| Guest::boot(&GuestOptions::new(kernel)), Ok)?;
        guest.ok("modprobe nvme-tcp")?;
        guest.clear_dmesg()?;
        Ok(Self { guest, node, kernel, expected_complaints: Vec::new() })
    }

    /// Replaces the node by one with other options.
    pub fn use_node(&mut self, options: NodeOptions) -> Result<()> {
        self.node = Node::start(options)?;
        Ok(())
    }

    /// Where the node is, seen from the guest.
    pub fn target(&self) -> Target {
        Target { address: OUTSIDE.to_owned(), port: self.node.port() }
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

    fn story(&self) -> String {
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

/// The subsystem name that tests give to a volume's export.
pub fn nqn(name: &str) -> String {
    format!("nqn.2026-11.io.afs.lab:{name}")
}

/// Runs one test; [`on_every_kernel!`](crate::on_every_kernel) calls it. A failure costs the guest: the next test boots a fresh one.
#[allow(clippy::panic, reason = "called by tests only, where a panic is the way to fail")]
pub fn run(kernel: Kernel, test: &str, body: fn(&mut Scene) -> Result<()>) {
    if !may_run(test, &[kernel]) {
        return;
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = shared.take().filter(|(booted, guest)| *booted == kernel && guest.is_alive());
    let mut scene = match Scene::new(kernel, found.map(|(_, guest)| guest)) {
        Ok(scene) => scene,
        Err(error) => panic!("{test} on kernel {kernel} could not begin: {error:#}"),
    };
    let played = catch_unwind(AssertUnwindSafe(|| body(&mut scene).and_then(|()| scene.finish())));
    match played {
        Ok(Ok(())) => *shared = Some((kernel, scene.guest)),
        Ok(Err(error)) => {
            let story = scene.story();
            panic!("{test} on kernel {kernel}: {error:#}\n{story}");
        }
        Err(panic) => {
            eprintln!("{}", scene.story());
            resume_unwind(panic);
        }
    }
}

/// Makes `#[test]`s out of functions `fn(&mut Scene) -> anyhow::Result<()>`, grouped by module, once per kernel. All
/// tests of one kernel sort together, so each kernel boots once.
#[macro_export]
macro_rules! on_every_kernel {
    ($($module:ident { $($test:ident),+ $(,)? })+) => {
        $crate::on_every_kernel!(@kernel linux_6_12 V6_12 $($module { $($test),+ })+);
        $crate::on_every_kernel!(@kernel linux_6_1 V6_1 $($module { $($test),+ })+);
    };
    (@kernel $line:ident $kernel:ident $($module:ident { $($test:ident),+ })+) => {
        mod $line {
            $(mod $module {
                $(#[test]
                fn $test() {
                    $crate::scene::run($crate::prepare::Kernel::$kernel, stringify!($test), super::super::$module::$test);
                })+
            })+
        }
    };
}
