//! What a host may choose when it opens a queue pair.

use std::time::Duration;

use super::error::HostError;
use crate::codec::Digests;
use crate::target::RdmaLimits;

/// Options of one queue pair.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Digests to ask for; TCP only.
    pub digests: Digests,
    /// TCP only: HPDA, 0 to 31: data for us begins at a multiple of `(hpda + 1) * 4`.
    pub hpda: u8,
    /// Entries of the queue, 2 to 1024; one less may be outstanding.
    pub entries: u16,
    /// Give up SQ flow control, so that reads may end with the SUCCESS flag (CONFORMANCE T-44).
    pub disable_flow_control: bool,
    /// Longest in-capsule data of I/O commands, from the controller's IOCCSZ; 0 sends all data by R2T
    /// or RDMA READ.
    pub in_capsule_bytes: u32,
    /// Bytes received with one call; TCP only.
    pub receive_bytes: usize,
    /// Receives that the reactor has posted on a device at most, for all its queue pairs together; RDMA only. Listeners on the
    /// same device must have the same, or it is opened twice.
    pub receives: u32,
    /// Time for the connection and the transport's handshake together. Over RDMA twice that: once to find the way, and once more
    /// after the device was opened, which takes as long as it takes to register the reactor's buffers.
    pub connect_timeout: Duration,
}

impl Default for HostOptions {
    fn default() -> HostOptions {
        HostOptions {
            digests: Digests::default(),
            hpda: 0,
            entries: 128,
            disable_flow_control: false,
            in_capsule_bytes: 16 << 10,
            receive_bytes: 128 << 10,
            receives: RdmaLimits::default().receives,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl HostOptions {
    /// # Errors
    /// [`HostError::Argument`] for what no queue pair can have.
    pub(super) fn check(&self) -> Result<(), HostError> {
        if (2..=1024).contains(&self.entries) && self.hpda <= 31 {
            return Ok(());
        }
        Err(HostError::Argument("a queue has 2 to 1024 entries, HPDA is 0 to 31"))
    }
}
