//! RDMA listeners: whether RDMA is there at all, said once, and serving on addresses that come and go, as their devices do.
//!
//! A node that has a TCP listener for hosts too starts without RDMA and looks out for devices; one that has none refuses to start.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use afs_fabric::{Limits, RdmaLimits, RdmaListener};
use afs_reactor::ReactorHandle;
use afs_reactor::verbs::{Unavailable, Verbs};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::DaemonError;
use super::hosts::BACKLOG;
use super::locked_memory::LockedMemory;
use crate::cluster::{Cluster, PeerRdma};
use crate::config::NodeConfig;
use crate::limits::{MQES, QUEUES_MAX};
use crate::listeners::{Listeners, State};
use crate::node::Node;
use crate::portal::{Portal, Transport};
use crate::ports::PortError;
use crate::queue::{Door, QueueService};

/// Pause between looks for the first device.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Receives take at most this part of a reactor's buffers for each device, so that data has room beside them.
const RECEIVES_DIVISOR: u64 = 8;
/// What is wrong with a listener while no device has its address.
const NO_DEVICE: &str = "no RDMA device has this address now (`rdma link` and `ip address` show what is there); it is listened on as soon as one does";

/// What the node found of RDMA when it started.
#[derive(Default)]
pub(super) enum Rdma {
    /// Nobody wants it, or it cannot come while this process lives.
    #[default]
    Off,
    /// Devices are there.
    Ready(Devices),
    /// None are there, but may come.
    Absent(Wanted),
}

/// What RDMA is for, as far as that is known before it is there.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    memory: LockedMemory,
    limits: RdmaLimits,
    /// Other nodes are reached by it as well: this one has an address for them. One rule for both directions, so that a person
    /// sees in the settings what goes where, and what memory that takes.
    peers: bool,
}

impl Wanted {
    fn of(config: &NodeConfig) -> Wanted {
        Wanted {
            memory: LockedMemory::of(config),
            limits: limits(config.buffer_bytes as u64),
            peers: config.listens_by(Transport::Rdma, Door::Peers),
        }
    }
}

impl Rdma {
    /// Looks for RDMA if a listener wants it, says what was found, and sees to the memory that may be locked.
    pub(super) async fn find(
        config: &NodeConfig,
        listeners: &Listeners,
    ) -> Result<Rdma, DaemonError> {
        let doors = [Door::Hosts, Door::Peers];
        if !doors.iter().any(|door| config.listens_by(Transport::Rdma, *door)) {
            return Ok(Rdma::Off);
        }
        let wanted = Wanted::of(config);
        match load().await {
            Ok(verbs) => {
                wanted.memory.allow(found(&verbs))?;
                Ok(Rdma::Ready(Devices { verbs, wanted }))
            }
            Err(why) if config.listens_by(Transport::Tcp, Door::Hosts) => {
                Ok(without(&why, listeners, wanted))
            }
            Err(why) => Err(DaemonError::NoRdma(why)),
        }
    }

    /// Has other nodes reached by the devices that are there, if that is wanted.
    pub(super) fn lead_to_peers(&self, cluster: &Cluster) {
        if let Rdma::Ready(devices) = self {
            devices.lead_to_peers(cluster);
        }
    }

    /// Answers on `portals` from now on, or from when it can. The tasks that are returned do it.
    pub(super) fn listen(
        self,
        portals: Vec<(Portal, Door)>,
        serving: &Serving,
    ) -> Result<JoinSet<()>, PortError> {
        let mut tasks = JoinSet::new();
        match self {
            Rdma::Off => {}
            Rdma::Ready(devices) => {
                for at in portals {
                    let listener = open(&devices.verbs, at)?;
                    // Before the task has its turn: the summary is printed at once.
                    serving.note(at.0, *listener.listening().borrow());
                    tasks.spawn(serving.clone().serve(listener, at, devices.clone()));
                }
            }
            Rdma::Absent(wanted) => {
                tasks.spawn(serving.clone().serve_once_there(portals, wanted));
            }
        }
        Ok(tasks)
    }
}

/// The devices, of which more may come, and what they are for.
#[derive(Clone)]
pub(super) struct Devices {
    verbs: Verbs,
    wanted: Wanted,
}

impl Devices {
    fn lead_to_peers(&self, cluster: &Cluster) {
        if self.wanted.peers {
            let receives = self.wanted.limits.receives;
            cluster.reach_by_rdma(PeerRdma { verbs: self.verbs.clone(), receives });
        }
    }

    /// The node starts only if enough memory may be locked for the devices of that moment. When a listener finds its
    /// device later there may be more of them: hosts of the others are served on, so this only says what is wrong.
    async fn count_again(&self) {
        let Devices { verbs, wanted } = self.clone();
        // Reads many files.
        let counted = tokio::task::spawn_blocking(move || verbs.devices()).await;
        let Ok(Ok(devices)) = counted else { return };
        if let Err(error) = wanted.memory.allow(devices.len()) {
            tracing::error!(%error, devices = devices.join(", "), "hosts may be refused on the RDMA device that has come");
        }
    }
}

