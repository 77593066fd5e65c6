//! The outer side of the daemon: listening on the portals, and letting hosts go in order.

use std::sync::Arc;
use std::time::Duration;

use afs_fabric::{Limits, listen_tcp};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::rdma::{Rdma, Serving};
use crate::listeners::State;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::portal::Portal;
use crate::ports::{PortError, Ports};
use crate::queue::{Door, QueueService};

/// So that all queues of many hosts can connect at once (CONFORMANCE T-10, R-5).
pub(super) const BACKLOG: u32 = 4096;
/// How long hosts get to take their other paths before connections are closed under commands.
const DRAIN: Duration = Duration::from_secs(5);
/// How long closed connections get to finish the writes that they have begun.
const CLOSE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The open portals.
#[derive(Default)]
pub(super) struct Hosts {
    accepting: JoinSet<()>,
    accepting_rdma: JoinSet<()>,
}

impl Hosts {
    /// Answers on all portals from now on. RDMA comes first: its ports could not be taken beforehand.
    pub(super) fn listen(
        &mut self,
        ports: Ports,
        rdma: Rdma,
        serving: &Serving,
    ) -> Result<(), PortError> {
        self.accepting_rdma = rdma.listen(ports.rdma, serving)?;
        for (reserved, door) in ports.tcp {
            let portal = reserved.portal();
            self.listen_tcp(portal, serving, door)
                .map_err(|error| PortError::listen(portal, door, error))?;
        }
        Ok(())
    }

    fn listen_tcp(&mut self, portal: Portal, serving: &Serving, door: Door) -> std::io::Result<()> {
        let listener = listen_tcp(portal.address, BACKLOG)?;
        let node = Arc::clone(&serving.node);
        let served =
            listener.serve(serving.reactors.clone(), Limits::default(), move |queue, local| {
                QueueService::new(Arc::clone(&node), local.clone(), queue, door)
            });
        let listeners = Arc::clone(&serving.listeners);
        listeners.set(portal, State::Listening);
        self.accepting.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%portal, %error, "nobody can connect here any more");
                listeners.set(portal, State::Unavailable(error.to_string()));
            }
        });
        Ok(())
    }

    /// Planned stop (CONFORMANCE M-40): paths become inaccessible and hosts are told, commands in flight end, connections
    /// close, new ones are refused.
    pub(super) async fn let_go(mut self, node: &Node, metrics: &Metrics) {
        node.withdraw();
        if !within(DRAIN, || metrics.in_flight() == 0).await {
            tracing::warn!(
                commands = metrics.in_flight(),
                "closing connections with commands in flight"
            );
        }
        self.accepting.abort_all();
        self.accepting_rdma.abort_all();
        node.close();
        if !within(CLOSE, || node.controllers().is_empty() && metrics.in_flight() == 0).await {
            tracing::warn!("some connections did not end in time");
        }
    }
}

/// Waits until `done`; false if it took longer than `limit`.
async fn within(limit: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}
