//! Commands on I/O queues: the checks in the order of CONFORMANCE 5.2, then the data path to the backend.
//!
//! [`IoQueue::execute`] is the hot path: one atomic load and an index find the namespace, the buffer that came from the
//! fabric goes to the backend and the buffer that the disk filled goes to the fabric.

mod ranges;

use crate::backend::{Backend, BackendError};
use crate::controller::Controller;
use crate::keep_alive::KeepAlive;
use crate::limits::{BLOCK_BYTES, TRANSFER_BYTES_MAX};
use crate::metrics::io::{InFlight, Operation, QueueMetrics};
use crate::namespace::{LocalNamespace, LocalNamespaces, Namespace};
use crate::subsystem::Subsystem;
use afs_fabric::{Completion, Request};
use afs_nvme::command::{IoCommand, Rw, check_flags, io::check_control};
use afs_nvme::{Sqe, Status};
use afs_reactor::{BufferMut, Local};
use afs_volume::WriteGuard;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// NSID that addresses all namespaces.
const ALL_NAMESPACES: u32 = u32::MAX;

/// What the commands of one connected I/O queue share.
pub struct IoQueue {
    /// Whose queue it is.
    pub controller: Arc<Controller>,
    /// Its id.
    pub qid: u16,
    subsystem: Arc<Subsystem>,
    local: Local,
    namespaces: LocalNamespaces,
    metrics: Arc<QueueMetrics>,
    lost: Cell<bool>,
    /// How often the reactor had stood still when this connection came.
    gaps: u64,
}

/// What a command did, for the metrics.
struct Outcome {
    operation: Operation,
    bytes: u64,
    completion: Result<Completion, Status>,
}

impl IoQueue {
    /// The queue `qid` of `controller`, which serves `subsystem`, on the reactor of `local`; counted in `metrics`.
    pub fn new(
        controller: Arc<Controller>,
        subsystem: Arc<Subsystem>,
        qid: u16,
        local: Local,
        metrics: Arc<QueueMetrics>,
    ) -> IoQueue {
        let namespaces = LocalNamespaces::new();
        let lost = Cell::new(false);
        let gaps = crate::pulse::gaps();
        IoQueue { controller, qid, subsystem, local, namespaces, metrics, lost, gaps }
    }

    /// The connection is lost: from here on nothing of it is handed to a backend (CONFORMANCE M-45).
    pub fn closing(&self) {
        self.lost.set(true);
    }

    /// Carries out one command.
    pub async fn execute(&self, request: Request) -> Completion {
        let sqe = *request.sqe();
        let in_flight = self.metrics.begin();
        let result = match self.admit(&sqe) {
            Ok((None, _)) => {
                in_flight.record(0, 0, true);
                Ok(Completion::success())
            }
            Ok((Some(target), command)) => {
                self.measured(&target, command, request, in_flight).await
            }
            Err(status) => {
                in_flight.record(0, 0, false);
                Err(status)
            }
        };
        result.unwrap_or_else(|status| {
            self.controller.errors.record(self.qid, &sqe, status);
            Completion::error(status)
        })
    }

    /// CONFORMANCE 5.2, rows 1 to 8. No namespace means a flush of all of them.
    #[inline]
    fn admit(&self, sqe: &Sqe) -> Result<(Option<Rc<LocalNamespace>>, IoCommand), Status> {
        if !self.controller.enabled() {
            return Err(Status::COMMAND_SEQUENCE_ERROR);
        }
        check_flags(sqe)?;
        let command = IoCommand::parse(sqe)?;
        if sqe.nsid() == ALL_NAMESPACES && command == IoCommand::Flush {
            // VWC bits 2:1 promise it; what was acknowledged is durable already (CONFORMANCE 5.1).
            return Ok((None, IoCommand::Flush));
        }
        let target = self
            .namespaces
            .get(&self.local, &self.subsystem, sqe.nsid())
            .ok_or(Status::INVALID_NAMESPACE.dnr())?;
        target.namespace.ana.check()?; // never with DNR (CONFORMANCE I-1)
        if target.namespace.read_only && command.is_write() {
            return Err(Status::NAMESPACE_WRITE_PROTECTED.dnr());
        }
        Ok((Some(target), command))
    }

