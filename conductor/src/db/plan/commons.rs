//! What is not about volumes: nodes and their disks, listeners, what is exported to whom. Most of it is the same for all nodes, and
//! is written as JSON once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use afs_decisions::{BLOCK_BYTES, NodeId};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::volumes::Volumes;
use crate::api::{NamespaceState, Nguid, Peer, Portal, PortalReport};
use crate::db::DbError;
use crate::db::backend::Transaction;
use crate::db::query::query_as;
use crate::db::rows::{
    self, AccessRow, DiskRow, NamespaceRow, NodeRow, PeerPortalRow, PortalRow, Snapshot,
    SubsystemRow,
};

/// JSON, and the revision in which it became this.
#[derive(Debug)]
pub(in crate::db) struct Part {
    pub(in crate::db) json: Box<RawValue>,
    pub(in crate::db) changed: u64,
}

impl Part {
    fn new(value: &impl Serialize, changed: u64) -> Result<Self, DbError> {
        Ok(Self { json: json(value)?, changed })
    }

    fn keep_mark_of(&mut self, before: &Self) {
        if self.json.get() == before.json.get() {
            self.changed = before.changed;
        }
    }
}

/// A subsystem, as all nodes export it.
#[derive(Debug)]
pub(in crate::db) struct Exported {
    pub(in crate::db) row: SubsystemRow,
    pub(in crate::db) hosts: Box<RawValue>,
    pub(in crate::db) namespaces: Part,
    /// What `namespaces` was written from, with the leaders of that moment.
    rows: Vec<NamespaceRow>,
}

/// What is one node's own, but for its volumes.
#[derive(Debug)]
pub(in crate::db) struct Own {
    pub(in crate::db) disks: Vec<Uuid>,
    /// Its controller ids, by NQN.
    pub(in crate::db) ranges: BTreeMap<String, (u16, u16)>,
    /// When its replicas changed.
    pub(in crate::db) held_changed: u64,
    /// When that changed which it leads, or somebody else decided about it.
    pub(in crate::db) leads_changed: u64,
}

/// See the module.
#[derive(Debug)]
pub(in crate::db) struct Commons {
    pub(in crate::db) rows: Arc<[NodeRow]>,
    listeners: Vec<PortalRow>,
    access: Vec<AccessRow>,
    /// Those of nodes that are part of the cluster, by node and path.
    disks: Vec<DiskRow>,
    /// Every [`Peer`].
    pub(in crate::db) peers: Part,
    /// Every [`Portal`].
    pub(in crate::db) portals: Part,
    pub(in crate::db) subsystems: Vec<Exported>,
    /// When a subsystem came or went.
    pub(in crate::db) list_changed: u64,
    ids: HashMap<String, NodeId>,
    own: HashMap<NodeId, Own>,
    node_of_disk: HashMap<Uuid, NodeId>,
    /// The subsystem, by its index, as part of which a volume is exported.
    exports: HashMap<Uuid, usize>,
}

impl Commons {
    /// Reads all of it. Everything counts as changed in this revision.
    pub(super) async fn read(
        view: &mut Transaction,
        volumes: &Volumes,
        changed: u64,
    ) -> Result<Self, DbError> {
        let rows: Arc<[NodeRow]> = rows::nodes(view).await?.into();
        let portals = rows::portals(view).await?;
        let peers = peers(&rows, &portals, &rows::peer_portals(view).await?);
        let listeners = portals.clone();
        let portals: Vec<Portal> = portals.into_iter().map(Portal::from).collect();
        let disks = rows::disks(view).await?;
        let own = || Own {
            disks: Vec::new(),
            ranges: BTreeMap::new(),
            held_changed: changed,
            leads_changed: changed,
        };
        let ids: HashMap<String, NodeId> =
            rows.iter().map(|row| (row.name.clone(), NodeId(row.id))).collect();
        let mut commons = Self {
            peers: Part::new(&peers, changed)?,
            portals: Part::new(&portals, changed)?,
            subsystems: Vec::new(),
            list_changed: changed,
            own: rows.iter().map(|row| (NodeId(row.id), own())).collect(),
            node_of_disk: HashMap::new(),
            exports: HashMap::new(),
            access: rows::access(view).await?,
            rows,
            listeners,
            disks,
            ids,
        };
        for disk in &commons.disks {
            let Some(id) = commons.ids.get(&disk.node) else { continue };
            commons.node_of_disk.insert(disk.uuid, *id);
            if let Some(own) = commons.own.get_mut(id) {
                own.disks.push(disk.uuid);
            }
        }
        for Range { nqn, node, first_id, last_id } in controller_ranges(view).await? {
            let id = commons.ids.get(&node);
            if let Some(own) = id.and_then(|id| commons.own.get_mut(id)) {
                own.ranges.insert(nqn, (first_id, last_id));
            }
        }
        commons.read_exported(view, volumes, changed).await?;
        Ok(commons)
    }

