//! Brings the node's replicas and exports to what the conductor wants: the [`Converge`] that the agent drives.
//!
//! Order matters: replicas are made and grown before hosts see the namespaces, and deleted after hosts stopped seeing them.
//!
//! Invariant: a replica is deleted only when it is named in `NodeState::retired`; absence from the state deletes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use conductor::api::{
    NodeReport, NodeState, PortalReport, ReplicaState, ResyncReport, VolumeAssignment, VolumeReport,
};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::agent::Converge;
use crate::backend::BackendSource;
use crate::cluster::{Cluster, need_leader};
use crate::disks::{DiskSet, ReplicaFailure};
use crate::listeners::Listeners;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::portal::{self, Portal};
use crate::queue::Door;
use afs_decisions::NodeId;
use afs_volume::RangeLocks;

/// What the conductor is told about the node besides disks and replicas.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Where hosts and other nodes reach it.
    pub listeners: Arc<Listeners>,
    /// Where its own HTTP server is.
    pub http: SocketAddr,
    /// The rack that it stands in, for placement.
    pub rack: Option<String>,
}

/// The volumes of this node.
pub struct Volumes {
    identity: Identity,
    disks: Arc<DiskSet>,
    node: Arc<Node>,
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    /// The order of I/O on volumes that are whole here: it outlives every change of their exports.
    orders: Mutex<HashMap<Uuid, Arc<RangeLocks>>>,
    replicas: Mutex<BTreeMap<Uuid, VolumeReport>>,
    deleted: Mutex<BTreeSet<Uuid>>,
}

impl Volumes {
    /// Nothing yet; the first [`Converge::converge`] fills it.
    pub fn new(
        identity: Identity,
        disks: Arc<DiskSet>,
        node: Arc<Node>,
        cluster: Arc<Cluster>,
        metrics: Arc<Metrics>,
    ) -> Arc<Volumes> {
        Arc::new(Volumes {
            identity,
            disks,
            node,
            cluster,
            metrics,
            orders: Mutex::default(),
            replicas: Mutex::default(),
            deleted: Mutex::default(),
        })
    }

    /// How many replicas can be used.
    pub fn ready(&self) -> usize {
        self.replicas.lock().values().filter(|replica| replica.state == ReplicaState::Ready).count()
    }

    async fn provide_all(&self, assignments: &[VolumeAssignment]) -> HashMap<Uuid, BackendSource> {
        self.announce(assignments);
        let mut sources = HashMap::with_capacity(assignments.len());
        for assignment in assignments {
            let provided = self.provide(assignment).await;
            let (state, error) = match &provided {
                Ok(_) => (ReplicaState::Ready, None),
                Err(failure) => {
                    tracing::error!(volume = assignment.name, replica = %assignment.replica, %failure, "a volume is not there");
                    (ReplicaState::Failed, Some(failure.to_string()))
                }
            };
            if let Some(report) = self.replicas.lock().get_mut(&assignment.replica) {
                report.state = state;
                report.error = error;
            }
            if let Ok(Some(source)) = provided {
                let order = self.orders.lock().entry(assignment.volume).or_default().clone();
                sources.insert(assignment.volume, source.ordered_by(order));
            }
        }
        sources
    }

    /// Reports cover exactly what is assigned; what is new is being made.
    fn announce(&self, assignments: &[VolumeAssignment]) {
        let mut before = std::mem::take(&mut *self.replicas.lock());
        let reports = assignments.iter().map(|assignment| {
            let new = || VolumeReport {
                volume: assignment.volume,
                replica: assignment.replica,
                allocated_bytes: 0,
                state: ReplicaState::Creating,
                error: None,
                promised: 0,
            };
            (assignment.replica, before.remove(&assignment.replica).unwrap_or_else(new))
        });
        *self.replicas.lock() = reports.collect();
    }

    /// The volume, if the replica is all of it; a replica of a shard is taken into service.
    async fn provide(
        &self,
        assignment: &VolumeAssignment,
    ) -> Result<Option<BackendSource>, ReplicaFailure> {
        let VolumeAssignment { volume, replica, disk, size_bytes, whole, .. } = assignment;
        let disk = self.disks.get(*disk).ok_or(ReplicaFailure::NoDisk(*disk))?;
        if *whole {
            return disk.provide(*volume, *replica, *size_bytes).await.map(Some);
        }
        let store = disk.provide_shard(*replica, *size_bytes).await?;
        self.cluster.hold(*replica, *volume, &store).await?;
        Ok(None)
    }

