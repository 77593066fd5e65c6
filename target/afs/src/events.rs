//! Asynchronous events of one controller: what happened, what the host wants to hear, what it has not read yet.
//!
//! Linux keeps one Asynchronous Event Request outstanding and SPDK up to eight, so events are kept per kind until a
//! request is there to carry them. Rules (CONFORMANCE, M-26):
//! - an event of a kind is sent once and then masked until the host reads the log of that kind with RAE = 0;
//! - a change while masked, or after the reading began, is sent again;
//! - a kind that the host did not enable (feature 0Bh) is never sent, but kept until it is enabled.

use afs_nvme::feature::{event, events};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The kinds of event that this target reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A namespace was added, removed, resized or changed its attributes; read log 04h.
    NamespaceAttribute,
    /// An ANA group changed its state or members; read log 0Ch.
    AnaChange,
    /// The discovery log of this host changed; read log 70h.
    DiscoveryChange,
}

impl Event {
    const ALL: [Event; 3] = [Event::NamespaceAttribute, Event::AnaChange, Event::DiscoveryChange];

    /// The bit of this kind in OAES and in feature 0Bh (CONFORMANCE 4.3, 4.6).
    pub const fn bit(self) -> u32 {
        match self {
            Event::NamespaceAttribute => events::NAMESPACE_ATTRIBUTE,
            Event::AnaChange => events::ANA_CHANGE,
            Event::DiscoveryChange => events::DISCOVERY_CHANGE,
        }
    }

    /// Dword 0 of the completion that reports it: type, information, log page (CONFORMANCE 4.6).
    pub const fn result(self) -> u32 {
        match self {
            Event::NamespaceAttribute => event::NAMESPACE_ATTRIBUTE_CHANGED,
            Event::AnaChange => event::ANA_CHANGED,
            Event::DiscoveryChange => event::DISCOVERY_CHANGED,
        }
    }
}

#[derive(Default)]
struct State {
    pending: u32,
    masked: u32,
    enabled: u32,
    closed: bool,
}

impl State {
    fn take(&mut self) -> Option<Event> {
        let ready = self.pending & self.enabled & !self.masked;
        let event = Event::ALL.into_iter().find(|event| ready & event.bit() != 0)?;
        self.pending &= !event.bit();
        self.masked |= event.bit();
        Some(event)
    }
}

/// The events of one controller. Raised from any thread, awaited on the admin queue's reactor.
#[derive(Default)]
pub struct Events {
    state: Mutex<State>,
    changed: Notify,
}

impl Events {
    /// Notes that `event` happened. Cheap; never waits.
    pub fn raise(&self, event: Event) {
        self.state.lock().pending |= event.bit();
        self.changed.notify_waiters();
    }

    /// Set Features 0Bh: which kinds the host wants, of those in `supported` (CONFORMANCE A-42).
    pub fn enable(&self, wanted: u32, supported: u32) {
        self.state.lock().enabled = wanted & supported;
        self.changed.notify_waiters();
    }

    /// Get Features 0Bh.
    pub fn enabled(&self) -> u32 {
        self.state.lock().enabled
    }

    /// The host began to read the log of `event` with RAE = 0: from now on a change is news again (CONFORMANCE ).
    ///
    /// Call it before the log's content is gathered, so that a change in between is reported once more rather than missed.
    pub fn reading(&self, event: Event) {
        let mut state = self.state.lock();
        state.pending &= !event.bit();
        state.masked &= !event.bit();
    }

    /// Waits for the next event to report; `None` once the controller is closed.
    pub async fn next(&self) -> Option<Event> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                let event = state.take();
                if event.is_some() || state.closed {
                    return event;
                }
            }
            changed.await;
        }
    }

    /// The controller is gone: nobody waits any longer.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// A controller reset forgets what the host enabled; what happened stays news (CONFORMANCE A-44).
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.enabled = 0;
        state.masked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    fn poll(events: &Events) -> Poll<Option<Event>> {
        let next = events.next();
        tokio::pin!(next);
        next.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_event_before_the_first_request_is_kept() {
        let events = Events::default();
        events.raise(Event::AnaChange);
        assert!(poll(&events).is_pending(), "not enabled yet");
        events.enable(u32::MAX, Event::AnaChange.bit());
        assert_eq!(poll(&events), Poll::Ready(Some(Event::AnaChange)));
    }

    #[test]
    fn an_event_is_masked_until_its_log_is_read() {
        let events = Events::default();
        events.enable(u32::MAX, u32::MAX);
        events.raise(Event::NamespaceAttribute);
        assert_eq!(poll(&events), Poll::Ready(Some(Event::NamespaceAttribute)));
        events.raise(Event::NamespaceAttribute);
        assert!(poll(&events).is_pending());
        events.raise(Event::AnaChange);
        assert_eq!(
            poll(&events),
            Poll::Ready(Some(Event::AnaChange)),
            "other kinds are not held back"
        );
        events.reading(Event::NamespaceAttribute);
        assert!(poll(&events).is_pending(), "the reading shows what happened before it");
        events.raise(Event::NamespaceAttribute);
        assert_eq!(poll(&events), Poll::Ready(Some(Event::NamespaceAttribute)));
    }

    #[test]
    fn a_request_ends_when_the_controller_is_closed() {
        let events = Events::default();
        events.enable(u32::MAX, u32::MAX);
        assert!(poll(&events).is_pending());
        events.close();
        assert_eq!(poll(&events), Poll::Ready(None));
    }

    #[test]
    fn a_kind_that_the_host_did_not_ask_for_is_never_sent() {
        let events = Events::default();
        events.enable(Event::AnaChange.bit(), u32::MAX);
        events.raise(Event::DiscoveryChange);
        assert!(poll(&events).is_pending());
    }
}
