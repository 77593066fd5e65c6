//! The lengths that a target accepts (CONFORMANCE T-3, T-22, T-23, T-68, T-77).

/// Limits of one connection, fixed when it is made.
#[derive(Clone, Copy, Debug)]
pub struct WireLimits {
    /// In-capsule data of I/O commands, in bytes: IOCCSZ * 16 - 64, equal on all queues of a subsystem.
    pub in_capsule_bytes: u32,
    /// MAXH2CDATA: most bytes of one H2CData PDU; at least 4096 and a multiple of 4.
    pub max_h2c_data: u32,
    /// MDTS in bytes: longest transfer of one command.
    pub max_transfer: u32,
}

impl Default for WireLimits {
    fn default() -> WireLimits {
        WireLimits { in_capsule_bytes: 16 << 10, max_h2c_data: 1 << 20, max_transfer: 1 << 20 }
    }
}
