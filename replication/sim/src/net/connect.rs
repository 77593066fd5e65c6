//! Connections that take their time: the ways of a process to others, as a link that must be connected knows them.
//!
//! With [`NetConfig::connect_max`] at zero everybody is connected with everybody, always. Otherwise the first call from a process
//! to a machine finds no connection and begins to make one, and so does the first after a connection broke.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

use afs_env::Clock;

use super::{Address, SimNet};
use crate::executor::ProcessId;

/// Before a failed attempt is followed by another.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
enum Connection {
    Connecting,
    /// To this process.
    Open(ProcessId),
    /// Not before this moment again.
    Failed(u64),
}

/// All connections, by the process that made them and the machine that they lead to.
#[derive(Default)]
pub(super) struct Connections {
    known: BTreeMap<(ProcessId, Address), Connection>,
    /// Those that wait for the end of some attempt.
    waiting: Vec<Waker>,
}

impl SimNet {
    /// Whether it is known if a machine is reached from another.
    pub(super) fn is_settled(&self, from: Address, to: Address) -> bool {
        if self.connect_max().is_zero() {
            return true;
        }
        let known = self.process_at(from).and_then(|process| self.connection(process, to));
        match known {
            Some(Connection::Open(server)) => self.process_at(to) == Some(server),
            Some(Connection::Failed(until)) => self.sim.clock().now() < until,
            Some(Connection::Connecting) | None => false,
        }
    }

    /// Waits for the end of an attempt to connect.
    pub(super) async fn settle(&self, from: Address, to: Address) {
        poll_fn(|context| {
            // An attempt that ended may be over before this is polled again.
            self.connected(from, to);
            if self.is_settled(from, to) {
                return Poll::Ready(());
            }
            self.state.borrow_mut().connections.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether there is a connection; if not, one is being made.
    pub(super) fn connected(&self, from: Address, to: Address) -> bool {
        let most = self.connect_max();
        if most.is_zero() {
            return true;
        }
        let Some(process) = self.process_at(from) else { return false };
        match self.connection(process, to) {
            Some(Connection::Open(server)) if self.process_at(to) == Some(server) => return true,
            Some(Connection::Failed(until)) if self.sim.clock().now() < until => return false,
            Some(Connection::Connecting) => return false,
            Some(Connection::Open(_) | Connection::Failed(_)) | None => {}
        }
        self.note(process, to, Connection::Connecting);
        let most = usize::try_from(most.as_nanos()).unwrap_or(usize::MAX);
        let takes = Duration::from_nanos(self.random.below(most) as u64);
        let net = self.clone();
        self.sim.clock().after(takes, move || net.attempted(process, from, to));
        false
    }

    fn attempted(&self, process: ProcessId, from: Address, to: Address) {
        let whole = [(from, to), (to, from)].iter().all(|(a, b)| self.path(*a, *b).cut.is_none());
        let server = self.process_at(to).filter(|_| whole && !self.stands_still(to));
        let until = self.sim.clock().now() + u64::try_from(PAUSE.as_nanos()).unwrap_or(u64::MAX);
        self.note(process, to, server.map_or(Connection::Failed(until), Connection::Open));
        let waiting = std::mem::take(&mut self.state.borrow_mut().connections.waiting);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The connections between two machines are no more. An attempt to make one goes on.
    pub(super) fn disconnect(&self, one: Address, two: Address) {
        let ends = [self.process_at(one).map(|p| (p, two)), self.process_at(two).map(|p| (p, one))];
        let known = &mut self.state.borrow_mut().connections.known;
        known.retain(|way, connection| {
            !(matches!(connection, Connection::Open(_)) && ends.contains(&Some(*way)))
        });
    }

    fn stands_still(&self, address: Address) -> bool {
        self.state
            .borrow()
            .machines
            .get(&address)
            .is_some_and(|machine| machine.process.is_stopped())
    }

    fn connect_max(&self) -> Duration {
        self.state.borrow().config.connect_max
    }

    fn connection(&self, process: ProcessId, to: Address) -> Option<Connection> {
        self.state.borrow().connections.known.get(&(process, to)).copied()
    }

    fn note(&self, process: ProcessId, to: Address, connection: Connection) {
        self.state.borrow_mut().connections.known.insert((process, to), connection);
    }
}
