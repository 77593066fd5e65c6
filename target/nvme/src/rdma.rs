//! What a host and a controller tell each other while an RDMA connection is made: the private data of the
//! connection manager's request, accept and reject (CONFORMANCE 2.1). The fabric uses it for both ends.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ids::{ControllerId, QueueId};

#[cfg(test)]
mod tests;

/// Record format of all three: the only one that is defined.
const RECFMT: u16 = 0;
/// Entries of the deepest admin queue: 31 commands and an Asynchronous Event Request.
pub const ADMIN_ENTRIES_MAX: u16 = 32;

/// Private data of a connection request (32 bytes). The connection manager may pad it with zeroes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RequestData {
    /// Record format; 0.
    pub recfmt: U16,
    /// Queue to make; 0 is the admin queue.
    pub qid: U16,
    /// Entries of the host's receive queue, 1's based.
    pub hrqsize: U16,
    /// Entries of the host's send queue less one.
    pub hsqsize: U16,
    /// Controller that an I/O queue will join; hosts before Linux 6.12 say 0.
    pub cntlid: U16,
    /// Reserved.
    pub reserved10: [u8; 22],
}

assert_layout!(RequestData, 32, {
    recfmt @ 0, qid @ 2, hrqsize @ 4, hsqsize @ 6, cntlid @ 8, reserved10 @ 10,
});

/// Private data of an accepted connection (32 bytes).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct AcceptData {
    /// Record format; 0.
    pub recfmt: U16,
    /// Entries of the controller's receive queue, 1's based.
    pub crqsize: U16,
    /// Reserved.
    pub reserved4: [u8; 28],
}

assert_layout!(AcceptData, 32, { recfmt @ 0, crqsize @ 2, reserved4 @ 4 });

/// Private data of a rejected connection (4 bytes).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RejectData {
    /// Record format; 0.
    pub recfmt: U16,
    /// Why; see [`RejectStatus`].
    pub sts: U16,
}

assert_layout!(RejectData, 4, { recfmt @ 0, sts @ 2 });

/// Why a connection is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u16)]
pub enum RejectStatus {
    /// The private data is too short.
    #[error("invalid length of the private data")]
    PrivateDataLength = 1,
    /// RECFMT is unknown.
    #[error("invalid record format")]
    RecordFormat = 2,
    /// QID is above what a controller has.
    #[error("invalid queue id")]
    QueueId = 3,
    /// HSQSIZE is 0 or too large.
    #[error("invalid size of the host's send queue")]
    HostSendQueueSize = 4,
    /// HRQSIZE is 0.
    #[error("invalid size of the host's receive queue")]
    HostReceiveQueueSize = 5,
    /// Queue pairs or memory are used up.
    #[error("no resources")]
    NoResources = 6,
    /// The host's limit of incoming RDMA READs cannot be worked with.
    #[error("invalid inbound RDMA READ queue depth")]
    InboundReadDepth = 7,
    /// The host's wish for outgoing RDMA READs cannot be met.
    #[error("invalid outbound RDMA READ queue depth")]
    OutboundReadDepth = 8,
    /// CNTLID names no controller.
    #[error("invalid controller id")]
    ControllerId = 9,
}

impl RejectStatus {
    /// The status with this number.
    pub const fn from_code(code: u16) -> Option<RejectStatus> {
        Some(match code {
            1 => RejectStatus::PrivateDataLength,
            2 => RejectStatus::RecordFormat,
            3 => RejectStatus::QueueId,
            4 => RejectStatus::HostSendQueueSize,
            5 => RejectStatus::HostReceiveQueueSize,
            6 => RejectStatus::NoResources,
            7 => RejectStatus::InboundReadDepth,
            8 => RejectStatus::OutboundReadDepth,
            9 => RejectStatus::ControllerId,
            _ => return None,
        })
    }
}

/// What a controller allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Highest queue id.
    pub qid_max: u16,
    /// Largest HSQSIZE of an I/O queue, 0's based: CAP.MQES.
    pub hsqsize_max: u16,
}

