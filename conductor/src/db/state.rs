//! What one node should be doing, out of one consistent view.
//!
//! A change that concerns nodes wakes all of them. They share one look at MetaDB, the [`Plan`], until the revision moves on.
//! What leaders ask for does not move it, so the epochs and in-sync sets of a plan may be older than MetaDB's: a node that
//! leads learns the newest ones by claiming.
//!
//! Most of a state in a large cluster is the same for all nodes: who the peers are, where hosts connect, what is exported.
//! That is written as JSON once per plan.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use afs_decisions::{BLOCK_BYTES, NodeId, VolumeConfig};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::backend::Transaction;
use super::query::query_as;
use super::rows::{self, NamespaceRow, NodeRow, PeerPortalRow, PortalRow, Snapshot, all_but_disks};
use super::{DbError, MetaDb};
use crate::api::{
    MAX_NSID, MODEL, NamespaceState, Nguid, Peer, Portal, PortalReport, VolumeAssignment,
};

impl MetaDb {
    /// The state of a node ([`NodeState`](crate::api::NodeState)) as JSON, or nothing if the node is not known.
    pub async fn node_state(&self, node: &str) -> Result<Option<String>, DbError> {
        let plan = self.plan().await?;
        let Some((id, own)) = plan.of(node) else { return Ok(None) };
        let state = StateView {
            revision: plan.snapshot.revision,
            node,
            id,
            cluster: self.cluster,
            volumes: plan.assignments(own),
            retired: &own.retired,
            subsystems: plan.subsystems(&own.ranges),
            portals: &plan.portals,
            leads: &own.leads,
            peers: &plan.peers,
        };
        serde_json::to_string(&state).map(Some).map_err(|error| unwritable(&error))
    }

    /// The plan of the newest revision. Of many who ask at a time one looks it up.
    async fn plan(&self) -> Result<Arc<Plan>, DbError> {
        let asked = Instant::now();
        let newest = rows::revision(&mut self.read().await?).await?;
        let mut known = self.plan.lock().await;
        let fits = |plan: &Arc<Plan>| plan.snapshot.revision == newest || plan.begun >= asked;
        if let Some(plan) = known.as_ref().filter(|plan| fits(plan)) {
            return Ok(Arc::clone(plan));
        }
        // Its memory first: there may be much of it.
        *known = None;
        let plan = Arc::new(Plan::read(self.read().await?).await?);
        *known = Some(Arc::clone(&plan));
        Ok(plan)
    }
}

fn unwritable(error: &serde_json::Error) -> DbError {
    DbError::Damaged(format!("a state that cannot be written as JSON: {error}"))
}

/// [`NodeState`](crate::api::NodeState), field by field.
#[derive(Serialize)]
struct StateView<'a> {
    revision: u64,
    node: &'a str,
    id: NodeId,
    cluster: Uuid,
    volumes: Vec<VolumeAssignment>,
    retired: &'a [Uuid],
    subsystems: Vec<SubsystemView<'a>>,
    portals: &'a RawValue,
    leads: &'a [VolumeConfig],
    peers: &'a RawValue,
}

/// [`SubsystemState`](crate::api::SubsystemState), field by field.
#[derive(Serialize)]
struct SubsystemView<'a> {
    nqn: &'a str,
    serial: &'a str,
    model: &'static str,
    controller_ids: (u16, u16),
    allow_any_host: bool,
    hosts: &'a RawValue,
    namespaces: &'a RawValue,
    max_nsid: u32,
}

/// What all nodes should be doing at one revision.
#[derive(Debug)]
pub(super) struct Plan {
    begun: Instant,
    snapshot: Snapshot,
    /// Every [`Peer`].
    peers: Box<RawValue>,
    /// Every [`Portal`].
    portals: Box<RawValue>,
    /// For each subsystem in the snapshot.
    exported: Vec<Exported>,
    nodes: HashMap<String, (NodeId, Own)>,
    /// Where each volume is in the snapshot.
    volumes: HashMap<Uuid, usize>,
}

/// What is the same on all nodes of one subsystem.
#[derive(Debug)]
struct Exported {
    hosts: Box<RawValue>,
    namespaces: Box<RawValue>,
}

/// What is one node's own.
#[derive(Debug, Default)]
struct Own {
    /// Where its replicas are in the snapshot.
    held: Vec<usize>,
    leads: Vec<VolumeConfig>,
    retired: Vec<Uuid>,
    ranges: BTreeMap<String, (u16, u16)>,
}

impl Plan {
    async fn read(mut view: Transaction) -> Result<Plan, DbError> {
        let begun = Instant::now();
        let snapshot = all_but_disks(&mut view).await?;
        let own = |row: &NodeRow| (row.name.clone(), (NodeId(row.id), Own::default()));
        let mut nodes: HashMap<String, (NodeId, Own)> = snapshot.nodes.iter().map(own).collect();
        for (index, replica) in snapshot.replicas.iter().enumerate() {
            if let Some((_, own)) = nodes.get_mut(&replica.node) {
                own.held.push(index);
            }
        }
        let mut leads: HashMap<NodeId, Vec<VolumeConfig>> = HashMap::new();
        for config in snapshot.configs.values() {
            if let Some(leader) = config.leader {
                leads.entry(leader).or_default().push(config.clone());
            }
        }
        for (id, own) in nodes.values_mut() {
            own.leads = leads.remove(id).unwrap_or_default();
        }
        for (node, replica) in retired(&mut view).await? {
            if let Some((_, own)) = nodes.get_mut(&node) {
                own.retired.push(replica);
            }
        }
        for Range { nqn, node, first_id, last_id } in controller_ranges(&mut view).await? {
            if let Some((_, own)) = nodes.get_mut(&node) {
                own.ranges.insert(nqn, (first_id, last_id));
            }
        }
        let volumes = snapshot.volumes.iter().map(|row| row.uuid).zip(0..).collect();
        let portals: Vec<Portal> = snapshot.portals.iter().cloned().map(Portal::from).collect();
        Ok(Plan {
            begun,
            peers: json(&peers(&snapshot))?,
            portals: json(&portals)?,
            exported: exported(&snapshot)?,
            snapshot,
            nodes,
            volumes,
        })
    }

