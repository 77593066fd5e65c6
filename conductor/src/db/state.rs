//! What one node should be doing, out of one consistent view.

use std::collections::BTreeMap;

use afs_decisions::{BLOCK_BYTES, NodeId, VolumeConfig};
use uuid::Uuid;

use super::backend::Transaction;
use super::query::{query_as, query_scalar};
use super::rows::{NamespaceRow, PeerPortalRow, PortalRow, Snapshot, read_snapshot};
use super::{DbError, MetaDb};
use crate::api::{
    MAX_NSID, MODEL, NamespaceState, Nguid, NodeState, Peer, Portal, PortalReport, SubsystemState,
    VolumeAssignment,
};

impl MetaDb {
    /// The state of a node, or nothing if the node is not known.
    pub async fn node_state(&self, node: &str) -> Result<Option<NodeState>, DbError> {
        let mut view = self.read().await?;
        let snapshot = read_snapshot(&mut view).await?;
        let Some(row) = snapshot.nodes.iter().find(|row| row.name == node) else {
            return Ok(None);
        };
        let id = NodeId(row.id);
        let retired = retired(&mut view, node).await?;
        let ranges = controller_ranges(&mut view, node).await?;
        Ok(Some(NodeState {
            revision: snapshot.revision,
            node: node.to_owned(),
            id,
            cluster: self.cluster,
            volumes: assignments(&snapshot, node),
            retired,
            subsystems: subsystems(&snapshot, &ranges),
            leads: leads(&snapshot, id),
            peers: peers(&snapshot),
            portals: snapshot.portals.into_iter().map(Portal::from).collect(),
        }))
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

fn leads(snapshot: &Snapshot, node: NodeId) -> Vec<VolumeConfig> {
    let configs = snapshot.configs.values();
    configs.filter(|config| config.leader == Some(node)).cloned().collect()
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

async fn retired(view: &mut Transaction, node: &str) -> Result<Vec<Uuid>, DbError> {
    query_scalar(
        "SELECT r.uuid FROM replicas r JOIN disks d ON d.uuid = r.disk \
         WHERE r.state = 'retired' AND d.node = $1 ORDER BY r.uuid",
    )
    .bind(node)
    .fetch_all(view)
    .await
}

#[derive(sqlx::FromRow)]
struct Range {
    nqn: String,
    #[sqlx(try_from = "i64")]
    first_id: u16,
    #[sqlx(try_from = "i64")]
    last_id: u16,
}

async fn controller_ranges(
    view: &mut Transaction,
    node: &str,
) -> Result<BTreeMap<String, (u16, u16)>, DbError> {
    let rows: Vec<Range> =
        query_as("SELECT nqn, first_id, last_id FROM controller_ranges WHERE node = $1")
            .bind(node)
            .fetch_all(view)
            .await?;
    Ok(rows.into_iter().map(|row| (row.nqn, (row.first_id, row.last_id))).collect())
}

fn assignments(snapshot: &Snapshot, node: &str) -> Vec<VolumeAssignment> {
    let volumes: BTreeMap<Uuid, _> =
        snapshot.volumes.iter().map(|volume| (volume.uuid, volume)).collect();
    let replicas = snapshot.replicas.iter().filter(|replica| replica.node == node);
    replicas
        .filter_map(|replica| {
            let volume = volumes.get(&replica.volume)?;
            let config = snapshot.configs.get(&replica.volume)?;
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

/// A subsystem for which the node has no controller ids is left out: it could not be connected to.
fn subsystems(snapshot: &Snapshot, ranges: &BTreeMap<String, (u16, u16)>) -> Vec<SubsystemState> {
    let mut hosts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in &snapshot.access {
        hosts.entry(&row.nqn).or_default().push(row.host.clone());
    }
    let mut namespaces: BTreeMap<&str, Vec<NamespaceState>> = BTreeMap::new();
    for row in &snapshot.namespaces {
        namespaces.entry(&row.nqn).or_default().push(namespace(row, snapshot));
    }
    let with_range = snapshot.subsystems.iter().filter_map(|row| {
        let controller_ids = *ranges.get(&row.nqn)?;
        Some(SubsystemState {
            nqn: row.nqn.clone(),
            serial: row.serial.clone(),
            model: MODEL.to_owned(),
            controller_ids,
            allow_any_host: row.allow_any,
            hosts: hosts.remove(row.nqn.as_str()).unwrap_or_default(),
            namespaces: namespaces.remove(row.nqn.as_str()).unwrap_or_default(),
            max_nsid: MAX_NSID,
        })
    });
    with_range.collect()
}
