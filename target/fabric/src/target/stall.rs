//! The one timer of a connection: handshake deadlines first, then hosts that stop half-way (CONFORMANCE T-8,
//! T-89). Nothing here runs per I/O: the timer is armed when a connection parks with something half done,
//! and looked at when it parks again.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::close::CloseReason;

/// How far a connection is, as far as time limits go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The transport's own: ICReq, or the establishment of an RDMA connection.
    Handshake,
    WaitsForConnect,
    Connected,
}

/// What has to move while something is half done.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// PDUs begun, if the last one is not all there.
    pub(super) partial_pdu: Option<u64>,
    /// Bytes sent, if more are waiting.
    pub(super) unsent: Option<u64>,
    /// Bytes received for transfers, if one is open.
    pub(super) open_transfer: Option<u64>,
}

impl Progress {
    fn is_waiting(self) -> bool {
        self.partial_pdu.is_some() || self.unsent.is_some() || self.open_transfer.is_some()
    }

    fn stands_still_since(self, before: Progress) -> bool {
        let same = |now: Option<u64>, then: Option<u64>| now.is_some() && now == then;
        same(self.partial_pdu, before.partial_pdu)
            || same(self.unsent, before.unsent)
            || same(self.open_transfer, before.open_transfer)
    }
}

/// Watches one connection.
pub(super) struct Stall {
    sleep: Pin<Box<Sleep>>,
    armed: bool,
    phase: Phase,
    before: Progress,
    /// Why the connection ends if the handshake takes too long.
    no_handshake: CloseReason,
    connect_timeout: Duration,
}

impl Stall {
    /// `handshake` is how long that may take, and why the connection ends otherwise.
    pub(super) fn new(handshake: (Duration, CloseReason), connect_timeout: Duration) -> Stall {
        let (timeout, no_handshake) = handshake;
        Stall {
            sleep: Box::pin(tokio::time::sleep(timeout)),
            armed: false,
            phase: Phase::Handshake,
            before: Progress::default(),
            no_handshake,
            connect_timeout,
        }
    }

    /// Called when the connection is about to wait: why it must end, if time is up.
    pub(super) fn check(
        &mut self,
        phase: Phase,
        progress: Progress,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Result<(), CloseReason> {
        if self.phase != phase {
            self.phase = phase;
            self.armed = false;
            if phase == Phase::WaitsForConnect {
                self.arm_after(self.connect_timeout, cx);
            }
        } else if phase == Phase::Handshake && !self.armed {
            self.armed = true;
            self.register(cx);
        }
        if self.armed && self.sleep.is_elapsed() {
            self.armed = false;
            match phase {
                Phase::Handshake => return Err(self.no_handshake.clone()),
                Phase::WaitsForConnect => return Err(CloseReason::NoConnect),
                Phase::Connected if progress.stands_still_since(self.before) => {
                    return Err(CloseReason::Stalled);
                }
                Phase::Connected => {}
            }
        }
        if phase == Phase::Connected && !self.armed && progress.is_waiting() {
            self.before = progress;
            self.arm_after(limit, cx);
        }
        Ok(())
    }

    fn arm_after(&mut self, duration: Duration, cx: &mut Context<'_>) {
        self.sleep.as_mut().reset(Instant::now() + duration);
        self.armed = true;
        self.register(cx);
    }

    /// One poll leaves the task's waker with the timer.
    fn register(&mut self, cx: &mut Context<'_>) {
        if self.sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}