    fn of(&self, node: &str) -> Option<(NodeId, &Own)> {
        self.nodes.get(node).map(|(id, own)| (*id, own))
    }

    /// A subsystem for which the node has no controller ids is left out: it could not be connected to.
    fn subsystems(&self, ranges: &BTreeMap<String, (u16, u16)>) -> Vec<SubsystemView<'_>> {
        let all = self.snapshot.subsystems.iter().zip(&self.exported);
        let with_range = all.filter_map(|(row, Exported { hosts, namespaces })| {
            Some(SubsystemView {
                nqn: &row.nqn,
                serial: &row.serial,
                model: MODEL,
                controller_ids: *ranges.get(&row.nqn)?,
                allow_any_host: row.allow_any,
                hosts,
                namespaces,
                max_nsid: MAX_NSID,
            })
        });
        with_range.collect()
    }

    fn assignments(&self, own: &Own) -> Vec<VolumeAssignment> {
        let replicas = own.held.iter().filter_map(|index| self.snapshot.replicas.get(*index));
        replicas
            .filter_map(|replica| {
                let volume = self.snapshot.volumes.get(*self.volumes.get(&replica.volume)?)?;
                let config = self.snapshot.configs.get(&replica.volume)?;
                let blocks = config.blocks_of_shard(replica.shard);
                Some(VolumeAssignment {
                    volume: volume.uuid,
                    replica: replica.uuid,
                    disk: replica.disk,
                    size_bytes: blocks.saturating_mul(BLOCK_BYTES),
                    name: volume.name.clone(),
                    shard: replica.shard,
                    whole: config.members().count() == 1,
                })
            })
            .collect()
    }
}

impl From<PortalRow> for Portal {
    fn from(row: PortalRow) -> Self {
        Self {
            node: row.node,
            portal_id: row.id,
            transport: row.transport,
            address: row.address,
            service: row.service,
        }
    }
}

fn namespace(row: &NamespaceRow, snapshot: &Snapshot) -> NamespaceState {
    NamespaceState {
        nsid: row.nsid,
        volume: row.volume,
        nguid: Nguid(row.nguid.into_bytes()),
        uuid: row.volume,
        size_bytes: row.size_bytes,
        read_only: row.read_only,
        leader: snapshot.configs.get(&row.volume).and_then(|config| config.leader),
    }
}

fn peers(snapshot: &Snapshot) -> Vec<Peer> {
    let mut for_hosts: BTreeMap<&str, Vec<PortalReport>> = BTreeMap::new();
    for row in &snapshot.portals {
        let PortalRow { transport, address, service, .. } = row.clone();
        let portal = PortalReport { transport, address, service };
        for_hosts.entry(&row.node).or_default().push(portal);
    }
    let mut for_peers: BTreeMap<&str, Vec<PortalReport>> = BTreeMap::new();
    for row in &snapshot.peer_portals {
        let PeerPortalRow { transport, address, service, .. } = row.clone();
        let portal = PortalReport { transport, address, service };
        for_peers.entry(&row.node).or_default().push(portal);
    }
    let nodes = snapshot.nodes.iter();
    nodes
        .map(|row| Peer {
            id: NodeId(row.id),
            name: row.name.clone(),
            portals: for_peers
                .remove(row.name.as_str())
                .or_else(|| for_hosts.remove(row.name.as_str()))
                .unwrap_or_default(),
        })
        .collect()
}

/// Retired replicas, with the node that has each.
async fn retired(view: &mut Transaction) -> Result<Vec<(String, Uuid)>, DbError> {
    query_as(
        "SELECT d.node, r.uuid FROM replicas r JOIN disks d ON d.uuid = r.disk \
         WHERE r.state = 'retired' ORDER BY d.node, r.uuid",
    )
    .fetch_all(view)
    .await
}

#[derive(sqlx::FromRow)]
struct Range {
    nqn: String,
    node: String,
    #[sqlx(try_from = "i64")]
    first_id: u16,
    #[sqlx(try_from = "i64")]
    last_id: u16,
}

async fn controller_ranges(view: &mut Transaction) -> Result<Vec<Range>, DbError> {
    query_as("SELECT nqn, node, first_id, last_id FROM controller_ranges").fetch_all(view).await
}

fn json(value: &impl Serialize) -> Result<Box<RawValue>, DbError> {
    to_raw_value(value).map_err(|error| unwritable(&error))
}

fn exported(snapshot: &Snapshot) -> Result<Vec<Exported>, DbError> {
    let mut hosts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in &snapshot.access {
        hosts.entry(&row.nqn).or_default().push(&row.host);
    }
    let mut namespaces: BTreeMap<&str, Vec<NamespaceState>> = BTreeMap::new();
    for row in &snapshot.namespaces {
        namespaces.entry(&row.nqn).or_default().push(namespace(row, snapshot));
    }
    let of_each = snapshot.subsystems.iter().map(|row| {
        let hosts = hosts.remove(row.nqn.as_str()).unwrap_or_default();
        let namespaces = namespaces.remove(row.nqn.as_str()).unwrap_or_default();
        Ok(Exported { hosts: json(&hosts)?, namespaces: json(&namespaces)? })
    });
    of_each.collect()
}
