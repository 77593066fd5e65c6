//! The rounds of one connection: receive once, start and poll commands, send once, wait.

mod dispatch;
mod receive;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use afs_nvme::Sqe;
use afs_reactor::{BufferMut, BufferPool, Local};
use tokio::net::TcpStream;

use super::close::{CloseReason, Signals};
use super::incoming::Incoming;
use super::limits::Limits;
use super::queue::Queue;
use super::request::Request;
use super::responses::Responses;
use super::service::{Completion, Service};
use super::slots::Slots;
use super::stall::{Phase, Progress, Stall};
use crate::area::ReceiveArea;
use crate::codec::{CodecError, TargetCodec};
use crate::socket;

/// Rounds that one connection runs before the others of its reactor get their turn.
const ROUNDS_PER_TURN: usize = 4;
/// Receive area before ICReq: enough for it, so that half-open connections cost little.
const GREETING_BYTES: usize = 512;

/// A command whose in-capsule data waits for a buffer; its bytes are still in the receive area.
struct WaitingCapsule {
    slot: u16,
    sqe: Sqe,
    /// Where its data begins in the unread bytes, and how long it is.
    start: usize,
    len: usize,
    /// Bytes of its whole PDU.
    total: usize,
    buffer: Pin<Box<dyn Future<Output = BufferMut>>>,
}

/// One connection.
pub(super) struct Connection<S: Service, F: Future<Output = Completion>> {
    stream: TcpStream,
    responses: Responses,
    area: ReceiveArea,
    queue: Queue,
    signals: Arc<Signals>,
    service: Rc<S>,
    call: fn(Rc<S>, Request) -> F,
    codec: TargetCodec,
    slots: Slots<F>,
    incoming: Incoming,
    waiting: Option<WaitingCapsule>,
    reserve: BufferPool,
    stall: Stall,
    limits: Limits,
    local: Local,
    connected: bool,
}

/// What it takes to part from a host.
pub(super) struct Farewell {
    pub(super) stream: TcpStream,
    pub(super) responses: Responses,
    pub(super) area: ReceiveArea,
}

/// What a connection is made of.
pub(super) struct Parts<S> {
    pub(super) stream: TcpStream,
    pub(super) queue: Queue,
    pub(super) signals: Arc<Signals>,
    pub(super) service: Rc<S>,
    pub(super) reserve: BufferPool,
    pub(super) limits: Limits,
    pub(super) local: Local,
}

impl<S: Service, F: Future<Output = Completion>> Connection<S, F> {
    pub(super) fn new(parts: Parts<S>, call: fn(Rc<S>, Request) -> F) -> Connection<S, F> {
        let Parts { stream, queue, signals, service, reserve, limits, local } = parts;
        Connection {
            stream,
            responses: Responses::new(&limits),
            area: ReceiveArea::new(GREETING_BYTES),
            queue,
            codec: TargetCodec::new(limits.wire),
            slots: Slots::new(Arc::clone(&signals)),
            signals,
            service,
            call,
            incoming: Incoming::default(),
            waiting: None,
            reserve,
            stall: Stall::new(limits.icreq_timeout, limits.connect_timeout),
            limits,
            local,
            connected: false,
        }
    }

    /// Runs until the connection has to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.signals.unpark();
        for _ in 0..ROUNDS_PER_TURN {
            match self.round(cx) {
                Ok(true) => {}
                Ok(false) if self.signals.park(cx.waker(), self.slots.words()) => {
                    return Poll::Pending;
                }
                Ok(false) => self.signals.unpark(),
                Err(reason) => return Poll::Ready(reason),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes no more commands and ends all transfers; what is left are the socket and the commands under way.
    pub(super) fn end(self) -> (Farewell, Slots<F>) {
        self.queue.end();
        (Farewell { stream: self.stream, responses: self.responses, area: self.area }, self.slots)
    }

    /// One round; false when there was nothing to do.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if let Some(reason) = self.signals.close_wanted() {
            return Err(reason);
        }
        let received = self.receive_round(cx)?;
        let polled = self.poll_woken();
        let sent = self.send_round(cx)?;
        if received || polled || sent {
            self.local.counters().note_work();
            return Ok(true);
        }
        let (phase, progress) = (self.phase(), self.progress());
        self.stall.check(phase, progress, self.queue.stall_timeout(), cx)?;
        Ok(false)
    }

    fn send_round(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        if self.responses.transmit.is_empty() {
            return Ok(false);
        }
        let before = self.responses.transmit.sent();
        let calls = socket::send(&self.stream, &mut self.responses.transmit)
            .map_err(|error| CloseReason::from(&error))?;
        let bytes = self.responses.transmit.sent() - before;
        self.local.counters().count_socket_calls(calls);
        self.queue.count(|counters| {
            counters.send_calls += calls;
            counters.bytes_sent += bytes;
        });
        while let Some(slot) = self.responses.next_left() {
            self.codec.commands_mut().release(slot);
            self.queue.clear_transfer(slot);
        }
        if !self.responses.transmit.is_empty()
            && let Poll::Ready(Err(error)) = self.stream.poll_write_ready(cx)
        {
            return Err(CloseReason::from(&error));
        }
        Ok(bytes > 0)
    }

    fn phase(&self) -> Phase {
        match (self.codec.is_initialized(), self.connected) {
            (false, _) => Phase::WaitsForIcRequest,
            (true, false) => Phase::WaitsForConnect,
            (true, true) => Phase::Connected,
        }
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

    /// Polls for a buffer that an in-capsule command waits for; true when nothing is waiting any more.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(()) };
        let mut buffer = ready!(waiting.buffer.as_mut().poll(cx));
        if let Some(waiting) = self.waiting.take() {
            let bytes = &self.area.unread()[waiting.start..waiting.start + waiting.len];
            buffer.copy_from_slice(bytes);
            self.area.consume(waiting.total);
            self.start(waiting.slot, waiting.sqe, Some(buffer.freeze()));
        }
        Poll::Ready(())
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
