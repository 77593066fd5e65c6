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

mod accelerator;
mod kernel_log;
mod kernel_target;
mod link;
mod qemu;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

pub use accelerator::Accelerator;
pub use kernel_log::complaints;
pub use kernel_target::KernelTarget;
pub use link::{Output, Running};
pub use qemu::{Drive, GuestOptions, Network};

use crate::paths::RunDir;
use crate::prepare::kernel_files;
use crate::process::{Tied, spawn, tail, wait_until};
use link::Link;

/// The address of the build machine's loopback as a guest with [`Network::User`] sees it.
pub const OUTSIDE: &str = "10.0.2.2";

/// How long a command may take when the caller did not say: enough for anything short on a slow emulated machine.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);
const BOOT_DEADLINE: Duration = Duration::from_secs(180);

/// A booted guest. Dropping it is pulling its plug.
#[derive(Debug)]
pub struct Guest {
    link: Arc<Link>,
    qemu: Tied,
    folder: RunDir,
}

impl Guest {
    /// Boots a guest and waits until its agent answers.
    pub fn boot(options: &GuestOptions) -> Result<Self> {
        if options.icount {
            return Self::boot_with(options, Accelerator::Tcg, BOOT_DEADLINE);
        }
        accelerator::choose(|accelerator, deadline| {
            Self::boot_with(options, accelerator, deadline.unwrap_or(BOOT_DEADLINE))
        })
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
        let mut qemu = spawn(qemu::command(options, &files, accelerator, &folder)?)?;
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
        Ok(Self { link, qemu, folder })
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

    /// Runs a shell command; its failure is in the result, only a broken guest or a missed deadline is an error.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_within(COMMAND_DEADLINE, command)
    }

    /// As [`run`](Self::run) with a deadline of its own, after which the command is killed.
    pub fn run_within(&self, deadline: Duration, command: &str) -> Result<Output> {
        let running = self.spawn(command)?;
        // A tool that asks something must not wait for an answer that never comes.
        running.close_stdin()?;
        running.wait(deadline)
    }

    /// Runs a command that must succeed and returns what it printed.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.ok_within(COMMAND_DEADLINE, command)
    }

    /// As [`ok`](Self::ok) with a deadline of its own.
    pub fn ok_within(&self, deadline: Duration, command: &str) -> Result<String> {
        let output = self.run_within(deadline, command)?;
        if output.code != 0 {
            bail!(
                "in the guest, `{command}` failed with {}:\n{}\n{}",
                output.code,
                tail(&output.stderr, 20),
                tail(&output.stdout, 20)
            );
        }
        Ok(output.stdout)
    }

    /// Runs a command that must succeed and print JSON.
    pub fn json(&self, command: &str) -> Result<Value> {
        let text = self.ok(command)?;
        serde_json::from_str(&text)
            .with_context(|| format!("`{command}` printed no JSON:\n{}", tail(&text, 20)))
    }

    /// Starts a command and returns while it runs.
    pub fn spawn(&self, command: &str) -> Result<Running> {
        Link::start(&self.link, command)
    }

    /// Writes a file in the guest; its folder must exist.
    pub fn write_file(&self, path: &str, content: &[u8]) -> Result<()> {
        let command = self.spawn(&format!("cat > '{path}'"))?;
        command.write_stdin(content)?;
        command.close_stdin()?;
        let output = command.wait(COMMAND_DEADLINE)?;
        if output.code != 0 {
            bail!("write {path} in the guest: {}", output.stderr.trim());
        }
        Ok(())
    }

    /// Waits until a command succeeds and returns what it printed then.
    pub fn eventually(&self, deadline: Duration, command: &str) -> Result<String> {
        let mut last = None;
        wait_until(&format!("`{command}` to succeed in the guest"), deadline, || {
            let output = self.run(command)?;
            let done = (output.code == 0).then(|| output.stdout.clone());
            last = Some(output);
            Ok(done)
        })
        .map_err(|error| match last {
            Some(output) => {
                anyhow!("{error}; last it said: {} {}", output.stdout.trim(), output.stderr.trim())
            }
            None => error,
        })
    }

    /// Everything on the serial console so far.
    pub fn console(&self) -> String {
        fs::read(self.folder.join("console.log"))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Whether the agent can still be reached.
    pub fn is_alive(&self) -> bool {
        self.link.is_alive()
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
    let status = spawn(qemu::command(options, &files, accelerator, &folder)?)?.wait()?;
    if !status.success() {
        bail!("QEMU ended with {status}");
    }
    Ok(())
}
