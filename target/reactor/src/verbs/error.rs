//! Why a work request failed, and errors of system calls with advice.

use std::fmt;
use std::io;

use afs_verbs_sys as sys;

/// What was being done when a queue pair failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkOperation {
    /// An RDMA READ of the peer's memory.
    Read,
    /// An RDMA WRITE to the peer's memory.
    Write,
    /// A message to the peer.
    Send,
    /// A message from the peer.
    Receive,
    /// Nothing in particular: the connection as a whole.
    Connection,
}

/// What went wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkCause {
    /// The device completed the request with an error.
    Status {
        /// An `ibv_wc_status`.
        status: u32,
        /// The device's own number for it, for its maker's support.
        vendor: u32,
    },
    /// The device did not take the request: an error number of the system.
    Refused(i32),
    /// The device has failed or is gone, or the queue pair broke down by itself.
    Device,
    /// The peer sent more messages than its queue has room for.
    TooManyMessages,
    /// More requests were queued than a queue pair of this depth can have.
    TooManyRequests,
    /// The buffer's pool is not registered with the device.
    NotRegistered,
    /// The peer serves no RDMA READ, but one was asked for.
    NoReads,
}

/// A work request failed, and the queue pair with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkError {
    /// What was being done.
    pub operation: WorkOperation,
    /// What went wrong.
    pub cause: WorkCause,
}

impl WorkError {
    pub(super) fn connection(cause: WorkCause) -> WorkError {
        WorkError { operation: WorkOperation::Connection, cause }
    }

    /// Did this fail only because the queue pair had failed or was closed before?
    pub fn is_flush(&self) -> bool {
        matches!(self.cause, WorkCause::Status { status: sys::IBV_WC_WR_FLUSH_ERR, .. })
    }
}

impl std::error::Error for WorkError {}

impl fmt::Display for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.operation {
            WorkOperation::Read => "RDMA READ: ",
            WorkOperation::Write => "RDMA WRITE: ",
            WorkOperation::Send => "send: ",
            WorkOperation::Receive => "receive: ",
            WorkOperation::Connection => "RDMA connection: ",
        })?;
        match self.cause {
            WorkCause::Status { status, vendor } => {
                write!(f, "{} (status {status}, vendor {vendor:#x})", status_text(status))
            }
            WorkCause::Refused(errno) => {
                write!(f, "not taken by the device: {}", io::Error::from_raw_os_error(errno))
            }
            WorkCause::Device => f.write_str("the device or its queue has failed"),
            WorkCause::TooManyMessages => f.write_str("the peer sends more than its queue holds"),
            WorkCause::TooManyRequests => f.write_str("more requests than the queue holds"),
            WorkCause::NotRegistered => f.write_str("the buffer is not registered memory"),
            WorkCause::NoReads => f.write_str("the peer serves no RDMA READ"),
        }
    }
}

fn status_text(status: u32) -> &'static str {
    match status {
        sys::IBV_WC_SUCCESS => "success",
        sys::IBV_WC_LOC_LEN_ERR => "message longer than the buffer",
        sys::IBV_WC_LOC_QP_OP_ERR => "the device cannot do this",
        sys::IBV_WC_LOC_PROT_ERR => "local memory is not registered for this",
        sys::IBV_WC_WR_FLUSH_ERR => "the connection was closed",
        sys::IBV_WC_LOC_ACCESS_ERR => "the peer may not access this memory",
        sys::IBV_WC_REM_INV_REQ_ERR => "the peer rejects the request",
        sys::IBV_WC_REM_ACCESS_ERR => "the peer's memory is not open for this",
        sys::IBV_WC_REM_OP_ERR => "the peer failed to carry it out",
        sys::IBV_WC_RETRY_EXC_ERR => "the peer does not answer",
        sys::IBV_WC_RNR_RETRY_EXC_ERR => "the peer has no receive ready",
        sys::IBV_WC_FATAL_ERR => "fatal error of the device",
        sys::IBV_WC_RESP_TIMEOUT_ERR => "the peer's answer took too long",
        _ => "failed",
    }
}

/// The error that a call of libibverbs returned as a number.
pub(super) fn check(code: i32) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_abs())),
    }
}

/// The error of a call that returns a negative number and leaves the reason in `errno`, as those
/// of librdmacm do.
pub(super) fn check_errno(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An error with a sentence before it that says what failed.
pub(super) fn context(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Why `bytes` of memory could not be registered, and what to do about it.
pub(super) fn registration(bytes: usize, error: &io::Error) -> io::Error {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    let short = matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN | libc::EPERM));
    let message = match limit {
        Some(limit) if short => format!(
            "{} KiB cannot be registered for RDMA with only {} KiB of locked memory allowed: set LimitMEMLOCK=infinity in the systemd unit, or `ulimit -l unlimited` ({error})",
            bytes / 1024,
            limit / 1024
        ),
        _ => format!("{} KiB of memory cannot be registered for RDMA: {error}", bytes / 1024),
    };
    io::Error::new(error.kind(), message)
}
