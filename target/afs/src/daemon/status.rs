//! What `/healthz` and `/status` say.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use conductor::api::DiskReport;
use serde::Serialize;
use tokio::sync::watch;

use crate::disks::DiskSet;
use crate::http::Shown;
use crate::listeners::{Listeners, PortalStatus};
use crate::node::{Node, NodeStatus};
use crate::queue::Door;

/// What the node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Opening and recovering disks.
    Opening,
    /// Waiting for the first state to be in effect.
    Waiting,
    /// Answering hosts.
    Serving,
    /// Letting hosts go.
    Stopping,
}

pub(super) struct StatusPages {
    node: Arc<Node>,
    conductor: String,
    listeners: Arc<Listeners>,
    phase: ArcSwap<Phase>,
    disks: OnceLock<Arc<DiskSet>>,
    applied: OnceLock<watch::Receiver<Option<u64>>>,
}

#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    phase: Phase,
    conductor: &'a str,
    revision: Option<u64>,
    portals: Vec<PortalStatus>,
    peer_portals: Vec<PortalStatus>,
    disks: Vec<DiskReport>,
    #[serde(flatten)]
    node: NodeStatus,
}

impl StatusPages {
    pub(super) fn new(
        node: Arc<Node>,
        conductor: String,
        listeners: Arc<Listeners>,
    ) -> Arc<StatusPages> {
        Arc::new(StatusPages {
            node,
            conductor,
            listeners,
            phase: ArcSwap::from_pointee(Phase::Opening),
            disks: OnceLock::new(),
            applied: OnceLock::new(),
        })
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(Arc::new(phase));
    }

    /// Once, when they are open.
    pub(super) fn set_disks(&self, disks: Arc<DiskSet>) {
        let _ = self.disks.set(disks);
    }

    /// Once, when there is an agent.
    pub(super) fn set_applied(&self, applied: watch::Receiver<Option<u64>>) {
        let _ = self.applied.set(applied);
    }
}

impl Shown for StatusPages {
    fn health(&self) -> Result<(), String> {
        match **self.phase.load() {
            Phase::Serving => Ok(()),
            Phase::Opening => Err("opening disks".to_owned()),
            Phase::Waiting => Err(format!("waiting for the conductor at {}", self.conductor)),
            Phase::Stopping => Err("stopping".to_owned()),
        }
    }

    fn status(&self) -> serde_json::Value {
        let disks = self.disks.get();
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            phase: **self.phase.load(),
            conductor: &self.conductor,
            revision: self.applied.get().and_then(|applied| *applied.borrow()),
            portals: self.listeners.status(Door::Hosts),
            peer_portals: self.listeners.status(Door::Peers),
            disks: disks
                .map(|disks| disks.iter().map(|disk| disk.report()).collect())
                .unwrap_or_default(),
            node: self.node.status(),
        };
        serde_json::to_value(status)
            .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }))
    }
}