    async fn measured(
        &self,
        target: &LocalNamespace,
        command: IoCommand,
        request: Request,
        in_flight: InFlight<'_>,
    ) -> Result<Completion, Status> {
        // Accessible namespaces have a backend; one that could not be opened here is another path's to serve.
        let backend = target.backend.as_ref().ok_or(Status::ANA_INACCESSIBLE)?;
        if !backend.wants_order() && crate::pulse::gaps() != self.gaps {
            self.lost.set(true);
            self.controller.close("the node stood still");
            return Err(Status::ABORTED_SQ_DELETION);
        }
        let started = Instant::now();
        let place = Target {
            backend,
            namespace: &target.namespace,
            lost: &self.lost,
            local: &self.local,
            keep_alive: &self.controller.keep_alive,
            gaps: self.gaps,
        };
        let outcome = place.run(command, request).await;
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let (bytes, ok) = (outcome.bytes, outcome.completion.is_ok());
        in_flight.record(bytes, nanos, ok);
        target.namespace.metrics.record(self.local.index(), outcome.operation, bytes, nanos, ok);
        if outcome.completion.as_ref().is_err_and(|status| *status == Status::ANA_INACCESSIBLE) {
            self.subsystem.lost(target.namespace.nsid);
        }
        outcome.completion
    }
}

/// CONFORMANCE 5.2 row 9.
#[inline]
fn in_range(namespace: &Namespace, lba: u64, blocks: u64) -> Result<(), Status> {
    match lba.checked_add(blocks) {
        Some(end) if end <= namespace.blocks => Ok(()),
        _ => Err(Status::LBA_OUT_OF_RANGE.dnr()),
    }
}

/// CONFORMANCE 5.2 row 9 and the flags of row 10 for a command that names blocks itself.
#[inline]
fn addressed(
    namespace: &Namespace,
    lba: u64,
    blocks: u64,
    request: &Request,
) -> Result<(), Status> {
    in_range(namespace, lba, blocks)?;
    check_control(request.sqe())
}

/// CONFORMANCE 5.2 rows 9 to 11 for a command that carries `rw.blocks` blocks of data.
#[inline]
fn transfer(namespace: &Namespace, rw: &Rw, request: &Request) -> Result<u32, Status> {
    addressed(namespace, rw.lba, rw.blocks.into(), request)?;
    let bytes = rw.blocks.checked_mul(BLOCK_BYTES).filter(|bytes| *bytes <= TRANSFER_BYTES_MAX);
    let bytes = bytes.ok_or(Status::INVALID_FIELD.dnr())?;
    if request.data_len() != bytes {
        return Err(Status::DATA_SGL_LENGTH_INVALID.dnr());
    }
    Ok(bytes)
}

/// What one command works on.
struct Target<'a> {
    backend: &'a Backend,
    namespace: &'a Namespace,
    lost: &'a Cell<bool>,
    keep_alive: &'a KeepAlive,
    local: &'a Local,
    /// As in [`IoQueue`].
    gaps: u64,
}

