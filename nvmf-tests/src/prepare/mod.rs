//! Gets a machine ready for the lab: tools from the distribution, Debian kernels, an initrd for each.
//!
//! [`prepare`] says what it is about to do before it does it, asks once, and keeps everything in the cache, so a second
//! run does nothing. A lock keeps two runs from unpacking the same kernel.

mod apt;
mod cpio;
mod initrd;
mod kernel;
mod tools;

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result};

pub use cpio::Archive;
pub use kernel::{Kernel, KernelFiles};
pub use tools::ZOOKEEPER_JAR;

use crate::paths;

/// How much the lab may do without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Ask the person at the terminal, once, before packages are installed.
    Ask,
    /// `--yes`: install what is missing.
    Given,
}

/// Makes sure that tools and the given kernels are there; installs and fetches what is not.
pub fn prepare(kernels: &[Kernel], consent: Consent) -> Result<()> {
    let lock =
        File::create(paths::cache()?.join("lock")).context("create the lock of the lab's cache")?;
    if lock.try_lock().is_err() {
        say("another lab run is preparing this machine; waiting for it");
        lock.lock().context("wait for the other lab run")?;
    }
    tools::install_missing(consent)?;
    for kernel in kernels {
        kernel::fetch(*kernel)?;
    }
    Ok(())
}

/// The files of a kernel that [`prepare`] got; says how to get them when they are not there.
pub fn kernel_files(kernel: Kernel) -> Result<KernelFiles> {
    kernel::files(kernel)
}

/// What keeps the lab from running here, if anything: a missing tool or kernel, with what to do about it.
pub fn obstacle(kernels: &[Kernel]) -> Option<String> {
    let missing = tools::missing();
    if !missing.is_empty() {
        return Some(format!(
            "{} not installed; `cargo lab test` installs what is missing",
            tools::names(&missing)
        ));
    }
    kernels.iter().find_map(|kernel| kernel_files(*kernel).err()).map(|error| error.to_string())
}

/// What keeps a ZooKeeper from being started here, if anything.
pub fn zookeeper_obstacle() -> Option<String> {
    let missing = tools::missing_for_zookeeper();
    (!missing.is_empty()).then(|| {
        format!(
            "{} not installed; `cargo lab test` installs what is missing",
            tools::names(&missing)
        )
    })
}

/// A line about progress, for the person who waits.
pub fn say(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "lab: {text}");
}
