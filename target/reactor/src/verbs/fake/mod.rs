//! RDMA for tests where there is none: a provider of our own in the place of the libraries, over a
//! device that exists only in a table, and hosts that do just what a test says.

mod provider;

use std::net::SocketAddr;
use std::ptr::{null_mut, with_exposed_provenance_mut};

use afs_verbs_sys as sys;

use super::{Verbs, address};
#[cfg(test)]
pub(in crate::verbs) use provider::Call;
pub(in crate::verbs) use provider::World;

/// One device, and the network that it is on.
#[derive(Clone, Copy)]
pub struct FakeNetwork {
    world: &'static World,
}

/// A connection that a host asked for.
#[derive(Debug, Clone, Copy)]
pub struct FakeConnection(usize);

/// What the connection manager finds out about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The host has confirmed it.
    Established,
    /// The host does not answer.
    Unreachable,
    /// It failed.
    ConnectError,
    /// The host does not want it any more.
    Rejected,
    /// The host has ended it.
    Disconnected,
    /// Nothing is left of it.
    TimewaitExit,
}

impl FakeNetwork {
    /// A new one, whose libraries are used on this thread alone as far as channels are opened.
    pub fn new() -> (FakeNetwork, Verbs) {
        let (world, verbs) = World::new(4096);
        (FakeNetwork { world }, verbs)
    }

    /// A host asks the only listener for a connection; `None` when there is none.
    pub fn ask(&self, host: SocketAddr, private_data: &[u8]) -> Option<FakeConnection> {
        let listener = self.listener()?;
        let id = self.world.fresh_id();
        // SAFETY: fresh, so nobody else uses it; the unions are as large as a storage. The memory of ids is never freed.
        unsafe {
            let addresses = &raw mut (*id).route.addr;
            let bound = &raw const (*listener).route.addr.__bindgen_anon_1;
            (&raw mut (*addresses).__bindgen_anon_1).copy_from_nonoverlapping(bound, 1);
            let peer = &raw mut (*addresses).__bindgen_anon_2;
            peer.cast::<libc::sockaddr_storage>().write(address::to_c(host));
        }
        let kind = sys::RDMA_CM_EVENT_CONNECT_REQUEST;
        self.world.cm_event_with(kind, (id, listener), private_data, 16);
        Some(FakeConnection(id.expose_provenance()))
    }

    /// Tells the owner of a connection, if it still has one.
    pub fn tell(&self, connection: FakeConnection, finding: Finding) {
        let kind = match finding {
            Finding::Established => sys::RDMA_CM_EVENT_ESTABLISHED,
            Finding::Unreachable => sys::RDMA_CM_EVENT_UNREACHABLE,
            Finding::ConnectError => sys::RDMA_CM_EVENT_CONNECT_ERROR,
            Finding::Rejected => sys::RDMA_CM_EVENT_REJECTED,
            Finding::Disconnected => sys::RDMA_CM_EVENT_DISCONNECTED,
            Finding::TimewaitExit => sys::RDMA_CM_EVENT_TIMEWAIT_EXIT,
        };
        self.world.cm_event(kind, with_exposed_provenance_mut(connection.0), null_mut());
    }

    /// Tells the listener that its address has moved to another adapter of a bond.
    pub fn tell_address_change(&self) {
        if let Some(listener) = self.listener() {
            self.world.cm_event(sys::RDMA_CM_EVENT_ADDR_CHANGE, listener, null_mut());
        }
    }

    /// Was the connection accepted?
    pub fn was_accepted(&self, connection: FakeConnection) -> bool {
        self.world.state.lock().accepted_ever.contains(&connection.0)
    }

    /// Was the connection accepted, and is it not destroyed yet?
    pub fn is_accepted(&self, connection: FakeConnection) -> bool {
        self.world.state.lock().accepted.contains_key(&connection.0)
    }

    /// The host sends a message by a connection that was accepted.
    pub fn send(&self, connection: FakeConnection, message: &[u8]) {
        let pair = self.world.state.lock().accepted.get(&connection.0).copied();
        if let Some(pair) = pair {
            self.world.deliver(pair, message);
        }
    }

    /// The device does the oldest of what it was asked to do, and all went well; false when there is nothing.
    pub fn work(&self) -> bool {
        let has_work = !self.world.state.lock().requests.is_empty();
        if has_work {
            self.world.complete(sys::IBV_WC_SUCCESS);
        }
        has_work
    }

    /// Whether the device has the address that somebody would listen on.
    pub fn has_address(&self, has: bool) {
        let error = if has { None } else { Some(libc::EADDRNOTAVAIL) };
        self.world.state.lock().bind_error = error;
    }

    /// How many listeners there are.
    pub fn listeners(&self) -> usize {
        self.world.state.lock().listeners.len()
    }

    /// How often somebody began to listen.
    pub fn listened(&self) -> usize {
        self.world.state.lock().listened
    }

    /// How many objects of the libraries exist: ids, channels, queue pairs and whatever those need.
    pub fn objects(&self) -> i64 {
        self.world.state.lock().alive
    }

    fn listener(&self) -> Option<*mut sys::rdma_cm_id> {
        let oldest = self.world.state.lock().listeners.first().copied();
        oldest.map(with_exposed_provenance_mut)
    }
}
