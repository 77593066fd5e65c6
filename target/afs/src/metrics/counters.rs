//! Counters of things that happen seldom: connections, controllers, errors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::export::Exposition;
use crate::portal::{TRANSPORTS, Transport};

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many connections that have not finished their handshake (CONFORMANCE T-8).
    HalfOpen,
    /// Too many connections in all.
    Limit,
    /// The node is stopping (CONFORMANCE M-40).
    Stopping,
}

impl Refused {
    const ALL: [Refused; 3] = [Refused::HalfOpen, Refused::Limit, Refused::Stopping];

    const fn name(self) -> &'static str {
        match self {
            Refused::HalfOpen => "half_open",
            Refused::Limit => "limit",
            Refused::Stopping => "stopping",
        }
    }
}

/// What is counted for each transport.
#[derive(Default)]
struct OfTransport {
    connections_accepted: AtomicU64,
    connections_open: AtomicI64,
    controllers_created: AtomicU64,
    controllers_open: AtomicI64,
}

/// Counters of one node; any thread may count.
#[derive(Default)]
pub struct Counters {
    tcp: OfTransport,
    rdma: OfTransport,
    connections_refused: [AtomicU64; Refused::ALL.len()],
    keep_alive_timeouts: AtomicU64,
    events_sent: AtomicU64,
    connects_refused: Mutex<BTreeMap<&'static str, u64>>,
    protocol_errors: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    const fn of(&self, transport: Transport) -> &OfTransport {
        match transport {
            Transport::Tcp => &self.tcp,
            Transport::Rdma => &self.rdma,
        }
    }

    /// A host's connection was accepted.
    pub fn connection_opened(&self, transport: Transport) {
        let counters = self.of(transport);
        counters.connections_accepted.fetch_add(1, Relaxed);
        counters.connections_open.fetch_add(1, Relaxed);
    }

    /// An accepted connection ended.
    pub fn connection_closed(&self, transport: Transport) {
        self.of(transport).connections_open.fetch_sub(1, Relaxed);
    }

    /// A connection was closed before it was served.
    pub fn connection_refused(&self, reason: Refused) {
        if let Some(counter) = self.connections_refused.get(reason as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// A controller was created by a Connect on an admin queue.
    pub fn controller_created(&self, transport: Transport) {
        let counters = self.of(transport);
        counters.controllers_created.fetch_add(1, Relaxed);
        counters.controllers_open.fetch_add(1, Relaxed);
    }

    /// A controller is gone.
    pub fn controller_removed(&self, transport: Transport) {
        self.of(transport).controllers_open.fetch_sub(1, Relaxed);
    }

    /// A controller was ended because its host was silent.
    pub fn keep_alive_timeout(&self) {
        self.keep_alive_timeouts.fetch_add(1, Relaxed);
    }

    /// An asynchronous event was sent to a host.
    pub fn event_sent(&self) {
        self.events_sent.fetch_add(1, Relaxed);
    }

    /// A Connect command was refused; `reason` is one of a fixed set of names.
    pub fn connect_refused(&self, reason: &'static str) {
        *self.connects_refused.lock().entry(reason).or_insert(0) += 1;
    }

    /// A connection was ended because its peer broke the protocol; `kind` is one of a fixed set of names.
    pub fn protocol_error(&self, kind: &'static str) {
        *self.protocol_errors.lock().entry(kind).or_insert(0) += 1;
    }

    pub(super) fn collect(&self, scrape: &mut Exposition) {
        for transport in TRANSPORTS {
            collect_transport(scrape, transport, self.of(transport));
        }
        for (reason, counter) in Refused::ALL.iter().zip(&self.connections_refused) {
            let labels = [("reason", reason.name())];
            scrape.counter(
                "afs_connections_refused_total",
                "Connections closed before they were served.",
                &labels,
                counter.load(Relaxed),
            );
        }
        self.collect_hosts(scrape);
        collect_kinds(
            scrape,
            "afs_connects_refused_total",
            "Connect commands refused.",
            "reason",
            &self.connects_refused,
        );
        collect_kinds(
            scrape,
            "afs_protocol_errors_total",
            "Connections ended because the peer broke the protocol.",
            "kind",
            &self.protocol_errors,
        );
    }

    fn collect_hosts(&self, scrape: &mut Exposition) {
        let silent = self.keep_alive_timeouts.load(Relaxed);
        scrape.counter(
            "afs_keep_alive_timeouts_total",
            "Controllers ended because their host was silent.",
            &[],
            silent,
        );
        let events = self.events_sent.load(Relaxed);
        scrape.counter("afs_events_sent_total", "Asynchronous events sent to hosts.", &[], events);
    }
}

fn collect_transport(scrape: &mut Exposition, transport: Transport, counters: &OfTransport) {
    let labels = [("transport", transport.name())];
    scrape.counter(
        "afs_connections_accepted_total",
        "Connections accepted from hosts.",
        &labels,
        counters.connections_accepted.load(Relaxed),
    );
    scrape.gauge(
        "afs_connections",
        "Connections open now.",
        &labels,
        counters.connections_open.load(Relaxed) as f64,
    );
    scrape.counter(
        "afs_controllers_created_total",
        "Controllers created.",
        &labels,
        counters.controllers_created.load(Relaxed),
    );
    scrape.gauge(
        "afs_controllers",
        "Controllers that hosts hold now.",
        &labels,
        counters.controllers_open.load(Relaxed) as f64,
    );
}

/// The kinds seen so far. `other` is always there, so that a rate exists before the first error.
fn collect_kinds(
    scrape: &mut Exposition,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    kinds: &Mutex<BTreeMap<&'static str, u64>>,
) {
    scrape.counter(name, help, &[(label, "other")], 0);
    for (kind, count) in &*kinds.lock() {
        scrape.counter(name, help, &[(label, kind)], *count);
    }
}
