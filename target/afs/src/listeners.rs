//! The node's listeners and what became of each: the one board that `/status`, `/metrics`, the summary and the report to
//! the conductor read. The daemon makes it and keeps it true.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::config::Listener;
use crate::metrics::Source;
use crate::metrics::export::Exposition;
use crate::portal::{Portal, Transport};
use crate::queue::Door;

/// What a listener does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "problem", rename_all = "snake_case")]
pub enum State {
    /// The node still starts; whoever comes is refused.
    Starting,
    /// Whoever comes is answered.
    Listening,
    /// It cannot listen at the moment, and tries again: for RDMA, no device has the address.
    Waiting(String),
    /// Its transport is not there. Nobody is told of it.
    Unavailable(String),
}

impl State {
    /// What is wrong, where something is.
    pub fn problem(&self) -> Option<&str> {
        match self {
            State::Starting | State::Listening => None,
            State::Waiting(problem) | State::Unavailable(problem) => Some(problem),
        }
    }
}

/// One portal for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortalStatus {
    /// Where to connect.
    pub portal: Portal,
    /// What its listener does.
    #[serde(flatten)]
    pub state: State,
}

#[derive(Debug)]
struct Entry {
    door: Door,
    listen: Portal,
    advertise: Vec<Portal>,
    state: Mutex<State>,
}

/// See the module.
#[derive(Debug)]
pub struct Listeners(Vec<Entry>);

impl Listeners {
    /// All of them starting.
    pub fn new(listeners: Vec<Listener>) -> Arc<Listeners> {
        let entry = |listener: Listener| Entry {
            door: listener.door,
            listen: listener.listen,
            advertise: listener.advertise,
            state: Mutex::new(State::Starting),
        };
        Arc::new(Listeners(listeners.into_iter().map(entry).collect()))
    }

    /// Notes what became of the listener on `listen`; returns what was noted before.
    pub fn set(&self, listen: Portal, state: State) -> Option<State> {
        let entry = self.0.iter().find(|entry| entry.listen == listen)?;
        Some(std::mem::replace(&mut *entry.state.lock(), state))
    }

    /// Notes it for every listener of a transport.
    pub fn set_all(&self, transport: Transport, state: &State) {
        for entry in self.0.iter().filter(|entry| entry.listen.transport == transport) {
            entry.state.lock().clone_from(state);
        }
    }

    /// What hosts, or other nodes, are told to connect to. A listener that waits stays among them (CONFORMANCE D-11).
    pub fn advertised(&self, door: Door) -> Vec<Portal> {
        let told = |entry: &&Entry| !matches!(*entry.state.lock(), State::Unavailable(_));
        let told = self.at(door).filter(told);
        told.flat_map(|entry| entry.advertise.iter().copied()).collect()
    }

    fn at(&self, door: Door) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |entry| entry.door == door)
    }

    /// Every portal for hosts, or for other nodes, with its state.
    pub fn status(&self, door: Door) -> Vec<PortalStatus> {
        let of = |entry: &Entry| {
            let state = entry.state.lock().clone();
            let portal = |portal: &Portal| PortalStatus { portal: *portal, state: state.clone() };
            entry.advertise.iter().map(portal).collect::<Vec<_>>()
        };
        self.at(door).flat_map(of).collect()
    }
}

impl Source for Listeners {
    fn collect(&self, scrape: &mut Exposition) {
        for entry in &self.0 {
            let listen = entry.listen.to_string();
            let up = *entry.state.lock() == State::Listening;
            scrape.gauge(
                "afs_listener_up",
                "1 while the listener answers.",
                &[("listener", &listen), ("transport", entry.listen.scheme())],
                u8::from(up).into(),
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn portal(transport: Transport, address: &str) -> Portal {
        Portal { transport, address: address.parse().unwrap() }
    }

    fn board() -> (Arc<Listeners>, Portal, Portal) {
        let tcp = portal(Transport::Tcp, "0.0.0.0:4420");
        let rdma = portal(Transport::Rdma, "192.0.2.1:4420");
        let advertise = vec![tcp.at("192.0.2.1:4420".parse().unwrap())];
        let peers = portal(Transport::Rdma, "10.0.0.1:4430");
        let listeners = vec![
            Listener { door: Door::Hosts, listen: tcp, advertise },
            Listener { door: Door::Hosts, listen: rdma, advertise: vec![rdma] },
            Listener { door: Door::Peers, listen: peers, advertise: vec![peers] },
        ];
        (Listeners::new(listeners), tcp, rdma)
    }

    #[test]
    fn hosts_are_told_of_a_listener_that_waits_but_not_of_a_transport_that_is_not_there() {
        let (board, tcp, rdma) = board();
        assert_eq!(board.advertised(Door::Hosts).len(), 2);
        board.set(tcp, State::Listening);
        board.set(rdma, State::Waiting("no device".to_owned()));
        assert_eq!(board.advertised(Door::Hosts).len(), 2);
        board.set_all(Transport::Rdma, &State::Unavailable("no library".to_owned()));
        assert_eq!(board.advertised(Door::Hosts), [portal(Transport::Tcp, "192.0.2.1:4420")]);
        board.set(rdma, State::Listening);
        assert_eq!(board.advertised(Door::Hosts).len(), 2);
    }

    #[test]
    fn hosts_are_not_told_where_other_nodes_connect_nor_these_where_hosts_do() {
        let (board, tcp, rdma) = board();
        let peers = portal(Transport::Rdma, "10.0.0.1:4430");
        assert_eq!(board.advertised(Door::Peers), [peers]);
        assert!(!board.advertised(Door::Hosts).contains(&peers));
        for hosts in [tcp, rdma] {
            board.set(hosts, State::Listening);
        }
        let status = serde_json::to_value(board.status(Door::Peers)).unwrap();
        let expected =
            serde_json::json!([{ "portal": "rdma://10.0.0.1:4430", "state": "starting" }]);
        assert_eq!(status, expected);
        board.set_all(Transport::Rdma, &State::Unavailable("no library".to_owned()));
        assert_eq!(board.advertised(Door::Peers), []);
    }

    #[test]
    fn people_and_prometheus_see_which_listener_does_not_answer() {
        let (board, tcp, rdma) = board();
        board.set(tcp, State::Listening);
        board.set(rdma, State::Waiting("no device".to_owned()));
        let status = serde_json::to_value(board.status(Door::Hosts)).unwrap();
        let expected = serde_json::json!([
            { "portal": "tcp://192.0.2.1:4420", "state": "listening" },
            { "portal": "rdma://192.0.2.1:4420", "state": "waiting", "problem": "no device" },
        ]);
        assert_eq!(status, expected);
        let mut scrape = Exposition::new();
        board.collect(&mut scrape);
        let text = scrape.finish();
        for line in [
            "afs_listener_up{listener=\"tcp://0.0.0.0:4420\",transport=\"tcp\"} 1",
            "afs_listener_up{listener=\"rdma://192.0.2.1:4420\",transport=\"rdma\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
