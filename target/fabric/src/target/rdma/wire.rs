//! The RDMA part of a connection: completions of its queue pair in, one chain of work requests per round out.
//!
//! Data of the host is fetched by RDMA READ straight into the buffer that the disk takes; data for the host leaves by
//! RDMA WRITE from the buffer that the disk filled, and the response follows on the same queue pair (CONFORMANCE R-13).
//!
//! Invariant: no work request that names the host's memory is posted after the response of its command, nor after the
//! connection ended (CONFORMANCE R-17).

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use afs_nvme::{Sqe, Status};
use afs_reactor::BufferMut;
use afs_reactor::verbs::{QueuePair, QueuePairEvent, RemoteMemory};
use zerocopy::{FromBytes, IntoBytes};

use super::super::close::{CloseReason, Signals};
use super::super::connection::{Core, Wire};
use super::super::limits::Limits;
use super::super::queue::{Queue, QueueParameters};
use super::super::service::{Completion, Service};
use super::super::sq_head::SqHead;
use super::super::stall::Progress;
use super::capsule::{self, Bounds, CAPSULE_BYTES};
use crate::codec::{AdmitError, CommandData, Commands};

/// Events that one round takes, so that their answers leave before more commands are started.
const EVENTS_PER_ROUND: usize = 64;
/// Commands that may be outstanding before Connect, as over TCP.
const COMMANDS_BEFORE_CONNECT: usize = 4;
/// How long a host has to take what was answered before the service closed the queue.
const REQUESTED_LINGER: Duration = Duration::from_secs(1);
/// How long the device has to flush the work requests of a queue pair that ends. One that takes longer is destroyed
/// under them, which ends them as well.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// The host's memory of the command in a slot.
#[derive(Clone, Copy, Default)]
struct Remote {
    memory: Option<RemoteMemory>,
    invalidate: Option<u32>,
}

/// See the module.
pub(super) struct RdmaWire {
    pair: QueuePair,
    commands: Commands,
    /// By slot.
    remotes: Vec<Remote>,
    sq_head: SqHead,
    bounds: Bounds,
    /// Commands that the connection was set up for.
    depth: usize,
    signals: Arc<Signals>,
    /// The host has confirmed the connection, or used it.
    greeted: bool,
}

impl RdmaWire {
    /// A connection whose request was for `depth` commands, and which was accepted. `signals` tell when the host has
    /// confirmed that.
    pub(super) fn new(
        pair: QueuePair,
        (admin, depth): (bool, usize),
        limits: &Limits,
        signals: Arc<Signals>,
    ) -> RdmaWire {
        let in_capsule = if admin { 0 } else { limits.rdma.in_capsule_bytes };
        RdmaWire {
            pair,
            commands: Commands::new(COMMANDS_BEFORE_CONNECT.min(depth)),
            remotes: Vec::new(),
            sq_head: SqHead::default(),
            bounds: Bounds { in_capsule, transfer: limits.wire.max_transfer },
            depth,
            signals,
            greeted: false,
        }
    }

    /// Notes that the host has confirmed the connection, once. A message says so too: it may overtake the confirmation.
    fn note_greeted(&mut self, queue: &Queue, has_message: bool) {
        if !self.greeted && (has_message || self.signals.is_established()) {
            self.greeted = true;
            queue.greeted();
        }
    }

    fn handle<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        event: QueuePairEvent,
    ) -> Result<(), CloseReason> {
        match event {
            QueuePairEvent::Received { header, len, data } => {
                self.note_greeted(&core.queue, true);
                self.capsule(core, &header, len, data)
            }
            QueuePairEvent::ReadDone { tag, buffer } => {
                core.queue.count(|counters| counters.bytes_received += buffer.len() as u64);
                self.commands.advance(tag, u32::MAX, false);
                core.data_arrived(self, tag, Ok(buffer.freeze()));
                Ok(())
            }
            QueuePairEvent::Sent { tag } => {
                self.commands.release(tag);
                core.queue.clear_transfer(tag);
                Ok(())
            }
            QueuePairEvent::Failed(error) => Err(CloseReason::Work(error)),
        }
    }

    fn capsule<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        header: &[u8],
        len: usize,
        data: Option<BufferMut>,
    ) -> Result<(), CloseReason> {
        let behind = len.checked_sub(CAPSULE_BYTES).ok_or(CloseReason::ShortCapsule(len))?;
        let sqe = Sqe::read_from_bytes(header).map_err(|_| CloseReason::ShortCapsule(len))?;
        let plan = capsule::plan(&sqe, u32::try_from(behind).unwrap_or(u32::MAX), self.bounds);
        let slot = self.commands.admit(sqe.cid(), plan.data).map_err(|error| match error {
            AdmitError::TooMany => CloseReason::TooManyCommands,
            AdmitError::Duplicate => CloseReason::DuplicateCommandId(sqe.cid()),
        })?;
        self.set_remote(slot, Remote { memory: plan.remote, invalidate: plan.invalidate });
        core.queue.count(|counters| {
            counters.commands += 1;
            counters.bytes_received += len as u64;
        });
        match (plan.fault, plan.data) {
            (Some(status), _) => core.refuse(self, slot, &sqe, status),
            (None, CommandData::InCapsule) => {
                core.start(self, slot, sqe, data.map(BufferMut::freeze));
            }
            (None, _) => core.start(self, slot, sqe, None),
        }
        Ok(())
    }

    fn set_remote(&mut self, slot: u16, remote: Remote) {
        let index = usize::from(slot);
        if self.remotes.len() <= index {
            self.remotes.resize(index + 1, Remote::default());
        }
        self.remotes[index] = remote;
    }

    fn remote(&self, slot: u16) -> Remote {
        self.remotes.get(usize::from(slot)).copied().unwrap_or_default()
    }
}