    /// Makes what this node leads and what it forwards agree with `state`; volumes that are not whole here are added to
    /// `sources`.
    fn take_part(&self, state: &NodeState, sources: &mut HashMap<Uuid, BackendSource>) {
        let sharded = state.volumes.iter().filter(|assignment| !assignment.whole);
        self.cluster.hold_only(&sharded.map(|assignment| assignment.replica).collect());
        self.cluster.serve_direct(sources.clone());
        let namespaces = || state.subsystems.iter().flat_map(|subsystem| &subsystem.namespaces);
        let leaders = namespaces().map(|namespace| (namespace.volume, namespace.leader)).collect();
        self.cluster.lead(&need_leader(&state.leads, state.id), leaders);
        for namespace in namespaces().filter(|namespace| namespace.leader.is_some()) {
            sources.entry(namespace.volume).or_insert_with(|| {
                let blocks = namespace.size_bytes / u64::from(afs_env::BLOCK_BYTES);
                let leads = namespace.leader == Some(state.id);
                BackendSource::cluster(namespace.volume, &self.cluster, blocks, leads)
            });
        }
    }

    async fn delete_retired(&self, state: &NodeState) {
        let kept: HashSet<Uuid> =
            state.volumes.iter().map(|assignment| assignment.replica).collect();
        let before = self.deleted.lock().clone();
        let mut deleted = BTreeSet::new();
        for replica in &state.retired {
            if kept.contains(replica) {
                tracing::error!(%replica, "a replica is both wanted and retired; it is kept");
            } else if before.contains(replica) || self.delete(*replica).await {
                deleted.insert(*replica);
            }
        }
        *self.deleted.lock() = deleted;
    }

    /// Whether the replica is surely on no disk of this node any more.
    async fn delete(&self, replica: Uuid) -> bool {
        let mut gone = true;
        for disk in self.disks.iter() {
            match disk.delete(replica).await {
                Ok(true) => {
                    tracing::info!(%replica, disk = %disk.spec(), "deleted a retired replica");
                    return true;
                }
                Ok(false) => {}
                Err(failure) => {
                    tracing::warn!(%replica, disk = %disk.spec(), %failure, "a retired replica may still be here");
                    gone = false;
                }
            }
        }
        gone
    }

    /// Replicas that leaders here are filling.
    fn resyncs(&self) -> Vec<ResyncReport> {
        let mut reports = Vec::new();
        for (volume, view) in self.cluster.led_views() {
            for (shard, members) in (0..).zip(&view.shards) {
                let filling = members.iter().filter(|member| member.live && !member.in_sync);
                reports.extend(filling.map(|member| ResyncReport {
                    volume,
                    shard,
                    replica: member.replica,
                    total_bytes: member.bytes_compared + member.bytes_left,
                    left_bytes: member.bytes_left,
                    bytes_per_second: 0,
                }));
            }
        }
        reports
    }

    /// Series end with their namespaces.
    fn end_series(&self, state: &NodeState) {
        let mut exported = HashSet::new();
        for subsystem in &state.subsystems {
            let nqn = subsystem.nqn.as_str();
            exported.extend(subsystem.namespaces.iter().map(|namespace| (nqn, namespace.nsid)));
        }
        self.metrics.retain(|nqn, nsid| exported.contains(&(nqn, nsid)));
    }
}

impl Converge for Volumes {
    async fn converge(&self, state: &NodeState) {
        self.cluster.meet(state.cluster, state.id, peers(state));
        let mut sources = self.provide_all(&state.volumes).await;
        self.take_part(state, &mut sources);
        self.node.apply(state, &sources);
        self.end_series(state);
        self.delete_retired(state).await;
    }

    fn report(&self, applied_revision: u64) -> NodeReport {
        let mut volumes: Vec<_> = self.replicas.lock().values().cloned().collect();
        let allocated = self.disks.allocated();
        for volume in &mut volumes {
            volume.allocated_bytes = allocated.get(&volume.replica).copied().unwrap_or(0);
            volume.promised = self.cluster.held(volume.replica).map_or(0, |it| it.state.promised());
        }
        NodeReport {
            node: self.identity.name.clone(),
            applied_revision,
            portals: self.identity.listeners.advertised(Door::Hosts).iter().map(portal).collect(),
            disks: self.disks.iter().map(|disk| disk.report()).collect(),
            volumes,
            deleted: self.deleted.lock().iter().copied().collect(),
            http: Some(self.identity.http.to_string()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peer_portals: self
                .identity
                .listeners
                .advertised(Door::Peers)
                .iter()
                .map(portal)
                .collect(),
            unreachable: self.cluster.unreachable(),
            rack: self.identity.rack.clone(),
            resyncs: self.resyncs(),
        }
    }
}

/// Where the other nodes listen for this one.
fn peers(state: &NodeState) -> BTreeMap<NodeId, Vec<Portal>> {
    let others = state.peers.iter().filter(|peer| peer.id != state.id);
    let address = |portal: &PortalReport| {
        let transport = portal::named(&portal.transport)?;
        let ip: IpAddr = portal.address.parse().ok()?;
        let port = portal.service.parse().ok()?;
        Some(Portal { transport, address: SocketAddr::new(ip, port) })
    };
    others.map(|peer| (peer.id, peer.portals.iter().filter_map(address).collect())).collect()
}

fn portal(portal: &Portal) -> PortalReport {
    PortalReport {
        transport: portal.scheme().to_owned(),
        address: portal.address.ip().to_string(),
        service: portal.address.port().to_string(),
    }
}
