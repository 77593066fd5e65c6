//! The kernel's own NVMe/TCP target inside a guest: what Afs is measured against, and what proves the lab's own tools.

use anyhow::{Context, Result};

use super::Guest;
use crate::nvme::Target;

/// What the kernel's target exports.
#[derive(Clone, Copy, Debug)]
pub struct KernelTarget<'a> {
    /// Name of its one subsystem.
    pub nqn: &'a str,
    /// TCP port on the guest's loopback.
    pub port: u16,
    /// Size of the null_blk device behind namespace 1.
    pub gib: u32,
    /// Whether the device keeps what is written to it.
    pub keeps_data: bool,
}

impl KernelTarget<'_> {
    /// Starts it; it lives as long as the guest, once per guest.
    pub fn start(&self, guest: &Guest) -> Result<Target> {
        guest.write_file("/tmp/kernel-target.sh", include_bytes!("kernel_target.sh"))?;
        let keeps = u8::from(self.keeps_data);
        let command =
            format!("bash /tmp/kernel-target.sh {} {} {} {keeps}", self.nqn, self.port, self.gib);
        guest.ok(&command).context("start the kernel's own target in the guest")?;
        Ok(Target { address: "127.0.0.1".to_owned(), port: self.port })
    }
}
