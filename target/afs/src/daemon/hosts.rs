//! The hosts' side of the daemon: listening on the portals, and letting hosts go in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use afs_fabric::{Limits, listen_tcp};
use afs_reactor::Reactors;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::metrics::Metrics;
use crate::node::Node;
use crate::queue::QueueService;

/// So that all queues of many hosts can connect at once (CONFORMANCE T-10).
const BACKLOG: u32 = 4096;
/// How long hosts get to take their other paths before connections are closed under commands.
const DRAIN: Duration = Duration::from_secs(5);
/// How long closed connections get to finish the writes that they have begun.
const CLOSE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The open portals.
#[derive(Default)]
pub(super) struct Hosts {
    accepting: Vec<JoinHandle<()>>,
}

impl Hosts {
    /// Answers on `address` from now on.
    pub(super) fn listen(
        &mut self,
        node: &Arc<Node>,
        reactors: &Reactors,
        address: SocketAddr,
    ) -> std::io::Result<()> {
        let listener = listen_tcp(address, BACKLOG)?;
        let handles = (0..reactors.len()).map(|index| reactors.handle(index)).collect();
        let node = Arc::clone(node);
        let serving = listener.serve(handles, Limits::default(), move |queue, local| {
            QueueService::new(Arc::clone(&node), local.clone(), queue)
        });
        self.accepting.push(tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%address, %error, "no host can connect here any more");
            }
        }));
        Ok(())
    }

    /// Planned stop (CONFORMANCE M-40): paths become inaccessible and hosts are told, commands in flight end, connections
    /// close, new ones are refused.
    pub(super) async fn let_go(self, node: &Node, metrics: &Metrics) {
        node.withdraw();
        if !within(DRAIN, || metrics.in_flight() == 0).await {
            tracing::warn!(
                commands = metrics.in_flight(),
                "closing connections with commands in flight"
            );
        }
        for accepting in &self.accepting {
            accepting.abort();
        }
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
