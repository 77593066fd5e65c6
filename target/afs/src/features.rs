//! Get and Set Features (CONFORMANCE 4.6): what a host may set on its controller, and what it reads back.

use afs_nvme::feature::fid;

/// Values that are kept as given, because the host must read back what it set.
#[derive(Default)]
pub struct Features {
    /// 01h Arbitration.
    pub arbitration: u32,
    /// 04h Temperature Threshold.
    pub temperature_threshold: u32,
    /// 05h Error Recovery.
    pub error_recovery: u32,
    /// 08h Interrupt Coalescing.
    pub interrupt_coalescing: u32,
    /// 09h Interrupt Vector Configuration.
    pub interrupt_vector: u32,
    /// 0Ah Write Atomicity Normal.
    pub write_atomicity: u32,
    /// 16h Host Behavior Support: the first four bytes of its 512 that mean something here.
    pub host_behavior: [u8; 4],
}

impl Features {
    /// The plain features, which are a dword that this target keeps and does not act on.
    pub fn plain(&mut self, feature: u8) -> Option<&mut u32> {
        match feature {
            fid::ARBITRATION => Some(&mut self.arbitration),
            fid::TEMPERATURE_THRESHOLD => Some(&mut self.temperature_threshold),
            fid::ERROR_RECOVERY => Some(&mut self.error_recovery),
            fid::INTERRUPT_COALESCING => Some(&mut self.interrupt_coalescing),
            fid::INTERRUPT_VECTOR => Some(&mut self.interrupt_vector),
            fid::WRITE_ATOMICITY => Some(&mut self.write_atomicity),
            _ => None,
        }
    }
}
