//! A stock Linux host in a virtual machine, driven from ordinary Rust code.
//!
//! ```no_run
//! use nvmf_tests::guest::{Guest, GuestOptions};
//! use nvmf_tests::prepare::Kernel;
//! let guest = Guest::boot(&GuestOptions::new(Kernel::V6_12))?;
//! println!("{}", guest.ok("uname -r")?);
//! # anyhow::Ok(())
//! ```
//!
//! The guest's root is this machine's own, read-only under an overlay: every tool and every build is there under the
//! same path. The build machine is reached from the guest at [`OUTSIDE`]. QEMU dies with the [`Guest`], however that ends.

pub mod soft_rdma;

mod accelerator;
mod drive;
mod kernel_log;
mod kernel_target;
mod lan;
mod link;
mod program;
mod qemu;
mod shell;

use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use accelerator::Accelerator;
pub use drive::Drive;
pub use kernel_log::complaints;
pub use kernel_target::KernelTarget;
pub use lan::Lan;
pub use link::{Output, Running};
pub use program::Program;
pub use qemu::{GuestOptions, Network};
pub use shell::Shell;

use crate::node::free_port;
use crate::paths::RunDir;
use crate::prepare::{kernel_files, say};
use crate::process::{Tied, spawn, tail, wait_until};
use link::Link;

/// The address of the build machine's loopback as a guest with [`Network::User`] sees it.
pub const OUTSIDE: &str = "10.0.2.2";

const BOOT_DEADLINE: Duration = Duration::from_secs(180);

/// A TCP port of a guest that is reached at an address of the build machine's loopback.
#[derive(Clone, Copy, Debug)]
struct Forward {
    outside: SocketAddr,
    inside: u16,
}

impl Forward {
    fn of(inside: u16) -> Result<Self> {
        Ok(Self { outside: free_port()?, inside })
    }
}

/// A booted guest. Dropping it is pulling its plug.
#[derive(Debug)]
pub struct Guest {
    shell: Shell,
    qemu: Tied,
    folder: RunDir,
    forwards: Vec<Forward>,
    lans: Vec<Lan>,
}

impl Deref for Guest {
    type Target = Shell;

    fn deref(&self) -> &Shell {
        &self.shell
    }
}

/// How often a guest is booted whose kernel died as [`Guest::boot_again`] says.
const BOOT_ATTEMPTS: u32 = 4;
/// What the console says then.
const EMULATOR_TRIPPED: &str = "Oops: int3";

impl Guest {
    /// Boots a guest and waits until its agent answers.
    pub fn boot(options: &GuestOptions) -> Result<Self> {
        if options.icount {
            return Self::boot_with(options, Accelerator::Tcg, BOOT_DEADLINE);
        }
        accelerator::choose(|accelerator, deadline| {
            Self::boot_again(options, accelerator, deadline.unwrap_or(BOOT_DEADLINE))
        })
    }

    /// A guest of many processors now and then trips over the emulator while its kernel patches itself: it dies of a
    /// breakpoint before it has run any program. Nothing of ours is to blame for that, so it is booted again.
    fn boot_again(
        options: &GuestOptions,
        accelerator: Accelerator,
        deadline: Duration,
    ) -> Result<Self> {
        for attempt in 1..BOOT_ATTEMPTS {
            match Self::boot_with(options, accelerator, deadline) {
                Err(error) if format!("{error:#}").contains(EMULATOR_TRIPPED) => {
                    say(&format!(
                        "the emulator tripped over the kernel's own patching (attempt {attempt}); booting again"
                    ));
                }
                other => return other,
            }
        }
        Self::boot_with(options, accelerator, deadline)
    }

    fn boot_with(
        options: &GuestOptions,
        accelerator: Accelerator,
        deadline: Duration,
    ) -> Result<Self> {
        let folder = RunDir::new("guest")?;
        let files = kernel_files(options.kernel)?;
        let socket = folder.join("agent.socket");
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("listen on {}", socket.display()))?;
        listener.set_nonblocking(true)?;
        let forwards =
            options.forwarded.iter().map(|port| Forward::of(*port)).collect::<Result<Vec<_>>>()?;
        let mut qemu = spawn(qemu::command(options, &files, accelerator, &folder, &forwards)?)?;
        let booted = Self::greet(&listener, &mut qemu, deadline);
        let link = booted.with_context(|| {
            let log = |name| tail(&fs::read_to_string(folder.join(name)).unwrap_or_default(), 25);
            format!(
                "boot kernel {} ({accelerator})\n--- QEMU said:\n{}\n--- console:\n{}",
                options.kernel,
                log("qemu.log"),
                log("console.log")
            )
        })?;
        Ok(Self { shell: Shell::new(link), qemu, folder, forwards, lans: options.lans.clone() })
    }

    fn greet(listener: &UnixListener, qemu: &mut Tied, deadline: Duration) -> Result<Arc<Link>> {
        let start = Instant::now();
        let stream = wait_until("QEMU to open the agent's port", deadline, || {
            if let Some(status) = qemu.ended()? {
                bail!("QEMU ended at once: {status}");
            }
            Ok(listener.accept().ok())
        })?
        .0;
        stream.set_nonblocking(false)?;
        let link = Link::new(stream)?;
        wait_until("the guest to say hello", deadline.saturating_sub(start.elapsed()), || {
            if let Some(status) = qemu.ended()? {
                bail!("the guest ended while booting: {status}");
            }
            Ok(link.greeted().then_some(()))
        })?;
        Ok(link)
    }

    /// Everything on the serial console so far.
    pub fn console(&self) -> String {
        fs::read(self.folder.join("console.log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Where on the build machine one of the [`forwarded`](GuestOptions::forwarded) TCP ports is reached.
    pub fn forwarded(&self, port: u16) -> Result<SocketAddr> {
        let forward = self.forwards.iter().find(|forward| forward.inside == port);
        Ok(forward.with_context(|| format!("port {port} of the guest is not forwarded"))?.outside)
    }

    /// Its end of the cable with this number to another guest.
    pub fn lan(&self, number: usize) -> Result<Lan> {
        self.lans.get(number).copied().with_context(|| format!("a guest without a cable {number}"))
    }

    /// A folder of this boot on the build machine, seen in the guest under the same path (read-only there).
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// Cuts the power: nothing is written back, no connection is closed.
    pub fn power_cut(mut self) -> Result<()> {
        self.qemu.kill()
    }
}

/// Boots a guest whose console is this terminal and waits for its end.
pub fn interactive(options: &GuestOptions) -> Result<()> {
    let folder = RunDir::new("shell")?;
    let files = kernel_files(options.kernel)?;
    let accelerator = accelerator::verdict().unwrap_or(Accelerator::Tcg);
    let status = spawn(qemu::command(options, &files, accelerator, &folder, &[])?)?.wait()?;
    if !status.success() {
        bail!("QEMU ended with {status}");
    }
    Ok(())
}
