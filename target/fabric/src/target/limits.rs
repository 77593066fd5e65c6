//! Bounds of a queue pair that are not on the wire, and those that are.

use std::time::Duration;

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
    /// Time from ICResp to a successful Connect (CONFORMANCE T-8).
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
        }
    }
}
