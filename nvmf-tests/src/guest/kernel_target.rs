//! The kernel's own NVMe target inside a guest: what Afs is measured against, and what proves the lab's own tools.

use anyhow::{Context, Result};

use super::Shell;
use crate::nvme::Target;

/// What the kernel's target exports, and where.
#[derive(Clone, Copy, Debug)]
pub struct KernelTarget<'a> {
    /// Name of its one subsystem.
    pub nqn: &'a str,
    /// Where it listens. The address of an RDMA one must be there: see [`super::soft_rdma`].
    pub target: &'a Target,
    /// Size of the null_blk device behind namespace 1.
    pub gib: u32,
    /// Whether the device keeps what is written to it.
    pub keeps_data: bool,
}

impl KernelTarget<'_> {
    /// Starts it; it lives as long as the guest. Started again with another address, it listens there too.
    pub fn start(&self, guest: &Shell) -> Result<()> {
        guest.write_file("/tmp/kernel-target.sh", include_bytes!("kernel_target.sh"))?;
        let keeps = u8::from(self.keeps_data);
        let Target { transport, address, port } = self.target;
        let command = format!(
            "bash /tmp/kernel-target.sh {} {} {keeps} {transport} {address} {port}",
            self.nqn, self.gib
        );
        guest.ok(&command).context("start the kernel's own target in the guest").map(drop)
    }
}