    async fn read_exported(
        &mut self,
        view: &mut Transaction,
        volumes: &Volumes,
        changed: u64,
    ) -> Result<(), DbError> {
        let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for AccessRow { nqn, host } in self.access.iter().cloned() {
            hosts.entry(nqn).or_default().push(host);
        }
        let mut namespaces: BTreeMap<String, Vec<NamespaceRow>> = BTreeMap::new();
        for row in rows::namespaces(view).await? {
            namespaces.entry(row.nqn.clone()).or_default().push(row);
        }
        for (index, row) in rows::subsystems(view).await?.into_iter().enumerate() {
            let rows = namespaces.remove(&row.nqn).unwrap_or_default();
            self.exports.extend(rows.iter().map(|row| (row.volume, index)));
            self.subsystems.push(Exported {
                hosts: json(&hosts.remove(&row.nqn).unwrap_or_default())?,
                namespaces: Part::new(&namespaces_of(&rows, volumes), changed)?,
                rows,
                row,
            });
        }
        Ok(())
    }

    /// What is as it was before changed when it did.
    pub(super) fn keep_marks_of(&mut self, before: &Self) {
        self.peers.keep_mark_of(&before.peers);
        self.portals.keep_mark_of(&before.portals);
        let nqns = |all: &Self| -> Vec<String> {
            all.subsystems.iter().map(|it| it.row.nqn.clone()).collect()
        };
        if nqns(self) == nqns(before) {
            self.list_changed = before.list_changed;
        }
        let old: HashMap<&str, &Exported> =
            before.subsystems.iter().map(|it| (it.row.nqn.as_str(), it)).collect();
        for new in &mut self.subsystems {
            let Some(old) = old.get(new.row.nqn.as_str()) else { continue };
            if new.row.serial == old.row.serial
                && new.row.allow_any == old.row.allow_any
                && new.hosts.get() == old.hosts.get()
            {
                new.namespaces.keep_mark_of(&old.namespaces);
            }
        }
        for (id, new) in &mut self.own {
            let Some(old) = before.own.get(id) else { continue };
            if new.disks == old.disks {
                new.held_changed = old.held_changed;
            }
            new.leads_changed = old.leads_changed;
        }
    }

    /// A node that is part of the cluster.
    pub(in crate::db) fn node(&self, name: &str) -> Option<(NodeId, &Own)> {
        let id = *self.ids.get(name)?;
        Some((id, self.own.get(&id)?))
    }

    /// The revision in which any of what concerns all nodes changed last.
    pub(super) fn changed(&self) -> u64 {
        let subsystems = self.subsystems_changed();
        self.peers.changed.max(self.portals.changed).max(subsystems)
    }

    /// The revision in which any of the subsystems changed last.
    pub(in crate::db) fn subsystems_changed(&self) -> u64 {
        let each = self.subsystems.iter().map(|it| it.namespaces.changed);
        each.max().unwrap_or(0).max(self.list_changed)
    }