/// A connection request that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Queue to make; 0 is the admin queue.
    pub queue: QueueId,
    /// Entries of the host's receive queue: responses that it can take at once. At least 1.
    pub host_receive_entries: u16,
    /// Entries of the host's send queue less one, as SQSIZE of the Connect will say it. At least 1; the controller
    /// posts one receive more than this.
    pub hsqsize: u16,
    /// The controller that the host names, if it names one.
    pub controller: Option<ControllerId>,
}

impl Request {
    /// Reads the private data of a request. What is behind the first 32 bytes is padding (CONFORMANCE R-1).
    ///
    /// # Errors
    /// What to reject the connection with. Whether the controller exists, and whether there is room, is not known here.
    pub fn parse(private_data: &[u8], limits: &RequestLimits) -> Result<Request, RejectStatus> {
        let (data, _) = RequestData::ref_from_prefix(private_data)
            .map_err(|_| RejectStatus::PrivateDataLength)?;
        let queue = QueueId(data.qid.get());
        if data.recfmt.get() != RECFMT {
            return Err(RejectStatus::RecordFormat);
        }
        if queue.get() > limits.qid_max {
            return Err(RejectStatus::QueueId);
        }
        let hsqsize = data.hsqsize.get();
        let hsqsize_max = match queue {
            QueueId(0) => ADMIN_ENTRIES_MAX - 1,
            _ => limits.hsqsize_max,
        };
        if hsqsize == 0 || hsqsize > hsqsize_max {
            return Err(RejectStatus::HostSendQueueSize);
        }
        let host_receive_entries = data.hrqsize.get();
        if host_receive_entries == 0 {
            return Err(RejectStatus::HostReceiveQueueSize);
        }
        let controller = Some(ControllerId(data.cntlid.get())).filter(|id| id.get() != 0);
        Ok(Request { queue, host_receive_entries, hsqsize, controller })
    }

    /// The request of a host for a queue with `sqsize` entries less one.
    pub const fn new(queue: QueueId, sqsize: u16, controller: Option<ControllerId>) -> Request {
        let host_receive_entries = sqsize.saturating_add(1);
        Request { queue, host_receive_entries, hsqsize: sqsize, controller }
    }

    /// The private data that says it.
    pub fn to_data(self) -> RequestData {
        RequestData {
            recfmt: RECFMT.into(),
            qid: self.queue.get().into(),
            hrqsize: self.host_receive_entries.into(),
            hsqsize: self.hsqsize.into(),
            cntlid: self.controller.map_or(0, ControllerId::get).into(),
            reserved10: [0; 22],
        }
    }
}

/// The private data is not what a controller sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is too short.
    #[error("{0} bytes of private data are too few")]
    Short(usize),
    /// Its record format is unknown.
    #[error("private data of record format {0}")]
    RecordFormat(u16),
    /// The reject status is unknown.
    #[error("unknown reject status {0}")]
    Status(u16),
}

impl AcceptData {
    /// Accepts with a receive queue of `entries`.
    pub fn new(entries: u16) -> AcceptData {
        AcceptData { recfmt: RECFMT.into(), crqsize: entries.into(), ..FromZeros::new_zeroed() }
    }

    /// Reads the private data of an accept: entries of the controller's receive queue.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn parse(private_data: &[u8]) -> Result<u16, AnswerError> {
        let short = |_| AnswerError::Short(private_data.len());
        let data = AcceptData::ref_from_prefix(private_data).map_err(short)?.0;
        match data.recfmt.get() {
            RECFMT => Ok(data.crqsize.get()),
            other => Err(AnswerError::RecordFormat(other)),
        }
    }
}

impl RejectData {
    /// Rejects for this reason. It goes with the connection manager's reason 28, consumer defined (CONFORMANCE R-1).
    pub fn new(status: RejectStatus) -> RejectData {
        RejectData { recfmt: RECFMT.into(), sts: (status as u16).into() }
    }

    /// Reads the private data of a reject.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub fn parse(private_data: &[u8]) -> Result<RejectStatus, AnswerError> {
        let short = |_| AnswerError::Short(private_data.len());
        let data = RejectData::ref_from_prefix(private_data).map_err(short)?.0;
        match (data.recfmt.get(), data.sts.get()) {
            (RECFMT, code) => RejectStatus::from_code(code).ok_or(AnswerError::Status(code)),
            (other, _) => Err(AnswerError::RecordFormat(other)),
        }
    }
}
