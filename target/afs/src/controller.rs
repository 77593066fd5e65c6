//! One controller: the association of a host with a subsystem, or with discovery, through this node.
//!
//! Life: made by an admin Connect; enabled by CC.EN; I/O queues join; ends when the admin connection ends, when keep-alive
//! expires, or when it is closed from above. Then all its connections are closed and it is forgotten.
//!
//! Invariants:
//! - commands on I/O queues are served only while `enabled()` (CONFORMANCE F-3, 5.2 row 1);
//! - `close` first forbids I/O, then closes the connections (CONFORMANCE A-52);
//! - nothing here waits: shared with the I/O queues on other reactors, all locks are short.

use crate::discovery::DiscoveryView;
use crate::error_log::ErrorLog;
use crate::events::{Event, Events};
use crate::features::Features;
use crate::keep_alive::KeepAlive;
use crate::limits::NSID_MAX;
use crate::link::Link;
use crate::node::ControllerStatus;
use crate::properties::Properties;
use crate::subsystem::{Host, Subsystem};
use afs_fabric::{CloseReason, QueueCloser};
use afs_nvme::ControllerId;
use afs_nvme::nqn::DISCOVERY;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a controller gives access to.
pub enum Role {
    /// The namespaces of a subsystem.
    Io(Arc<Subsystem>),
    /// The discovery log.
    Discovery(DiscoveryView),
}

#[derive(Default)]
struct Queues {
    /// I/O queues granted by Set Features 07h; `None` until the host asked.
    granted: Option<u16>,
    /// The connections, by queue id; 0 is the admin queue.
    closers: BTreeMap<u16, QueueCloser>,
    closed: Option<&'static str>,
}

/// Why a queue cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoQueue {
    /// The controller is not enabled, or ends just now (CONFORMANCE F-3).
    NotReady,
    /// A queue of this id is connected (CONFORMANCE F-6).
    Duplicate,
    /// The id is 0 or above what was granted (CONFORMANCE 3.1).
    OutOfRange,
}

/// See the module.
pub struct Controller {
    /// CNTLID.
    pub id: ControllerId,
    /// Whose it is.
    pub host: Host,
    /// What it is for.
    pub role: Role,
    /// How its queues travel.
    pub link: Link,
    /// CC, CSTS.
    pub properties: Mutex<Properties>,
    /// Settable features.
    pub features: Mutex<Features>,
    /// Life signs.
    pub keep_alive: KeepAlive,
    /// What to report by Asynchronous Event Requests.
    pub events: Events,
    /// Failed commands.
    pub errors: ErrorLog,
    queues: Mutex<Queues>,
    changed_namespaces: Mutex<BTreeSet<u32>>,
    enabled: AtomicBool,
}

impl Controller {
    /// A controller that is not enabled yet.
    pub fn new(id: ControllerId, host: Host, role: Role, link: Link, kato_ms: u32) -> Controller {
        Controller {
            id,
            host,
            role,
            link,
            properties: Mutex::default(),
            features: Mutex::default(),
            keep_alive: KeepAlive::new(kato_ms),
            events: Events::default(),
            errors: ErrorLog::default(),
            queues: Mutex::default(),
            changed_namespaces: Mutex::default(),
            enabled: AtomicBool::new(false),
        }
    }

    /// The subsystem, unless this is a discovery controller.
    pub fn subsystem(&self) -> Option<&Arc<Subsystem>> {
        match &self.role {
            Role::Io(subsystem) => Some(subsystem),
            Role::Discovery(_) => None,
        }
    }

    /// Whether commands other than Fabrics ones are served.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// Follows CSTS.RDY. Disabling ends the I/O queues and the wishes of the host (CONFORMANCE F-25).
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Release);
        if enabled {
            return;
        }
        self.events.reset();
        let mut queues = self.queues.lock();
        queues.granted = None;
        for (_, closer) in queues.closers.range(1..) {
            closer.close(CloseReason::Requested("the controller was reset"));
        }
    }

    /// Takes in the connection of queue `qid`.
    pub fn join(&self, qid: u16, closer: QueueCloser) -> Result<(), NoQueue> {
        let mut queues = self.queues.lock();
        if queues.closed.is_some() || (qid != 0 && !self.enabled()) {
            return Err(NoQueue::NotReady);
        }
        if qid > queues.granted.unwrap_or(0) {
            return Err(NoQueue::OutOfRange);
        }
        if queues.closers.contains_key(&qid) {
            return Err(NoQueue::Duplicate);
        }
        queues.closers.insert(qid, closer);
        Ok(())
    }

    /// The connection of queue `qid` is gone.
    pub fn leave(&self, qid: u16) {
        self.queues.lock().closers.remove(&qid);
    }

    /// I/O queues that are connected now.
    pub fn io_queues(&self) -> usize {
        self.queues.lock().closers.range(1..).count()
    }

    /// I/O queues that the host was granted, if it asked.
    pub fn granted(&self) -> Option<u16> {
        self.queues.lock().granted
    }

    /// Set Features 07h: false when I/O queues exist already (CONFORMANCE 4.6).
    pub fn grant(&self, count: u16) -> bool {
        let mut queues = self.queues.lock();
        if queues.closers.range(1..).next().is_some() {
            return false;
        }
        queues.granted = Some(count);
        true
    }

    /// This controller for people and metrics.
    pub fn status(&self) -> ControllerStatus {
        let nqn = self.subsystem().map_or(DISCOVERY, |subsystem| subsystem.identity.nqn.as_str());
        ControllerStatus {
            subsystem: nqn.to_owned(),
            id: self.id.get(),
            host: self.host.nqn.as_str().to_owned(),
            transport: self.link.transport.name(),
            io_queues: self.io_queues(),
            keep_alive_ms: self.keep_alive.kato_ms(),
            errors: self.errors.count(),
        }
    }

    /// Ends the association: no more I/O from here on, then every connection is closed.
    pub fn close(&self, reason: &'static str) {
        self.enabled.store(false, Ordering::Release);
        let mut queues = self.queues.lock();
        queues.closed.get_or_insert(reason);
        for closer in queues.closers.values() {
            closer.close(CloseReason::Requested(reason));
        }
    }

    /// Notes namespaces that changed, for log 04h, and reports it.
    pub fn namespaces_changed(&self, nsids: &[u32]) {
        self.changed_namespaces.lock().extend(nsids.iter().filter(|nsid| **nsid <= NSID_MAX));
        self.events.raise(Event::NamespaceAttribute);
    }

    /// The NSIDs of log 04h, ascending, at most 1024; `clear` when the host reads it with RAE = 0 (CONFORMANCE 4.5).
    pub fn changed_namespaces(&self, clear: bool) -> Vec<u32> {
        let mut changed = self.changed_namespaces.lock();
        let list = changed.iter().copied().collect();
        if clear {
            changed.clear();
        }
        list
    }
}
