//! The rounds of one connection, whatever its transport: take what has come, poll commands, send, wait.
//!
//! [`Core`] is what all connections have in common: the commands' futures, the service behind them, time limits. A
//! [`Wire`] is what differs: how capsules come in, how data and completions go out.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use afs_nvme::{Sqe, Status};
use afs_reactor::{Buffer, BufferMut, Local};

use super::close::{CloseReason, MAX_SLOTS, Signals};
use super::limits::Limits;
use super::queue::{Queue, QueueParameters};
use super::request::{Request, TransferError};
use super::service::{Completion, Service};
use super::slots::{Slots, slot_of};
use super::stall::{Phase, Progress, Stall};
use crate::codec::Commands;

/// Rounds that one connection runs before the others of its reactor get their turn.
const ROUNDS_PER_TURN: usize = 4;

/// The transport's part of a connection.
pub(super) trait Wire: Sized {
    /// Takes what has come and starts its commands; false when there was nothing.
    fn receive<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        cx: &mut Context<'_>,
    ) -> Result<bool, CloseReason>;

    /// Sends what is queued, and gives back the slots whose completions have left; false when nothing moved.
    fn send<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        cx: &mut Context<'_>,
    ) -> Result<bool, CloseReason>;

    /// The outstanding commands.
    fn commands(&mut self) -> &mut Commands;

    /// Asks the host for `length` bytes of the data of `slot`, into `buffer`.
    fn request_data(&mut self, queue: &Queue, slot: u16, length: u32, buffer: BufferMut);

    /// Queues the answer of a command.
    fn respond(&mut self, parameters: Option<QueueParameters>, slot: u16, completion: Completion);

    /// A Connect succeeded: at most `limit` commands may be outstanding.
    fn connected(&mut self, admin: bool, limit: usize);

    /// How long the transport's own handshake may take, and why the connection ends if it takes longer.
    fn handshake_limit(limits: &Limits) -> (Duration, CloseReason);

    /// Whether the transport's own handshake is over.
    fn is_greeted(&self) -> bool;

    /// What must move, for the time limits.
    fn progress(&self) -> Progress;

    /// Ends the connection as its reason demands; ready when nothing of it is left. The host has `limits.linger_timeout`
    /// at most.
    fn part(self, reason: &CloseReason, limits: &Limits) -> impl Future<Output = ()>;
}

/// What a connection is made of, whatever its transport.
pub(super) struct Parts<S> {
    pub(super) queue: Queue,
    pub(super) signals: Arc<Signals>,
    pub(super) service: Rc<S>,
    pub(super) limits: Limits,
    pub(super) local: Local,
}

/// See the module.
pub(super) struct Core<S: Service, F: Future<Output = Completion>> {
    pub(super) queue: Queue,
    pub(super) limits: Limits,
    pub(super) local: Local,
    signals: Arc<Signals>,
    service: Rc<S>,
    call: fn(Rc<S>, Request) -> F,
    slots: Slots<F>,
    stall: Stall,
    connected: bool,
}

/// Serves a connection until it ends, and says why it did.
pub(super) async fn run<S: Service, W: Wire>(parts: Parts<S>, wire: W) -> CloseReason {
    let service = Rc::clone(&parts.service);
    let handshake = W::handshake_limit(&parts.limits);
    let mut connection = Connection { core: Core::new(parts, S::call, handshake), wire };
    let reason = poll_fn(|cx| connection.poll(cx)).await;
    let Connection { core, wire } = connection;
    core.queue.end();
    let Core { mut slots, limits, .. } = core;
    service.closing(&reason);
    let drained = async {
        poll_fn(|cx| slots.poll_drained(cx)).await;
        service.closed(&reason);
    };
    tokio::join!(drained, wire.part(&reason, &limits));
    reason
}

struct Connection<S: Service, F: Future<Output = Completion>, W> {
    core: Core<S, F>,
    wire: W,
}