impl Wire for RdmaWire {
    fn receive<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        cx: &mut Context<'_>,
    ) -> Result<bool, CloseReason> {
        self.note_greeted(&core.queue, false);
        for taken in 0..EVENTS_PER_ROUND {
            let Poll::Ready(event) = self.pair.poll_event(cx) else { return Ok(taken > 0) };
            self.handle(core, event)?;
        }
        Ok(true)
    }

    fn send<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        _: &mut Context<'_>,
    ) -> Result<bool, CloseReason> {
        let posted = self.pair.flush().map_err(|error| CloseReason::Socket(error.kind()))?;
        if posted {
            core.queue.count(|counters| counters.send_calls += 1);
        }
        Ok(posted)
    }

    fn commands(&mut self) -> &mut Commands {
        &mut self.commands
    }

    /// Queues an RDMA READ of the whole transfer.
    fn request_data(&mut self, queue: &Queue, slot: u16, _: u32, buffer: BufferMut) {
        if let Some(memory) = self.remote(slot).memory {
            self.pair.read(slot, buffer, memory);
            queue.count(|counters| counters.r2ts += 1);
        }
    }

    fn respond(&mut self, parameters: Option<QueueParameters>, slot: u16, completion: Completion) {
        let mut completion = completion;
        let remote = self.remote(slot);
        let data = completion
            .data
            .take()
            .filter(|data| completion.status.is_success() && !data.is_empty());
        let write = match (data, self.commands.data(slot), remote.memory) {
            (None, _, _) => None,
            (Some(data), CommandData::ToHost(limit), Some(memory))
                if data.len() <= limit as usize =>
            {
                Some((data, memory))
            }
            // T-26: never more than the SGL says, and nothing to a command that reads nothing.
            (Some(_), _, _) => {
                completion = Completion::error(Status::INTERNAL_ERROR);
                None
            }
        };
        self.sq_head.advance(parameters);
        let cqe = self.sq_head.entry(parameters, self.commands.cid(slot), &completion);
        // The host may use the command id again as soon as it has the response, which can be before we hear that it has.
        self.commands.answered(slot);
        self.pair.send(slot, cqe.as_bytes(), None, write, remote.invalidate);
    }

    fn connected(&mut self, _: bool, limit: usize) {
        self.commands.set_limit(limit.min(self.depth));
    }

    fn handshake_limit(limits: &Limits) -> (Duration, CloseReason) {
        (limits.rdma.establish_timeout, CloseReason::NotEstablished)
    }

    fn is_greeted(&self) -> bool {
        self.greeted
    }

    fn progress(&self) -> Progress {
        let waits = self.pair.outstanding() > 0;
        Progress { unsent: waits.then(|| self.pair.work_ended()), ..Progress::default() }
    }

    async fn part(self, reason: &CloseReason, limits: &Limits) {
        let idle = || poll_fn(|cx| self.pair.poll_idle(cx));
        if matches!(reason, CloseReason::Requested(_)) && self.pair.flush().is_ok() {
            // A host that does not take its last answers in time loses them, as over TCP.
            let _ = tokio::time::timeout(REQUESTED_LINGER.min(limits.linger_timeout), idle()).await;
        }
        self.pair.disconnect();
        if tokio::time::timeout(FLUSH_LIMIT, idle()).await.is_err() {
            tracing::warn!("the device did not flush a queue pair in time; destroying it");
        }
    }
}
