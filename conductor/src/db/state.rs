//! What one node should be doing, out of one consistent view.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::backend::Transaction;
use super::query::{query_as, query_scalar};
use super::rows::{NamespaceRow, PortalRow, Snapshot, read_snapshot};
use super::{DbError, MetaDb};
use crate::api::{
    MAX_NSID, MODEL, NamespaceState, Nguid, NodeState, Portal, SubsystemState, VolumeAssignment,
};

impl MetaDb {
    /// The state of a node, or nothing if the node is not known.
    pub async fn node_state(&self, node: &str) -> Result<Option<NodeState>, DbError> {
        let mut view = self.read().await?;
        let snapshot = read_snapshot(&mut view).await?;
        if !snapshot.nodes.iter().any(|row| row.name == node) {
            return Ok(None);
        }
        let retired = retired(&mut view, node).await?;
        let ranges = controller_ranges(&mut view, node).await?;
        Ok(Some(NodeState {
            revision: snapshot.revision,
            node: node.to_owned(),
            cluster: self.cluster,
            volumes: assignments(&snapshot, node),
            retired,
            subsystems: subsystems(&snapshot, &ranges),
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

impl From<NamespaceRow> for NamespaceState {
    fn from(row: NamespaceRow) -> Self {
        Self {
            nsid: row.nsid,
            volume: row.volume,
            nguid: Nguid(row.nguid.into_bytes()),
            uuid: row.volume,
            size_bytes: row.size_bytes,
            read_only: row.read_only,
        }
    }
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
            Some(VolumeAssignment {
                volume: volume.uuid,
                replica: replica.uuid,
                disk: replica.disk,
                size_bytes: volume.size_bytes,
                name: volume.name.clone(),
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
        namespaces.entry(&row.nqn).or_default().push(row.clone().into());
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