impl<S: Service, F: Future<Output = Completion>, W: Wire> Connection<S, F, W> {
    /// Runs until the connection has to end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.core.signals.unpark();
        for _ in 0..ROUNDS_PER_TURN {
            match self.round(cx) {
                Ok(true) => {}
                Ok(false) if self.core.signals.park(cx.waker(), self.core.slots.words()) => {
                    return Poll::Pending;
                }
                Ok(false) => self.core.signals.unpark(),
                Err(reason) => return Poll::Ready(reason),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One round; false when there was nothing to do.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let Connection { core, wire } = self;
        if let Some(reason) = core.signals.close_wanted() {
            return Err(reason);
        }
        let received = wire.receive(core, cx)?;
        let polled = core.poll_woken(wire);
        let sent = wire.send(core, cx)?;
        if received || polled || sent {
            core.local.counters().note_work();
            return Ok(true);
        }
        let phase = match (wire.is_greeted(), core.connected) {
            (false, _) => Phase::Handshake,
            (true, false) => Phase::WaitsForConnect,
            (true, true) => Phase::Connected,
        };
        core.stall.check(phase, wire.progress(), core.queue.stall_timeout(), cx)?;
        Ok(false)
    }
}

impl<S: Service, F: Future<Output = Completion>> Core<S, F> {
    fn new(
        parts: Parts<S>,
        call: fn(Rc<S>, Request) -> F,
        handshake: (Duration, CloseReason),
    ) -> Core<S, F> {
        let Parts { queue, signals, service, limits, local } = parts;
        Core {
            queue,
            slots: Slots::new(Arc::clone(&signals)),
            signals,
            service,
            call,
            stall: Stall::new(handshake, limits.connect_timeout),
            limits,
            local,
            connected: false,
        }
    }

    /// Starts a command and polls it at once.
    pub(super) fn start(
        &mut self,
        wire: &mut impl Wire,
        slot: u16,
        sqe: Sqe,
        in_capsule: Option<Buffer>,
    ) {
        let data = wire.commands().data(slot);
        let request = Request::new(self.queue.clone(), slot, sqe, data, in_capsule);
        let future = (self.call)(Rc::clone(&self.service), request);
        let completion = self.slots.start(slot, future);
        self.after_poll(wire, slot, completion);
    }

    /// Answers a capsule whose data or SGL was wrong.
    pub(super) fn refuse(&mut self, wire: &mut impl Wire, slot: u16, sqe: &Sqe, status: Status) {
        if status == Status::TRANSIENT_TRANSPORT_ERROR {
            self.queue.count(|counters| counters.digest_errors += 1);
        }
        self.service.refused(sqe, status);
        wire.respond(self.queue.parameters(), slot, Completion::error(status));
    }

    /// All data of a command has come.
    pub(super) fn data_arrived(
        &mut self,
        wire: &mut impl Wire,
        slot: u16,
        result: Result<Buffer, TransferError>,
    ) {
        match self.slots.take_held(slot) {
            Some(completion) => wire.respond(self.queue.parameters(), slot, completion),
            None => self.queue.finish_transfer(slot, result),
        }
    }

    /// Polls every command whose waker was called; false when there was none.
    fn poll_woken(&mut self, wire: &mut impl Wire) -> bool {
        let mut polled = false;
        for word in 0..self.slots.words() {
            let mut bits = self.signals.take_word(word);
            while bits != 0 {
                let slot = slot_of(word, bits.trailing_zeros());
                bits &= bits - 1;
                let completion = self.slots.poll(slot);
                self.after_poll(wire, slot, completion);
                polled = true;
            }
        }
        polled
    }

    fn after_poll(&mut self, wire: &mut impl Wire, slot: u16, completion: Option<Completion>) {
        self.request_data(wire);
        self.note_connected(wire);
        let Some(completion) = completion else { return };
        // T-33, R-15: the host still has the command's data on its list, or the device is still reading it.
        if wire.commands().is_receiving(slot) {
            self.slots.hold(slot, completion);
        } else {
            wire.respond(self.queue.parameters(), slot, completion);
        }
    }

    /// Asks for the data that commands brought buffers for.
    fn request_data(&mut self, wire: &mut impl Wire) {
        while let Some((slot, buffer)) = self.queue.next_wanted() {
            if let Some(length) = wire.commands().open_transfer(slot) {
                wire.request_data(&self.queue, slot, length, buffer);
            }
        }
    }

    /// CONFORMANCE T-27: how many commands may be outstanding is known after Connect.
    fn note_connected(&mut self, wire: &mut impl Wire) {
        if self.connected {
            return;
        }
        let Some(parameters) = self.queue.parameters() else { return };
        self.connected = true;
        let extra = if parameters.admin { self.limits.admin_extra_commands } else { 0 };
        let limit = usize::from(parameters.sqsize) + 1 + extra;
        wire.connected(parameters.admin, limit.min(MAX_SLOTS));
    }
}