impl Target<'_> {
    async fn run(&self, command: IoCommand, mut request: Request) -> Outcome {
        let done = |operation, blocks: u64, result: Result<(), Status>| Outcome {
            operation,
            bytes: blocks * u64::from(BLOCK_BYTES),
            completion: result.map(|()| Completion::success()),
        };
        match command {
            IoCommand::Read(rw) => Outcome {
                operation: Operation::Read,
                bytes: u64::from(rw.blocks) * u64::from(BLOCK_BYTES),
                completion: self.read(&rw, &request).await,
            },
            IoCommand::Write(rw) => {
                let result = self.write(&rw, &mut request).await;
                done(Operation::Write, rw.blocks.into(), result)
            }
            IoCommand::Compare(rw) => {
                let result = self.compare(&rw, &mut request).await;
                done(Operation::Compare, rw.blocks.into(), result)
            }
            IoCommand::Verify(rw) => {
                done(Operation::Verify, rw.blocks.into(), self.verify(&rw, &request).await)
            }
            IoCommand::WriteZeroes { lba, blocks, deallocate, .. } => {
                let blocks = u64::from(blocks);
                let result = self.write_zeroes(lba, blocks, deallocate, &request).await;
                done(Operation::WriteZeroes, blocks, result)
            }
            IoCommand::Flush => {
                done(Operation::Flush, 0, self.backend.flush().await.map_err(write_status))
            }
            IoCommand::DatasetManagement { ranges, deallocate } => {
                match self.dataset_management(ranges, deallocate, &mut request).await {
                    Ok(blocks) => done(Operation::Deallocate, blocks, Ok(())),
                    Err(status) => done(Operation::Deallocate, 0, Err(status)),
                }
            }
        }
    }

    async fn read(&self, rw: &Rw, request: &Request) -> Result<Completion, Status> {
        let bytes = transfer(self.namespace, rw, request)? as usize;
        if let Some(read) = self.backend.read_at_once(rw.lba, bytes) {
            return read.map(Completion::with_data).map_err(read_status);
        }
        let buffer = match request.pool().try_alloc(bytes) {
            Some(buffer) => buffer,
            None => request.pool().alloc(bytes).await,
        };
        let (buffer, result) = self.read_settled(rw, buffer).await;
        result.map_err(read_status)?;
        Ok(Completion::with_data(buffer.freeze()))
    }

    /// Reads what no write that is under way may still change.
    async fn read_settled(
        &self,
        rw: &Rw,
        buffer: BufferMut,
    ) -> (BufferMut, Result<(), BackendError>) {
        if self.backend.wants_order() {
            self.namespace.ranges.settled(rw.lba..rw.lba + u64::from(rw.blocks)).await;
        }
        self.backend.read(rw.lba, buffer).await
    }

    async fn write(&self, rw: &Rw, request: &mut Request) -> Result<(), Status> {
        transfer(self.namespace, rw, request)?;
        let data = request.receive().await.map_err(|error| error.status())?;
        let _held = self.hold(rw.lba, rw.blocks.into(), request).await?;
        self.backend.write(rw.lba, data, &self.gone(request)).await.map_err(write_status)
    }

    async fn write_zeroes(
        &self,
        lba: u64,
        blocks: u64,
        deallocate: bool,
        request: &Request,
    ) -> Result<(), Status> {
        addressed(self.namespace, lba, blocks, request)?;
        let _held = self.hold(lba, blocks, request).await?;
        let gone = self.gone(request);
        let zeroed = self.backend.write_zeroes(lba, blocks, deallocate, &gone).await;
        zeroed.map_err(write_status)
    }

    /// Takes a range for a change of its blocks. A command whose connection was lost while it waited changes nothing
    /// any more: the host may have sent it again elsewhere (CONFORMANCE M-45).
    async fn hold(
        &self,
        lba: u64,
        blocks: u64,
        request: &Request,
    ) -> Result<Option<WriteGuard<'_>>, Status> {
        let held = if self.backend.wants_order() {
            Some(self.namespace.ranges.write(lba..lba + blocks).await)
        } else if request.queue().is_host_there(self.local).await {
            None
        } else {
            return Err(Status::ABORTED_SQ_DELETION);
        };
        if self.lost.get() { Err(Status::ABORTED_SQ_DELETION) } else { Ok(held) }
    }

    /// Tells whether the connection is lost; for a volume that others serve too, whether it may be, or may soon be given up. A
    /// command may have been under way when the reactor stood still, and `keep_alive` may not have noticed yet.
    fn gone(&self, request: &Request) -> impl Fn() -> bool {
        || {
            let alone = self.backend.wants_order();
            let given_up = || {
                crate::pulse::gaps() != self.gaps
                    || self.keep_alive.is_quiet()
                    || request.queue().may_be_given_up(self.local)
            };
            self.lost.get() || (!alone && given_up())
        }
    }

    async fn compare(&self, rw: &Rw, request: &mut Request) -> Result<(), Status> {
        let bytes = transfer(self.namespace, rw, request)? as usize;
        let expected = request.receive().await.map_err(|error| error.status())?;
        // Holding one buffer while waiting for a second could stop all comparers at once, so an empty pool means: try again.
        let buffer = request.pool().try_alloc(bytes).ok_or(Status::COMMAND_INTERRUPTED)?;
        let (found, result) = self.read_settled(rw, buffer).await;
        result.map_err(read_status)?;
        if *found == *expected { Ok(()) } else { Err(Status::COMPARE_FAILURE.dnr()) }
    }

    /// Reads and discards (CONFORMANCE 5.1, Verify); it moves no data over the fabric, so MDTS does not bound it.
    async fn verify(&self, rw: &Rw, request: &Request) -> Result<(), Status> {
        addressed(self.namespace, rw.lba, rw.blocks.into(), request)?;
        self.backend.verify(rw.lba, rw.blocks.into()).await.map_err(read_status)
    }
}

/// CONFORMANCE 5.4, I-2, I-6.
fn read_status(error: BackendError) -> Status {
    match error {
        BackendError::OutOfRange => Status::LBA_OUT_OF_RANGE.dnr(),
        BackendError::Full => Status::CAPACITY_EXCEEDED.dnr(),
        BackendError::Media => Status::UNRECOVERED_READ_ERROR.dnr(),
        BackendError::Stopped => Status::ANA_INACCESSIBLE,
        BackendError::Unavailable => Status::ANA_TRANSITION,
    }
}

/// CONFORMANCE 5.4, I-2, I-5, I-6.
fn write_status(error: BackendError) -> Status {
    match error {
        BackendError::Media => Status::WRITE_FAULT.dnr(),
        other => read_status(other),
    }
}