/// Loading libraries and counting devices reads many files.
async fn load() -> Result<Verbs, Unavailable> {
    let loaded = tokio::task::spawn_blocking(Verbs::load).await;
    loaded.unwrap_or_else(|error| Err(Unavailable::Refused(io::Error::other(error))))
}

/// Says which devices there are, and returns how many.
fn found(verbs: &Verbs) -> usize {
    let devices = verbs.devices().unwrap_or_default();
    tracing::info!(devices = devices.join(", "), "RDMA is there");
    devices.len()
}

fn without(why: &Unavailable, listeners: &Listeners, wanted: Wanted) -> Rdma {
    tracing::warn!(%why, "the node works over TCP alone: there is no RDMA for its rdma:// addresses");
    listeners.set_all(Transport::Rdma, &State::Unavailable(why.to_string()));
    match why {
        Unavailable::NoLibrary { .. } => Rdma::Off,
        Unavailable::NoDevices | Unavailable::Refused(_) => Rdma::Absent(wanted),
    }
}

/// What a host may ask for is what CAP and Number of Queues offer; `pool_bytes` are the buffers of one reactor.
fn limits(pool_bytes: u64) -> RdmaLimits {
    let usual = RdmaLimits::default();
    let receives = pool_bytes / RECEIVES_DIVISOR / u64::from(usual.in_capsule_bytes);
    let receives = u32::try_from(receives).unwrap_or(u32::MAX).min(usual.receives);
    RdmaLimits { receives, qid_max: QUEUES_MAX, sqsize_max: MQES, ..usual }
}

fn open(verbs: &Verbs, (portal, door): (Portal, Door)) -> Result<RdmaListener, PortError> {
    let opened = RdmaListener::open(verbs, portal.address, BACKLOG);
    opened.map_err(|error| PortError::listen(portal, door, error))
}

/// What it takes to answer hosts and other nodes.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) node: Arc<Node>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) reactors: Vec<ReactorHandle>,
    pub(super) listeners: Arc<Listeners>,
}

impl Serving {
    /// Waits for the first device, then serves on every portal.
    async fn serve_once_there(self, portals: Vec<(Portal, Door)>, wanted: Wanted) {
        let verbs = loop {
            sleep(LOOK_EVERY).await;
            if let Ok(verbs) = load().await {
                break verbs;
            }
        };
        if let Err(error) = wanted.memory.allow(found(&verbs)) {
            tracing::error!(%error, "the rdma:// listeners stay closed");
            self.listeners.set_all(Transport::Rdma, &State::Unavailable(error.to_string()));
            return;
        }
        let devices = Devices { verbs, wanted };
        devices.lead_to_peers(&self.cluster);
        let mut tasks = JoinSet::new();
        for at in portals {
            match open(&devices.verbs, at) {
                Ok(listener) => {
                    tasks.spawn(self.clone().serve(listener, at, devices.clone()));
                }
                Err(error) => self.failed(at.0, &error),
            }
        }
        tasks.join_all().await;
    }

    /// Serves until the task is dropped. The listener itself outlives its device; its comings and goings are noted.
    async fn serve(self, listener: RdmaListener, (portal, door): (Portal, Door), devices: Devices) {
        let limits = Limits { rdma: devices.wanted.limits, ..Limits::default() };
        let mut listening = listener.listening();
        let noted = async {
            loop {
                let now = *listening.borrow_and_update();
                self.note(portal, now);
                if now {
                    devices.count_again().await;
                }
                if listening.changed().await.is_err() {
                    pending::<()>().await;
                }
            }
        };
        let node = Arc::clone(&self.node);
        let make = move |queue: &_, local: &afs_reactor::Local| {
            QueueService::new(Arc::clone(&node), local.clone(), queue, door)
        };
        let ended = tokio::select! {
            ended = listener.serve(self.reactors.clone(), limits, make) => ended,
            () = noted => return,
        };
        if let Err(error) = ended {
            self.failed(portal, &error);
        }
    }

    fn note(&self, portal: Portal, listening: bool) {
        let state = match listening {
            true => State::Listening,
            false => State::Waiting(NO_DEVICE.to_owned()),
        };
        self.listeners.set(portal, state);
    }

    fn failed(&self, portal: Portal, error: &(dyn std::error::Error + 'static)) {
        tracing::error!(%portal, %error, "nobody can connect here any more");
        self.listeners.set(portal, State::Unavailable(error.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receives_leave_most_of_a_small_pool_to_data() {
        let receives = |pool_bytes| limits(pool_bytes).receives;
        assert_eq!(receives(128 << 20), RdmaLimits::default().receives);
        let bytes =
            u64::from(receives(16 << 20)) * u64::from(RdmaLimits::default().in_capsule_bytes);
        assert_eq!(bytes, 2 << 20);
    }

    #[test]
    fn connections_may_ask_for_what_identify_and_cap_offer() {
        let rdma = limits(128 << 20);
        assert_eq!((rdma.qid_max, rdma.sqsize_max), (QUEUES_MAX, MQES));
    }
}
