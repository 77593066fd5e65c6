//! The TCP part of a connection: one receive and one send per round, PDUs between.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use afs_nvme::Sqe;
use afs_reactor::{BufferMut, BufferPool};
use tokio::net::TcpStream;

use super::super::close::CloseReason;
use super::super::connection::{Core, Wire};
use super::super::limits::Limits;
use super::super::queue::{Queue, QueueParameters};
use super::super::service::{Completion, Service};
use super::super::stall::Progress;
use super::incoming::Incoming;
use super::part::part;
use super::responses::Responses;
use crate::area::ReceiveArea;
use crate::codec::{CodecError, Commands, TargetCodec};
use crate::socket;

/// Receive area before ICReq: enough for it, so that half-open connections cost little.
const GREETING_BYTES: usize = 512;

/// A command whose in-capsule data waits for a buffer; its bytes are still in the receive area.
pub(super) struct WaitingCapsule {
    pub(super) slot: u16,
    pub(super) sqe: Sqe,
    /// Where its data begins in the unread bytes, and how long it is.
    pub(super) start: usize,
    pub(super) len: usize,
    /// Bytes of its whole PDU.
    pub(super) total: usize,
    pub(super) buffer: Pin<Box<dyn Future<Output = BufferMut>>>,
}

/// See the module.
pub(super) struct TcpWire {
    pub(super) stream: Rc<TcpStream>,
    pub(super) responses: Responses,
    pub(super) area: ReceiveArea,
    pub(super) codec: TargetCodec,
    pub(super) incoming: Incoming,
    pub(super) waiting: Option<WaitingCapsule>,
    pub(super) reserve: BufferPool,
}

impl TcpWire {
    pub(super) fn new(stream: Rc<TcpStream>, reserve: BufferPool, limits: &Limits) -> TcpWire {
        TcpWire {
            stream,
            responses: Responses::new(limits),
            area: ReceiveArea::new(GREETING_BYTES),
            codec: TargetCodec::new(limits.wire),
            incoming: Incoming::default(),
            waiting: None,
            reserve,
        }
    }

    /// Polls for a buffer that an in-capsule command waits for; ready when nothing is waiting any more. Meanwhile nothing was read, so
    /// the host may have closed unheard, and then the command is not started (CONFORMANCE M-45).
    pub(super) fn poll_waiting<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), CloseReason>> {
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(Ok(())) };
        let mut buffer = ready!(waiting.buffer.as_mut().poll(cx));
        core.queue.set_deaf(false);
        if socket::is_closed_by_peer(&self.stream) {
            return Poll::Ready(Err(CloseReason::PeerClosed));
        }
        if let Some(waiting) = self.waiting.take() {
            let bytes = &self.area.unread()[waiting.start..waiting.start + waiting.len];
            buffer.copy_from_slice(bytes);
            self.area.consume(waiting.total);
            core.start(self, waiting.slot, waiting.sqe, Some(buffer.freeze()));
        }
        Poll::Ready(Ok(()))
    }
}

impl Wire for TcpWire {
    fn receive<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        cx: &mut Context<'_>,
    ) -> Result<bool, CloseReason> {
        self.receive_round(core, cx)
    }

    fn send<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        cx: &mut Context<'_>,
    ) -> Result<bool, CloseReason> {
        if self.responses.transmit.is_empty() {
            return Ok(false);
        }
        let before = self.responses.transmit.sent();
        let calls = socket::send(&self.stream, &mut self.responses.transmit)
            .map_err(|error| CloseReason::from(&error))?;
        let bytes = self.responses.transmit.sent() - before;
        core.local.counters().count_socket_calls(calls);
        core.queue.count(|counters| {
            counters.send_calls += calls;
            counters.bytes_sent += bytes;
        });
        while let Some(slot) = self.responses.next_left() {
            self.codec.commands_mut().release(slot);
            core.queue.clear_transfer(slot);
        }
        if !self.responses.transmit.is_empty() {
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => return Ok(true),
                Poll::Ready(Err(error)) => return Err(CloseReason::from(&error)),
            }
        }
        Ok(bytes > 0)
    }

    fn commands(&mut self) -> &mut Commands {
        self.codec.commands_mut()
    }

    /// Queues an R2T for the whole transfer (CONFORMANCE T-30 to T-34).
    fn request_data(&mut self, queue: &Queue, slot: u16, length: u32, buffer: BufferMut) {
        let cid = self.codec.commands().cid(slot);
        self.incoming.open(slot, buffer);
        self.responses.r2t(cid, slot, length);
        queue.count(|counters| counters.r2ts += 1);
    }

    fn respond(&mut self, parameters: Option<QueueParameters>, slot: u16, completion: Completion) {
        let commands = self.codec.commands();
        let command = (slot, commands.cid(slot), commands.data(slot));
        self.responses.complete(parameters, command, completion);
    }

    fn connected(&mut self, admin: bool, limit: usize) {
        self.codec.set_connected(admin, limit);
    }

    fn handshake_limit(limits: &Limits) -> (Duration, CloseReason) {
        (limits.icreq_timeout, CloseReason::NoIcRequest)
    }

    fn is_greeted(&self) -> bool {
        self.codec.is_initialized()
    }

    fn progress(&self) -> Progress {
        let partial = self.waiting.is_none() && (!self.area.is_empty() || self.codec.in_payload());
        let transmit = &self.responses.transmit;
        let open = self.codec.commands().open_transfers() > 0;
        Progress {
            partial_pdu: partial.then(|| self.codec.pdu_count()),
            unsent: (!transmit.is_empty()).then(|| transmit.sent()),
            open_transfer: open.then(|| self.incoming.received()),
        }
    }

    async fn part(self, reason: &CloseReason, limits: &Limits) {
        part(self.stream, self.responses, self.area, reason, limits.linger_timeout).await;
    }
}

impl From<CodecError> for CloseReason {
    fn from(error: CodecError) -> CloseReason {
        match error {
            CodecError::Violation(violation) => CloseReason::Violation(violation),
            CodecError::TooManyCommands => CloseReason::TooManyCommands,
            CodecError::DuplicateCommandId(cid) => CloseReason::DuplicateCommandId(cid),
        }
    }
}
