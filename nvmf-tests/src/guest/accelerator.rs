//! KVM when it really works, else QEMU's own emulation (TCG).
//!
//! `/dev/kvm` may be there without a kernel getting past the firmware, so KVM counts only once a guest said hello
//! within seconds. The verdict holds until the build machine reboots. `AFS_LAB_ACCEL=kvm|tcg` decides instead.

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::paths;
use crate::prepare::say;

/// How the guest's processor is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The real processor.
    Kvm,
    /// Emulated: works everywhere, ten to thirty times slower.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
        })
    }
}

const KVM_HELLO: Duration = Duration::from_secs(12);

/// Boots with the accelerator that works here; `boot` gets a deadline when the attempt is a trial.
pub fn choose<T>(boot: impl Fn(Accelerator, Option<Duration>) -> Result<T>) -> Result<T> {
    match env::var("AFS_LAB_ACCEL").as_deref() {
        Ok("kvm") => return boot(Accelerator::Kvm, None),
        Ok("tcg") => return boot(Accelerator::Tcg, None),
        Ok(other) => bail!("AFS_LAB_ACCEL is `{other}`; it may be kvm or tcg"),
        Err(_) => {}
    }
    match verdict() {
        Some(accelerator) => boot(accelerator, None),
        None if !kvm_present() => boot(Accelerator::Tcg, None),
        None => match boot(Accelerator::Kvm, Some(KVM_HELLO)) {
            Ok(guest) => {
                remember(Accelerator::Kvm);
                Ok(guest)
            }
            Err(_) => {
                say(
                    "/dev/kvm is there but a guest does not start with it; emulating instead (slower)",
                );
                remember(Accelerator::Tcg);
                boot(Accelerator::Tcg, None)
            }
        },
    }
}

/// What earlier boots found, for messages.
pub fn verdict() -> Option<Accelerator> {
    match fs::read_to_string(verdict_file()?).ok()?.trim() {
        "KVM" => Some(Accelerator::Kvm),
        "TCG" => Some(Accelerator::Tcg),
        _ => None,
    }
}

fn verdict_file() -> Option<PathBuf> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(paths::cache().ok()?.join(format!("accelerator-{}", boot.trim())))
}

fn remember(accelerator: Accelerator) {
    if let Some(path) = verdict_file() {
        let _ = fs::write(path, accelerator.to_string());
    }
}

fn kvm_present() -> bool {
    fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}
