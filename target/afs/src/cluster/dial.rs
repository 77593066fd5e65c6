//! Making a connection to another node, and leaving it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use afs_fabric::host::{ControllerOptions, Endpoint, HostController, HostError, HostQueue};
use afs_nvme::{HostId, Nqn};
use afs_reactor::Local;

use super::Cluster;
use super::wire::{self, Service};
use crate::portal::{Portal, Transport};

/// Longest wait for a connection over TCP.
const CONNECT: Duration = Duration::from_millis(800);
/// The same over RDMA, for each of its steps: the other node may have to register its buffers first.
const CONNECT_RDMA: Duration = Duration::from_secs(2);
/// All steps over RDMA together, and what this node takes to register its own buffers does not count against them.
const STEPS_RDMA: u32 = 3;
/// A connection that is not used for calls is found dead after one and a half of it.
const KEEP_ALIVE_MS: u32 = 3000;
/// Calls outstanding on one connection.
const ENTRIES: u16 = 512;
/// How often it is looked whether the calls on a connection that was replaced have ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A connection that works.
pub(super) struct Open {
    pub(super) queue: HostQueue,
    pub(super) services: RefCell<HashMap<Service, u32>>,
    /// By which address.
    pub(super) way: Portal,
    controller: HostController,
}

/// Connects by one of the node's addresses.
pub(super) async fn dial(cluster: &Cluster, local: &Local, way: Portal) -> Result<Open, HostError> {
    let (endpoint, receives) = endpoint(cluster, way)?;
    let mut options = options(cluster)?;
    let (step, most) = match way.transport {
        Transport::Tcp => (CONNECT, CONNECT),
        Transport::Rdma => (CONNECT_RDMA, CONNECT_RDMA * STEPS_RDMA),
    };
    options.queue.connect_timeout = step;
    options.queue.receives = receives.unwrap_or(options.queue.receives);
    let connected = async {
        let controller = HostController::connect(endpoint, local, options).await?;
        let queue = controller.io_queues(1).await?.pop();
        let queue = queue.ok_or(HostError::Unusable("a peer grants no queue"))?;
        Ok(Open { queue, controller, way, services: RefCell::default() })
    };
    let late = |_| HostError::Timeout("connecting to a peer");
    tokio::time::timeout(most, connected).await.map_err(late)?
}

fn endpoint(cluster: &Cluster, way: Portal) -> Result<(Endpoint, Option<u32>), HostError> {
    match way.transport {
        Transport::Tcp => Ok((Endpoint::Tcp(way.address), None)),
        Transport::Rdma => {
            let rdma = cluster.rdma().ok_or(HostError::Unusable("there is no RDMA for peers"))?;
            let verbs = rdma.verbs.clone();
            Ok((Endpoint::Rdma { verbs, address: way.address }, Some(rdma.receives)))
        }
    }
}

fn options(cluster: &Cluster) -> Result<ControllerOptions, HostError> {
    let unusable = |_| HostError::Unusable("a name for the peers' subsystem");
    let id = cluster.cluster().ok_or(HostError::Unusable("the cluster is not known yet"))?;
    let own = format!("{}:{}", wire::PEERS_NQN, cluster.id());
    let mut options = ControllerOptions::new(
        Nqn::new(wire::PEERS_NQN).map_err(unusable)?,
        Nqn::new(&own).map_err(unusable)?,
        HostId(id.into_bytes()),
    );
    options.kato_ms = KEEP_ALIVE_MS;
    options.queue.entries = ENTRIES;
    Ok(options)
}

/// Ends a connection that was replaced, once no call is under way on it any more: in order, so that the other node does not
/// take its end for ours.
pub(super) async fn retire(mut open: Rc<Open>) {
    loop {
        match Rc::try_unwrap(open) {
            Ok(Open { controller, queue, .. }) => {
                if let Err(error) = controller.shutdown().await {
                    tracing::debug!(%error, "a connection that was replaced broke");
                }
                drop(queue);
                return;
            }
            Err(used) => open = used,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