    /// All rows, with those of volumes.
    pub(super) fn snapshot(&self, revision: u64, volumes: &Volumes) -> Snapshot {
        let on: HashMap<Uuid, &str> =
            self.disks.iter().map(|row| (row.uuid, row.node.as_str())).collect();
        let disk = |row: &DiskRow| DiskRow {
            provisioned_bytes: volumes.provisioned_on(row.uuid),
            ..row.clone()
        };
        let namespace =
            |row: &NamespaceRow| NamespaceRow { size_bytes: size_of(row, volumes), ..row.clone() };
        Snapshot {
            revision,
            nodes: self.rows.to_vec(),
            portals: self.listeners.clone(),
            disks: self.disks.iter().map(disk).collect(),
            volumes: volumes.rows(),
            replicas: volumes.replicas(|disk| on.get(&disk).copied()),
            loads: volumes.loads(),
            configs: volumes.configs(),
            subsystems: self.subsystems.iter().map(|it| it.row.clone()).collect(),
            namespaces: self.subsystems.iter().flat_map(|it| &it.rows).map(namespace).collect(),
            access: self.access.clone(),
        }
    }

    pub(super) fn leads_changed(&mut self, leaders: [Option<NodeId>; 2], changed: u64) {
        for leader in leaders.into_iter().flatten() {
            if let Some(own) = self.own.get_mut(&leader) {
                own.leads_changed = changed;
            }
        }
    }

    pub(super) fn held_changed(&mut self, disks: &[Uuid], changed: u64) {
        for disk in disks {
            let id = self.node_of_disk.get(disk);
            if let Some(own) = id.and_then(|id| self.own.get_mut(id)) {
                own.held_changed = changed;
            }
        }
    }

    /// Hosts see something else of these volumes, if they see them.
    pub(super) fn volumes_changed(
        &mut self,
        which: &BTreeSet<Uuid>,
        volumes: &Volumes,
        changed: u64,
    ) {
        let subsystems = which.iter().filter_map(|volume| self.exports.get(volume));
        for index in subsystems.copied().collect::<BTreeSet<_>>() {
            let Some(exported) = self.subsystems.get_mut(index) else { continue };
            match Part::new(&namespaces_of(&exported.rows, volumes), changed) {
                Ok(namespaces) => exported.namespaces = namespaces,
                Err(error) => tracing::error!(%error, "a subsystem keeps its old leaders"),
            }
        }
    }
}

fn json(value: &impl Serialize) -> Result<Box<RawValue>, DbError> {
    to_raw_value(value).map_err(|error| DbError::unwritable(&error))
}

/// A volume may have grown since.
fn size_of(row: &NamespaceRow, volumes: &Volumes) -> u64 {
    let config = volumes.config(row.volume);
    config.map_or(row.size_bytes, |config| config.blocks.saturating_mul(BLOCK_BYTES))
}

fn namespaces_of(rows: &[NamespaceRow], volumes: &Volumes) -> Vec<NamespaceState> {
    let namespace = |row: &NamespaceRow| {
        let config = volumes.config(row.volume);
        NamespaceState {
            nsid: row.nsid,
            volume: row.volume,
            nguid: Nguid(row.nguid.into_bytes()),
            uuid: row.volume,
            size_bytes: size_of(row, volumes),
            read_only: row.read_only,
            leader: config.and_then(|config| config.leader),
        }
    };
    rows.iter().map(namespace).collect()
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

fn peers(nodes: &[NodeRow], portals: &[PortalRow], for_peers: &[PeerPortalRow]) -> Vec<Peer> {
    let mut at: BTreeMap<&str, Vec<PortalReport>> = BTreeMap::new();
    for row in for_peers {
        let PeerPortalRow { transport, address, service, .. } = row.clone();
        at.entry(&row.node).or_default().push(PortalReport { transport, address, service });
    }
    let mut for_hosts: BTreeMap<&str, Vec<PortalReport>> = BTreeMap::new();
    for row in portals {
        let PortalRow { transport, address, service, .. } = row.clone();
        for_hosts.entry(&row.node).or_default().push(PortalReport { transport, address, service });
    }
    let peer = |row: &NodeRow| {
        let name = row.name.as_str();
        let portals = at.remove(name).or_else(|| for_hosts.remove(name)).unwrap_or_default();
        Peer { id: NodeId(row.id), name: row.name.clone(), portals }
    };
    nodes.iter().map(peer).collect()
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
