//! Bounds the connections that have not yet connected to a controller (CONFORMANCE T-8), so that thousands of
//! them harm nobody: when a peer has too many, its oldest one that never sent an ICReq, or never confirmed its RDMA
//! connection, makes room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::close::{CloseReason, QueueCloser};

struct HalfOpen {
    peer: IpAddr,
    closer: QueueCloser,
    greeted: bool,
}

#[derive(Default)]
struct Table {
    next: u64,
    connections: BTreeMap<u64, HalfOpen>,
    by_peer: HashMap<IpAddr, BTreeSet<u64>>,
}

/// The half-open connections of one listener.
#[derive(Clone)]
pub(super) struct HalfOpenTable {
    table: Arc<Mutex<Table>>,
    per_peer: usize,
    total: usize,
}

impl HalfOpenTable {
    pub(super) fn new(per_peer: usize, total: usize) -> HalfOpenTable {
        HalfOpenTable { table: Arc::default(), per_peer: per_peer.max(1), total: total.max(1) }
    }

    /// Counts a new connection; `None` when it must be refused because all others are further than it.
    pub(super) fn admit(&self, peer: SocketAddr, closer: QueueCloser) -> Option<Admission> {
        let peer = peer.ip();
        let mut table = self.lock();
        let of_peer = table.by_peer.get(&peer).map_or(0, BTreeSet::len);
        let victim = if of_peer >= self.per_peer {
            Some(table.oldest_silent_of(peer)?)
        } else if table.connections.len() >= self.total {
            Some(table.oldest_silent()?)
        } else {
            None
        };
        if let Some(victim) = victim.and_then(|id| table.remove(id)) {
            victim.closer.close(CloseReason::Evicted);
        }
        let id = table.next;
        table.next += 1;
        table.connections.insert(id, HalfOpen { peer, closer, greeted: false });
        table.by_peer.entry(peer).or_default().insert(id);
        drop(table);
        Some(Admission { id, table: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn oldest_silent_of(&self, peer: IpAddr) -> Option<u64> {
        self.by_peer.get(&peer)?.iter().copied().find(|id| self.is_silent(*id))
    }

    fn oldest_silent(&self) -> Option<u64> {
        self.connections.iter().find(|(_, connection)| !connection.greeted).map(|(id, _)| *id)
    }

    fn is_silent(&self, id: u64) -> bool {
        self.connections.get(&id).is_some_and(|connection| !connection.greeted)
    }

    fn remove(&mut self, id: u64) -> Option<HalfOpen> {
        let connection = self.connections.remove(&id)?;
        if let Some(of_peer) = self.by_peer.get_mut(&connection.peer) {
            of_peer.remove(&id);
            if of_peer.is_empty() {
                self.by_peer.remove(&connection.peer);
            }
        }
        Some(connection)
    }
}

/// The place of one half-open connection; dropped when it is connected or gone.
pub(super) struct Admission {
    id: u64,
    table: HalfOpenTable,
}

impl Admission {
    /// The connection sent its ICReq, or confirmed that it is established: it is not the first to make room any more.
    pub(super) fn greeted(&self) {
        if let Some(connection) = self.table.lock().connections.get_mut(&self.id) {
            connection.greeted = true;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.table.lock().remove(self.id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::close::Signals;
    use super::*;

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1000))
    }

    #[test]
    fn oldest_silent_connection_of_a_greedy_peer_makes_room() {
        let table = HalfOpenTable::new(2, 10);
        let signals: Vec<_> = (0..4).map(|_| Signals::new()).collect();
        let admit = |index: usize, last| {
            table.admit(peer(last), QueueCloser::new(Arc::clone(&signals[index])))
        };
        let greeted = admit(0, 1).unwrap();
        greeted.greeted();
        let _silent = admit(1, 1).unwrap();
        let third = admit(2, 1).unwrap();
        assert_eq!(signals[1].close_wanted(), Some(CloseReason::Evicted));
        assert_eq!(signals[0].close_wanted(), None);
        third.greeted();
        assert!(admit(3, 1).is_none(), "nobody is silent, so the newcomer is refused");
        assert!(admit(3, 2).is_some(), "another peer is not harmed");
        drop(greeted);
        assert!(admit(3, 1).is_some());
    }

    #[test]
    fn table_forgets_what_was_dropped() {
        let table = HalfOpenTable::new(2, 3);
        let all: Vec<_> = (0..3)
            .map(|last| table.admit(peer(last), QueueCloser::new(Signals::new())).unwrap())
            .collect();
        drop(all);
        let inner = table.lock();
        assert!(inner.connections.is_empty() && inner.by_peer.is_empty());
    }
}
