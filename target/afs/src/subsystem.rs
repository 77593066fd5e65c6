//! One NVM subsystem on this node: who may use it, what it exports, which controllers hosts have made.
//!
//! The agent hands over the wanted state; the subsystem publishes it (namespaces first, then the version, CONFORMANCE
//! M-26), tells its controllers by events, and closes the controllers of hosts that lost their access.

use crate::controller::Controller;
use crate::events::Event;
use crate::limits::{CONTROLLERS_PER_HOST_MAX, CONTROLLERS_PER_SUBSYSTEM_MAX};
use crate::namespace::{Namespace, NamespaceMap};
use afs_nvme::log::AnaState;
use afs_nvme::nqn::Nqn;
use afs_nvme::{ControllerId, HostId, Nsid};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who a controller belongs to: HOSTNQN and HOSTID together (CONFORMANCE F-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// HOSTNQN of Connect.
    pub nqn: Nqn,
    /// HOSTID of Connect.
    pub id: HostId,
}

/// Which hosts may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Every host may.
    pub any: bool,
    /// These may.
    pub hosts: BTreeSet<String>,
}

impl Access {
    /// Whether the host named `nqn` may use the subsystem; names are compared as they are (CONFORMANCE F-8).
    pub fn allows(&self, nqn: &Nqn) -> bool {
        self.any || self.hosts.contains(nqn.as_str())
    }
}

/// Why a host gets no controller now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoController {
    /// Too many controllers, of this host or in all; a later try may succeed (CONFORMANCE F-11).
    Busy,
    /// The host is not on the list (CONFORMANCE 3.1, 0x184).
    Forbidden,
}

struct Controllers {
    live: BTreeMap<u16, Arc<Controller>>,
    first: u16,
    last: u16,
    /// Where the search for a free id goes on: ids rotate, so that one is not used again soon (CONFORMANCE F-5).
    next: u16,
    /// Set by `close`: a Connect that found the subsystem just before it was removed must not stay on it.
    closed: bool,
}

/// What of a subsystem never changes while it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SUBNQN.
    pub nqn: Nqn,
    /// SN, the same on all nodes.
    pub serial: String,
    /// MN, the same on all nodes.
    pub model: String,
}

/// A subsystem that this node serves.
pub struct Subsystem {
    /// Name, serial, model.
    pub identity: Identity,
    access: ArcSwap<Access>,
    namespaces: ArcSwap<NamespaceMap>,
    version: AtomicU64,
    controllers: Mutex<Controllers>,
    /// Serialises publishing; never held while anything waits.
    publishing: Mutex<()>,
    /// Where ANA change counters start: the wall clock at the start of the node (CONFORMANCE M-22).
    change_base: u64,
}

impl Subsystem {
    /// A subsystem with no namespaces yet. `ids` are the controller ids of this node (CONFORMANCE F-5), `start` moves the
    /// first one within them, so that a restarted node does not hand out what hosts still remember.
    pub fn new(identity: Identity, ids: (u16, u16), start: u16, change_base: u64) -> Subsystem {
        let (first, last) = (ids.0.max(1), ids.1.min(0xFFEF).max(ids.0.max(1)));
        let span = u32::from(last - first) + 1;
        #[allow(clippy::cast_possible_truncation, reason = "smaller than the span of 16-bit ids")]
        let next = first + (u32::from(start) % span) as u16;
        Subsystem {
            identity,
            access: ArcSwap::default(),
            namespaces: ArcSwap::default(),
            version: AtomicU64::new(1),
            controllers: Mutex::new(Controllers {
                live: BTreeMap::new(),
                first,
                last,
                next,
                closed: false,
            }),
            publishing: Mutex::new(()),
            change_base,
        }
    }

    /// Raised after each change of the namespaces.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What is exported now.
    pub fn namespaces(&self) -> Arc<NamespaceMap> {
        self.namespaces.load_full()
    }

