//! One command capsule, as its service sees it.

use std::future::poll_fn;
use std::task::Poll;

use afs_nvme::{Sqe, Status};
use afs_reactor::{Buffer, BufferPool};

use super::queue::Queue;
use crate::codec::CommandData;

/// Why data of the host could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The command has to end with this status, such as 0x022 for a wrong data digest (CONFORMANCE T-52).
    #[error("data transfer failed: {0}")]
    Status(Status),
    /// The command brings no data, or it was taken before: answer 0x00F.
    #[error("the command has no data to receive")]
    NoData,
}

impl TransferError {
    /// The connection ended before the data had come; nobody gets to see this status.
    pub(super) const CLOSED: TransferError = TransferError::Status(Status::ABORTED_SQ_DELETION);

    /// A piece of the data had a wrong digest (CONFORMANCE T-52).
    pub(super) const DIGEST: TransferError =
        TransferError::Status(Status::TRANSIENT_TRANSPORT_ERROR);

    /// The status that the command has to end with.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            TransferError::Status(status) => status,
            TransferError::NoData => Status::DATA_SGL_LENGTH_INVALID.dnr(),
        }
    }
}

/// A command that a service has to answer.
pub struct Request {
    queue: Queue,
    slot: u16,
    sqe: Sqe,
    data_len: u32,
    data: CommandData,
    in_capsule: Option<Buffer>,
}

impl Request {
    pub(super) fn new(
        queue: Queue,
        slot: u16,
        sqe: Sqe,
        data: CommandData,
        in_capsule: Option<Buffer>,
    ) -> Request {
        let data_len = match (data, &in_capsule) {
            (CommandData::InCapsule, Some(buffer)) => u32::try_from(buffer.len()).unwrap_or(0),
            (CommandData::FromHost(length) | CommandData::ToHost(length), _) => length,
            _ => 0,
        };
        Request { queue, slot, sqe, data_len, data, in_capsule }
    }

    /// The submission queue entry.
    #[must_use]
    pub fn sqe(&self) -> &Sqe {
        &self.sqe
    }

    /// Bytes that the SGL describes, in either direction; 0 for none.
    #[must_use]
    pub fn data_len(&self) -> u32 {
        self.data_len
    }

    /// The queue pair that the command came on.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Where buffers for this command come from; see [`Queue::pool`].
    #[must_use]
    pub fn pool(&self) -> &BufferPool {
        self.queue.pool()
    }

    /// The data of a command from host to controller: at once when it was in the capsule, otherwise by R2T,
    /// which is withheld while the pool is empty (CONFORMANCE T-30 to T-35). The buffer is exactly
    /// [`Request::data_len`] bytes long.
    ///
    /// # Errors
    /// [`TransferError::Status`] when a data digest was wrong; [`TransferError::NoData`] when there is none.
    pub async fn receive(&mut self) -> Result<Buffer, TransferError> {
        let length = match std::mem::replace(&mut self.data, CommandData::None) {
            CommandData::InCapsule => return self.in_capsule.take().ok_or(TransferError::NoData),
            CommandData::FromHost(length) => length as usize,
            CommandData::None | CommandData::ToHost(_) => return Err(TransferError::NoData),
        };
        let pool = self.queue.pool().clone();
        let buffer = match pool.try_alloc(length) {
            Some(buffer) => buffer,
            None => pool.alloc(length).await,
        };
        self.queue.request_transfer(self.slot, buffer);
        poll_fn(|cx| match self.queue.take_transfer(self.slot, cx.waker()) {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        })
        .await
    }
}
