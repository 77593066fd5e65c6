//! What tests ask of a node, wherever it runs: natively ([`crate::node`]) or in a guest ([`crate::guest_node`]).

use std::fmt::Debug;
use std::net::SocketAddr;

use anyhow::{Result, bail};

use crate::cli::Conductor;
use crate::http::Metrics;
use crate::process::tail;

/// A standalone node that was started once, and its conductor.
pub trait Daemon: Debug {
    /// The conductor's API, as the build machine reaches it.
    fn api(&self) -> Result<SocketAddr>;
    /// The node's own HTTP face, as the build machine reaches it.
    fn http(&self) -> Result<SocketAddr>;
    /// `kill -9`, and the end of the process.
    fn kill(&mut self) -> Result<()>;
    /// Starts it again after a kill, with the same data and ports, and waits until it is well.
    fn restart(&mut self) -> Result<()>;
    /// How the process ended, when it did so by itself.
    fn ended(&mut self) -> Result<Option<String>>;
    /// What the process holds, as the kernel counts it.
    fn footprint(&self) -> Result<Footprint>;
    /// All that it has logged, in all its lives.
    fn log(&mut self) -> String;

    /// The command line of the conductor, pointed at this node.
    fn conductor(&self) -> Result<Conductor> {
        Conductor::new(self.api()?)
    }

    /// A scrape of the node's metrics.
    fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.http()?)
    }

    /// The end of its log.
    fn log_tail(&mut self, lines: usize) -> String {
        tail(&self.log(), lines)
    }

    /// Fails when the process has ended by itself.
    fn assert_alive(&mut self) -> Result<()> {
        match self.ended()? {
            Some(how) => {
                bail!("the node ended by itself: {how}; its log ends with\n{}", self.log_tail(30))
            }
            None => Ok(()),
        }
    }

    /// Fails when the log tells of a panic.
    fn assert_no_panic(&mut self) -> Result<()> {
        match self.log().lines().find(|line| line.contains("panicked at")) {
            Some(line) => bail!("the node panicked: {line}"),
            None => Ok(()),
        }
    }
}

/// The database of the conductor in the same process. How many connections its pool has open depends on how many calls ever met.
pub const DATABASE: &str = "conductor.sqlite";

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Open file descriptors, without those of the conductor's [`DATABASE`].
    pub descriptors: usize,
    /// Resident memory.
    pub resident_bytes: u64,
}

/// The resident bytes that `/proc/PID/status` tells.
pub fn resident_bytes(status: &str) -> Option<u64> {
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    resident.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