    /// Who may connect now.
    pub fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }

    /// Replaces the access list and closes the controllers of hosts that are no longer on it.
    pub fn set_access(&self, access: Access) {
        if **self.access.load() == access {
            return;
        }
        let access = Arc::new(access);
        self.access.store(Arc::clone(&access));
        for controller in self.controllers() {
            if !access.allows(&controller.host.nqn) {
                controller.close("the host is no longer allowed");
            }
        }
    }

    /// Publishes `namespaces` and tells the hosts what changed.
    pub fn publish(&self, namespaces: impl IntoIterator<Item = Namespace>) {
        let _one = self.publishing.lock();
        let before = self.namespaces();
        let (map, change) = NamespaceMap::following(&before, self.change_base, namespaces);
        self.namespaces.store(Arc::new(map));
        self.version.fetch_add(1, Ordering::Release);
        for controller in self.controllers() {
            if !change.attributes.is_empty() {
                controller.namespaces_changed(&change.attributes);
            }
            if change.ana {
                controller.events.raise(Event::AnaChange);
            }
        }
    }

    /// Reports every namespace as inaccessible through this node: the first step of a planned stop (CONFORMANCE M-40).
    pub fn withdraw(&self) {
        let before = self.namespaces();
        self.publish(
            before.iter().map(|namespace| Namespace {
                ana: AnaState::Inaccessible,
                ..(**namespace).clone()
            }),
        );
    }

    /// The disk of namespace `nsid` stopped: this path cannot serve it any more (CONFORMANCE I-2).
    pub fn lost(&self, nsid: Nsid) {
        let before = self.namespaces();
        self.publish(before.iter().map(|namespace| {
            let ana = if namespace.nsid == nsid { AnaState::Inaccessible } else { namespace.ana };
            Namespace { ana, ..(**namespace).clone() }
        }));
    }

    /// The controllers that hosts have now, by ascending id.
    pub fn controllers(&self) -> Vec<Arc<Controller>> {
        self.controllers.lock().live.values().cloned().collect()
    }

    /// The controller `id`, if it lives.
    pub fn controller(&self, id: u16) -> Option<Arc<Controller>> {
        self.controllers.lock().live.get(&id).cloned()
    }

    /// Makes a controller for `host` under a fresh id.
    pub fn attach(
        &self,
        host: &Host,
        make: impl FnOnce(ControllerId) -> Arc<Controller>,
    ) -> Result<Arc<Controller>, NoController> {
        let mut controllers = self.controllers.lock();
        // Read under the lock, so that a host which loses its access in this moment is seen by `set_access`.
        if !self.access.load().allows(&host.nqn) {
            return Err(NoController::Forbidden);
        }
        let of_host = controllers.live.values().filter(|other| other.host == *host).count();
        if controllers.closed
            || of_host >= CONTROLLERS_PER_HOST_MAX
            || controllers.live.len() >= CONTROLLERS_PER_SUBSYSTEM_MAX
        {
            return Err(NoController::Busy);
        }
        let id = controllers.free_id().ok_or(NoController::Busy)?;
        let controller = make(ControllerId(id));
        controllers.live.insert(id, Arc::clone(&controller));
        Ok(controller)
    }

    /// Forgets the controller `id`, whose association has ended.
    pub fn detach(&self, id: ControllerId) {
        self.controllers.lock().live.remove(&id.get());
    }

    /// Closes every controller and makes no more: the subsystem is gone.
    pub fn close(&self, reason: &'static str) {
        self.controllers.lock().closed = true;
        for controller in self.controllers() {
            controller.close(reason);
        }
    }
}

impl Controllers {
    fn free_id(&mut self) -> Option<u16> {
        let span = u32::from(self.last - self.first) + 1;
        for _ in 0..span {
            let id = self.next;
            self.next = if id == self.last { self.first } else { id + 1 };
            if !self.live.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }
}
