//! Bounds of a queue pair that are not on the wire, and those that are.

use std::time::Duration;

use afs_reactor::MAX_BUFFER_BYTES;

use super::close::MAX_SLOTS;
use crate::codec::WireLimits;

/// Limits of the queue pairs of one listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Lengths that the codec enforces.
    pub wire: WireLimits,
    /// Longest C2HData PDU in bytes (CONFORMANCE T-47).
    pub data_pdu_bytes: u32,
    /// Bytes received with one call, allocated per connection once ICReq has come; at least 64 KiB.
    pub receive_bytes: usize,
    /// Answer reads with the SUCCESS flag even when the host kept SQ flow control (CONFORMANCE T-44).
    pub success_flag: bool,
    /// Commands that an admin queue may have outstanding beyond its size: its asynchronous event requests
    /// (CONFORMANCE T-27).
    pub admin_extra_commands: usize,
    /// Time from accept to ICReq (CONFORMANCE T-8).
    pub icreq_timeout: Duration,
    /// Time from ICResp, or from an established RDMA connection, to a successful Connect (CONFORMANCE T-8).
    pub connect_timeout: Duration,
    /// Time in which a PDU, the data of an R2T or a send must make progress; noticed within twice this time
    /// (CONFORMANCE T-89).
    pub stall_timeout: Duration,
    /// Time that the host has to close after our TermReq (CONFORMANCE 1.7).
    pub linger_timeout: Duration,
    /// Connections of one peer address without a successful Connect.
    pub half_open_per_peer: usize,
    /// All connections without a successful Connect.
    pub half_open_total: usize,
    /// What only RDMA connections have.
    pub rdma: RdmaLimits,
}

/// Limits of RDMA queue pairs.
#[derive(Clone, Copy, Debug)]
pub struct RdmaLimits {
    /// In-capsule data of I/O commands, in bytes (CONFORMANCE R-12). Each receive that waits for a capsule holds a buffer
    /// of this size; more data is fetched by RDMA READ.
    pub in_capsule_bytes: u32,
    /// Time from accepting a host to its confirmation, or to its first message if that is there sooner. Long enough for
    /// four answers of the connection manager, which repeats one that may be lost after 4.3 s.
    pub establish_timeout: Duration,
    /// Receives that one reactor has posted on one device at most, for all its queue pairs together.
    pub receives: u32,
    /// Highest queue id that a connection request may name.
    pub qid_max: u16,
    /// Largest HSQSIZE of an I/O queue that a connection request may name.
    pub sqsize_max: u16,
}

impl Default for RdmaLimits {
    fn default() -> RdmaLimits {
        RdmaLimits {
            in_capsule_bytes: 4096,
            establish_timeout: Duration::from_secs(20),
            receives: 2048,
            qid_max: 1024,
            sqsize_max: 1023,
        }
    }
}

impl Limits {
    /// Brings limits into the range that the rest relies on.
    pub(super) fn sane(mut self) -> Limits {
        let largest = u32::try_from(MAX_BUFFER_BYTES).unwrap_or(u32::MAX);
        let wire = &mut self.wire;
        wire.max_transfer = wire.max_transfer.clamp(4096, largest);
        wire.max_h2c_data = wire.max_h2c_data.clamp(4096, largest) & !3;
        wire.in_capsule_bytes = wire.in_capsule_bytes.min(32 << 10);
        self.receive_bytes = self.receive_bytes.clamp(64 << 10, 4 << 20);
        self.admin_extra_commands = self.admin_extra_commands.min(MAX_SLOTS / 2);
        self.rdma.in_capsule_bytes = self.rdma.in_capsule_bytes.clamp(1024, 16 << 10);
        self
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            wire: WireLimits::default(),
            data_pdu_bytes: 128 << 10,
            receive_bytes: 128 << 10,
            success_flag: false,
            admin_extra_commands: 8,
            icreq_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(30),
            half_open_per_peer: 2048,
            half_open_total: 8192,
            rdma: RdmaLimits::default(),
        }
    }
}
