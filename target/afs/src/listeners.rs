//! The node's listeners and what became of each: the one board that `/status`, `/metrics`, the summary and the report to
//! the conductor read. The daemon makes it and keeps it true.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::config::Listener;
use crate::metrics::Source;
use crate::metrics::export::Exposition;
use crate::portal::{Portal, Transport};

/// What a listener does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "problem", rename_all = "snake_case")]
pub enum State {
    /// The node still starts; hosts are refused.
    Starting,
    /// Hosts are answered.
    Listening,
    /// It cannot listen at the moment, and tries again: for RDMA, no device has the address.
    Waiting(String),
    /// Its transport is not there. Hosts are not told of it.
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
    /// Where hosts connect.
    pub portal: Portal,
    /// What its listener does.
    #[serde(flatten)]
    pub state: State,
}

#[derive(Debug)]
struct Entry {
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

    /// What hosts are told to connect to. A listener that waits stays among them (CONFORMANCE D-11).
    pub fn advertised(&self) -> Vec<Portal> {
        let told = |entry: &&Entry| !matches!(*entry.state.lock(), State::Unavailable(_));
        self.0.iter().filter(told).flat_map(|entry| entry.advertise.iter().copied()).collect()
    }

    /// Every portal with its state.
    pub fn status(&self) -> Vec<PortalStatus> {
        let of = |entry: &Entry| {
            let state = entry.state.lock().clone();
            let portal = |portal: &Portal| PortalStatus { portal: *portal, state: state.clone() };
            entry.advertise.iter().map(portal).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }
}

impl Source for Listeners {
    fn collect(&self, scrape: &mut Exposition) {
        for entry in &self.0 {
            let listen = entry.listen.to_string();
            let up = *entry.state.lock() == State::Listening;
            scrape.gauge(
                "afs_listener_up",
                "1 while the listener answers hosts.",
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
        let listeners = vec![
            Listener { listen: tcp, advertise },
            Listener { listen: rdma, advertise: vec![rdma] },
        ];
        (Listeners::new(listeners), tcp, rdma)
    }

    #[test]
    fn hosts_are_told_of_a_listener_that_waits_but_not_of_a_transport_that_is_not_there() {
        let (board, tcp, rdma) = board();
        assert_eq!(board.advertised().len(), 2);
        board.set(tcp, State::Listening);
        board.set(rdma, State::Waiting("no device".to_owned()));
        assert_eq!(board.advertised().len(), 2);
        board.set_all(Transport::Rdma, &State::Unavailable("no library".to_owned()));
        assert_eq!(board.advertised(), [portal(Transport::Tcp, "192.0.2.1:4420")]);
        board.set(rdma, State::Listening);
        assert_eq!(board.advertised().len(), 2);
    }

    #[test]
    fn people_and_prometheus_see_which_listener_does_not_answer() {
        let (board, tcp, rdma) = board();
        board.set(tcp, State::Listening);
        board.set(rdma, State::Waiting("no device".to_owned()));
        let status = serde_json::to_value(board.status()).unwrap();
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
