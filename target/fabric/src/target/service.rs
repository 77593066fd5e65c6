//! What stands behind a queue pair: the contract between the fabric and `afs`.

use std::rc::Rc;

use afs_nvme::{Sqe, Status};
use afs_reactor::Buffer;

use super::close::CloseReason;
use super::request::Request;

/// The answer to one command.
#[derive(Debug)]
pub struct Completion {
    /// Status of the command.
    pub status: Status,
    /// DW0 in the low half, DW1 in the high half.
    pub result: u64,
    /// Data for the host: all of it, and exactly what is to be sent. Ignored unless `status` is a success
    /// (CONFORMANCE T-45). Longer than [`Request::data_len`] is answered as an internal error (T-26).
    pub data: Option<Buffer>,
}

impl Completion {
    /// Success without result or data.
    #[must_use]
    pub fn success() -> Completion {
        Completion { status: Status::SUCCESS, result: 0, data: None }
    }

    /// Success with a result in DW0 and DW1.
    #[must_use]
    pub fn with_result(result: u64) -> Completion {
        Completion { status: Status::SUCCESS, result, data: None }
    }

    /// Success with data for the host.
    #[must_use]
    pub fn with_data(data: Buffer) -> Completion {
        Completion { status: Status::SUCCESS, result: 0, data: Some(data) }
    }

    /// Failure.
    #[must_use]
    pub fn error(status: Status) -> Completion {
        Completion { status, result: 0, data: None }
    }
}

impl From<Status> for Completion {
    fn from(status: Status) -> Completion {
        Completion::error(status)
    }
}

/// Serves the commands of one queue pair.
pub trait Service: 'static {
    /// Starts a command. The future is polled at once, so a command that waits for nothing is answered in
    /// the send of the same round. When the connection is lost it is polled to its end all the same, as what is on
    /// its way to a disk cannot be called back (CONFORMANCE T-93); data that has not come then never comes.
    fn call(self: Rc<Self>, request: Request) -> impl Future<Output = Completion> + 'static;

    /// A capsule was answered by the fabric itself, with `status`, because its SGL or its data was wrong
    /// (CONFORMANCE T-70 to T-77). For the error log.
    fn refused(&self, sqe: &Sqe, status: Status) {
        let _ = (sqe, status);
    }

    /// The connection is lost. Commands that wait for something else than the host or a disk must now end, and none
    /// may begin anything new (CONFORMANCE M-45). Called exactly once, before `closed`.
    fn closing(&self, reason: &CloseReason) {
        let _ = reason;
    }

    /// The queue pair is gone. Called exactly once, after all its commands have ended.
    fn closed(&self, reason: &CloseReason);
}
