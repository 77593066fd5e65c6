//! What is wanted of the coordination and what it found, on channels that both sides watch.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::records::{ConductorRecord, NodeRecord};

/// What a conductor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not in the queue, or not known for want of a connection. Another one may be active.
    Lost,
    /// In the queue.
    Standby,
    /// The one that decides.
    Active,
}

/// The connection to ZooKeeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// There is no ZooKeeper to be connected to: [`Embedded`](crate::Embedded).
    NotUsed,
    /// Away; connecting is tried again and again.
    Away,
    /// There.
    Connected,
}

/// All conductors, the first in the queue first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conductors(pub Arc<Vec<ConductorRecord>>);

impl Conductors {
    /// The one that decides, if it said so.
    pub fn active(&self) -> Option<&ConductorRecord> {
        self.0.first().filter(|first| first.token.is_some())
    }
}

/// The nodes that are registered. A node whose record cannot be read is there without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Whether this is how things are, as opposed to how they were before the connection was lost.
    pub current: bool,
    /// By name.
    pub nodes: Arc<BTreeMap<String, Option<NodeRecord>>>,
}

/// A conductor that stands for election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) record: ConductorRecord,
    /// Rises when the candidate goes to the end of the queue.
    pub(crate) turn: u64,
}

#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) role: watch::Sender<Role>,
    pub(crate) link: watch::Sender<Link>,
    pub(crate) conductors: watch::Sender<Conductors>,
    pub(crate) nodes: watch::Sender<Nodes>,
    pub(crate) candidate: watch::Sender<Option<Candidate>>,
    pub(crate) registration: watch::Sender<Option<NodeRecord>>,
}

impl Board {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            role: watch::Sender::new(Role::Lost),
            link: watch::Sender::new(link),
            conductors: watch::Sender::new(Conductors::default()),
            nodes: watch::Sender::new(Nodes::default()),
            candidate: watch::Sender::new(None),
            registration: watch::Sender::new(None),
        }
    }

    pub(crate) fn stand(&self, record: ConductorRecord) {
        self.candidate.send_modify(|candidate| {
            let turn = candidate.as_ref().map_or(0, |candidate| candidate.turn);
            *candidate = Some(Candidate { record, turn });
        });
    }

    pub(crate) fn announce(&self, token: Option<i64>) {
        self.candidate.send_if_modified(|candidate| match candidate {
            Some(candidate) if candidate.record.token != token => {
                candidate.record.token = token;
                true
            }
            _ => false,
        });
    }

    pub(crate) fn queue_again(&self) {
        self.candidate.send_modify(|candidate| {
            if let Some(candidate) = candidate {
                candidate.turn += 1;
                candidate.record.token = None;
            }
        });
    }

    pub(crate) fn register(&self, record: NodeRecord) {
        self.registration.send_if_modified(|registration| {
            let changed = registration.as_ref() != Some(&record);
            *registration = Some(record);
            changed
        });
    }

    pub(crate) fn set_role(&self, role: Role) {
        set(&self.role, role);
    }

    /// Whether it changed.
    pub(crate) fn set_link(&self, link: Link) -> bool {
        set(&self.link, link)
    }
}

/// Wakes nobody for what is so already. Whether it changed.
pub(crate) fn set<T: PartialEq>(channel: &watch::Sender<T>, value: T) -> bool {
    channel.send_if_modified(|old| {
        let changed = *old != value;
        *old = value;
        changed
    })
}
