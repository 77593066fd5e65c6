//! What MetaDB holds, row by row, and one consistent view of all of it.

use std::collections::{BTreeMap, HashMap};

use afs_decisions::{NodeId, VolumeConfig};
use uuid::Uuid;

use super::DbError;
use super::backend::Transaction;
use super::query::query_as;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// Its number, never used again.
    #[sqlx(try_from = "i64")]
    pub id: u32,
    /// Where it stands, if labelled.
    pub rack: Option<String>,
    /// `active` or `draining`.
    pub state: String,
}

/// A listener of a node.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PortalRow {
    /// Its id, 1 to 65535.
    #[sqlx(try_from = "i64")]
    pub id: u16,
    /// The node.
    pub node: String,
    /// `tcp` or `rdma`.
    pub transport: String,
    /// IP address in canonical form.
    pub address: String,
    /// Port number.
    pub service: String,
}

/// Where other nodes reach a node.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct PeerPortalRow {
    /// The node.
    pub node: String,
    /// `tcp` or `rdma`.
    pub transport: String,
    /// IP address in canonical form.
    pub address: String,
    /// Port number.
    pub service: String,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct DiskRow {
    /// Its identity.
    pub uuid: Uuid,
    /// The node that has it.
    pub node: String,
    /// `store` or `null`.
    pub kind: String,
    /// Path on the node.
    pub path: String,
    /// Bytes that volumes can use.
    #[sqlx(try_from = "i64")]
    pub total_bytes: u64,
    /// Sum of the sizes of the volumes on it.
    #[sqlx(try_from = "i64")]
    pub provisioned_bytes: u64,
    /// Whether it is being emptied.
    pub retired: bool,
}

/// A volume that exists.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct VolumeRow {
    /// Its identity.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Its size.
    #[sqlx(try_from = "i64")]
    pub size_bytes: u64,
    /// The NGUID of its namespace.
    pub nguid: Uuid,
    /// Replicas that each shard should have.
    #[sqlx(try_from = "i64")]
    pub copies: u8,
    /// Rises with each change.
    #[sqlx(try_from = "i64")]
    pub version: u64,
    /// When it was made.
    #[sqlx(try_from = "i64")]
    pub created_ms: u64,
}

/// A replica that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaRow {
    /// Its identity.
    pub uuid: Uuid,
    /// Its volume.
    pub volume: Uuid,
    /// Its shard.
    pub shard: u32,
    /// Its disk.
    pub disk: Uuid,
    /// The node of that disk.
    pub node: String,
}

/// A subsystem.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct SubsystemRow {
    /// Its NQN.
    pub nqn: String,
    /// Its serial number.
    pub serial: String,
    /// Whether any host may connect.
    pub allow_any: bool,
    /// Rises with each change.
    #[sqlx(try_from = "i64")]
    pub version: u64,
    /// When it was made.
    #[sqlx(try_from = "i64")]
    pub created_ms: u64,
}

/// A namespace that exists, with its volume.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct NamespaceRow {
    /// The subsystem.
    pub nqn: String,
    /// Its id, 1 to 1024.
    #[sqlx(try_from = "i64")]
    pub nsid: u32,
    /// The volume.
    pub volume: Uuid,
    /// The volume's name.
    pub volume_name: String,
    /// The volume's size.
    #[sqlx(try_from = "i64")]
    pub size_bytes: u64,
    /// The volume's NGUID.
    pub nguid: Uuid,
    /// Whether hosts may only read.
    pub read_only: bool,
}

/// A host on a subsystem's list.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct AccessRow {
    /// The subsystem.
    pub nqn: String,
    /// The host's NQN.
    pub host: String,
}

/// Everything at one moment, each list in the order of its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision of that moment.
    pub revision: u64,
    /// Nodes by name.
    pub nodes: Vec<NodeRow>,
    /// Active listeners by id.
    pub portals: Vec<PortalRow>,
    /// Disks by node and path.
    pub disks: Vec<DiskRow>,
    /// Volumes by name.
    pub volumes: Vec<VolumeRow>,
    /// Replicas that should be there, by volume and shard.
    pub replicas: Vec<ReplicaRow>,
    /// How many volumes each node leads, and how many replicas it holds; nothing of those that do neither.
    pub loads: HashMap<NodeId, (u32, u32)>,
    /// What is decided about each volume.
    pub configs: BTreeMap<Uuid, VolumeConfig>,
    /// Subsystems by NQN.
    pub subsystems: Vec<SubsystemRow>,
    /// Namespaces by NQN and NSID.
    pub namespaces: Vec<NamespaceRow>,
    /// Allowed hosts by NQN and host.
    pub access: Vec<AccessRow>,
}

pub(super) async fn volumes(view: &mut Transaction) -> Result<Vec<VolumeRow>, DbError> {
    query_as(
        "SELECT uuid, name, size_bytes, nguid, copies, version, created_ms FROM volumes \
         WHERE deleted_ms IS NULL",
    )
    .fetch_all(view)
    .await
}

pub(super) async fn portals(view: &mut Transaction) -> Result<Vec<PortalRow>, DbError> {
    query_as("SELECT id, node, transport, address, service FROM portals WHERE active ORDER BY id")
        .fetch_all(view)
        .await
}

pub(super) async fn peer_portals(view: &mut Transaction) -> Result<Vec<PeerPortalRow>, DbError> {
    query_as(
        "SELECT node, transport, address, service FROM peer_portals \
         ORDER BY node, transport, address, service",
    )
    .fetch_all(view)
    .await
}

pub(super) async fn subsystems(view: &mut Transaction) -> Result<Vec<SubsystemRow>, DbError> {
    query_as("SELECT nqn, serial, allow_any, version, created_ms FROM subsystems ORDER BY nqn")
        .fetch_all(view)
        .await
}

pub(super) async fn namespaces(view: &mut Transaction) -> Result<Vec<NamespaceRow>, DbError> {
    query_as(
        "SELECT n.nqn, n.nsid, n.volume, v.name AS volume_name, v.size_bytes, v.nguid, \
         n.read_only FROM namespaces n JOIN volumes v ON v.uuid = n.volume \
         WHERE n.removed_ms IS NULL ORDER BY n.nqn, n.nsid",
    )
    .fetch_all(view)
    .await
}

pub(super) async fn access(view: &mut Transaction) -> Result<Vec<AccessRow>, DbError> {
    query_as("SELECT nqn, host FROM access ORDER BY nqn, host").fetch_all(view).await
}

pub(super) async fn nodes(view: &mut Transaction) -> Result<Vec<NodeRow>, DbError> {
    query_as("SELECT name, id, rack, state FROM nodes WHERE state <> 'removed' ORDER BY name")
        .fetch_all(view)
        .await
}

/// What is on them is known to the volumes.
pub(super) async fn disks(view: &mut Transaction) -> Result<Vec<DiskRow>, DbError> {
    query_as(
        "SELECT d.uuid, d.node, d.kind, d.path, d.total_bytes, d.retired, \
         CAST(0 AS BIGINT) AS provisioned_bytes FROM disks d JOIN nodes n ON n.name = d.node \
         WHERE n.state <> 'removed' ORDER BY d.node, d.path, d.uuid",
    )
    .fetch_all(view)
    .await
}
