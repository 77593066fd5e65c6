//! Why something that a host asked for did not happen.

use std::io;

use afs_nvme::Status;
use afs_nvme::rdma::RejectStatus;
use afs_reactor::verbs::WorkError;

use crate::codec::Violation;

/// Failure of a connection or of a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The socket failed or could not be opened.
    #[error("connection failed: {0}")]
    Socket(io::ErrorKind),
    /// The controller closed the connection.
    #[error("the controller closed the connection")]
    Closed,
    /// The controller broke the protocol; it was told so.
    #[error("the controller broke the protocol: {0}")]
    Violation(Box<Violation>),
    /// The controller says that we broke the protocol.
    #[error("the controller ended the connection: FES {fes}, FEI {fei}")]
    Terminated {
        /// Its FES.
        fes: u16,
        /// Its FEI.
        fei: u32,
    },
    /// The controller rejected the RDMA connection.
    #[error("the controller rejected the connection: {0}")]
    Rejected(RejectStatus),
    /// The RDMA connection manager could not make the connection; its reason.
    #[error("the RDMA connection failed: {what} ({reason})")]
    Unreachable {
        /// What did not work.
        what: &'static str,
        /// An error number, or a reject reason of the connection manager.
        reason: i32,
    },
    /// The RDMA device cannot be used, and what to change.
    #[error("the RDMA device cannot be used: {0}")]
    Device(String),
    /// A work request of the RDMA queue pair failed.
    #[error("RDMA failed: {0}")]
    Work(WorkError),
    /// The command failed.
    #[error("command failed: {status}")]
    Status {
        /// Status of the completion.
        status: Status,
        /// DW0 of the completion.
        result: u32,
    },
    /// The data of a read was damaged on its way.
    #[error("wrong data digest on the data of a command")]
    DataDigest,
    /// A command that succeeded brought less data than it was to.
    #[error("the controller sent {received} of {expected} bytes")]
    ShortData {
        /// Bytes that came.
        received: u32,
        /// Bytes that were asked for.
        expected: u32,
    },
    /// A length or a number is outside of what a command can carry.
    #[error("argument out of range: {0}")]
    Argument(&'static str),
    /// Its caller did not want it sent any more when its turn came; nothing was.
    #[error("the command was withdrawn before it was sent")]
    Withdrawn,
    /// Something took longer than it may.
    #[error("timed out: {0}")]
    Timeout(&'static str),
    /// The controller answered nonsense.
    #[error("unusable answer: {0}")]
    Unusable(&'static str),
}

impl From<&io::Error> for HostError {
    fn from(error: &io::Error) -> HostError {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => HostError::Closed,
            kind => HostError::Socket(kind),
        }
    }
}
