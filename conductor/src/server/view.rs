//! What operators see: MetaDB's rows joined with what nodes last reported.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::live::LiveNode;
use super::{Shared, answer::ApiError};
use crate::api::{
    Disk, DiskKind, DiskReport, Export, Namespace, Nguid, Node, NodeLiveness, Portal, Replica,
    ReplicaState, Subsystem, Volume, VolumeReport, VolumeState,
};
use crate::db::{DiskRow, NamespaceRow, ReplicaRow, Snapshot, SubsystemRow, VolumeRow};
use crate::refusal::{Kind, Refusal};

/// One moment of the cluster.
pub(super) struct View {
    pub(super) rows: Snapshot,
    pub(super) live: BTreeMap<String, LiveNode>,
}

impl Shared {
    /// The cluster now.
    pub(super) async fn view(&self) -> Result<View, ApiError> {
        // Rows first: a node that reports in between is then known to both.
        let rows = self.db.snapshot().await?;
        Ok(View { rows, live: self.live.view() })
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

impl View {
    fn live(&self, node: &str) -> Option<&LiveNode> {
        self.live.get(node)
    }

    fn is_up(&self, node: &str) -> bool {
        self.live(node).is_some_and(|node| node.liveness == NodeLiveness::Up)
    }

    pub(super) fn volumes(&self) -> Vec<Volume> {
        let reports = self.replica_reports();
        let mut replicas: HashMap<Uuid, Vec<&ReplicaRow>> = HashMap::new();
        for row in &self.rows.replicas {
            replicas.entry(row.volume).or_default().push(row);
        }
        let exports: HashMap<Uuid, &NamespaceRow> =
            self.rows.namespaces.iter().map(|row| (row.volume, row)).collect();
        let volume = |row: &VolumeRow| {
            let replicas = replicas.get(&row.uuid).map(Vec::as_slice).unwrap_or_default();
            self.volume(row, replicas, &reports, exports.get(&row.uuid).copied())
        };
        self.rows.volumes.iter().map(volume).collect()
    }

    /// The volume of this name or UUID.
    pub(super) fn find_volume(&self, name: &str) -> Result<Volume, Refusal> {
        let rows = &self.rows.volumes;
        let uuid = name.parse::<Uuid>().ok();
        let row = rows
            .iter()
            .find(|row| row.name == name)
            .or_else(|| rows.iter().find(|row| Some(row.uuid) == uuid))
            .ok_or_else(|| {
                Refusal::not_found(Kind::Volume, name, rows.iter().map(|row| row.name.as_str()))
            })?;
        let replicas: Vec<&ReplicaRow> =
            self.rows.replicas.iter().filter(|replica| replica.volume == row.uuid).collect();
        let export = self.rows.namespaces.iter().find(|namespace| namespace.volume == row.uuid);
        Ok(self.volume(row, &replicas, &self.replica_reports(), export))
    }

    fn volume(
        &self,
        row: &VolumeRow,
        replicas: &[&ReplicaRow],
        reports: &HashMap<Uuid, &VolumeReport>,
        export: Option<&NamespaceRow>,
    ) -> Volume {
        let allocated = replicas.iter().map(|row| Some(reports.get(&row.uuid)?.allocated_bytes));
        let replicas: Vec<Replica> =
            replicas.iter().map(|row| replica(row, reports.get(&row.uuid).copied())).collect();
        Volume {
            uuid: row.uuid,
            name: row.name.clone(),
            size_bytes: row.size_bytes,
            nguid: Nguid(row.nguid.into_bytes()),
            state: self.volume_state(&replicas),
            allocated_bytes: allocated.sum(),
            replicas,
            export: export.map(|row| Export { nqn: row.nqn.clone(), nsid: row.nsid }),
            version: row.version,
            created_ms: row.created_ms,
        }
    }

    fn volume_state(&self, replicas: &[Replica]) -> VolumeState {
        let state = |replica: &Replica| match replica.state {
            _ if !self.is_up(&replica.node) => VolumeState::Unavailable,
            Some(ReplicaState::Ready) => VolumeState::Online,
            Some(ReplicaState::Failed) => VolumeState::Failed,
            Some(ReplicaState::Creating) | None => VolumeState::Pending,
        };
        replicas.first().map_or(VolumeState::Failed, state)
    }

    /// What nodes that are up report of their replicas.
    fn replica_reports(&self) -> HashMap<Uuid, &VolumeReport> {
        let reports = self.live.values().filter_map(LiveNode::current);
        reports.flat_map(|report| &report.volumes).map(|volume| (volume.replica, volume)).collect()
    }

    pub(super) fn disks(&self) -> Vec<Disk> {
        self.rows.disks.iter().map(|row| self.disk(row)).collect()
    }

    fn disk(&self, row: &DiskRow) -> Disk {
        let report = self.live(&row.node).and_then(LiveNode::current);
        let report: Option<&DiskReport> =
            report.and_then(|report| report.disks.iter().find(|disk| disk.uuid == row.uuid));
        Disk {
            uuid: row.uuid,
            node: row.node.clone(),
            kind: if row.kind == "null" { DiskKind::Null } else { DiskKind::Store },
            path: row.path.clone(),
            total_bytes: row.total_bytes,
            free_bytes: report.map(|disk| disk.free_bytes),
            provisioned_bytes: row.provisioned_bytes,
            state: report.map(|disk| disk.state),
            error: report.and_then(|disk| disk.error.clone()),
        }
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        self.rows.nodes.iter().map(|row| self.node(&row.name)).collect()
    }

    pub(super) fn find_node(&self, name: &str) -> Result<Node, Refusal> {
        let known = self.rows.nodes.iter().map(|row| row.name.as_str());
        match known.clone().any(|known| known == name) {
            true => Ok(self.node(name)),
            false => Err(Refusal::not_found(Kind::Node, name, known)),
        }
    }

    fn node(&self, name: &str) -> Node {
        let live = self.live(name);
        let report = live.and_then(|live| live.report.as_deref());
        Node {
            name: name.to_owned(),
            state: live.map_or(NodeLiveness::Unknown, |live| live.liveness),
            applied_revision: report.map(|report| report.applied_revision),
            last_report_ms: live.and_then(|live| live.age).map(millis),
            http: report.and_then(|report| report.http.clone()),
            version: report.map(|report| report.version.clone()),
            portals: self.portals().into_iter().filter(|portal| portal.node == name).collect(),
            disks: self.disks().into_iter().filter(|disk| disk.node == name).collect(),
        }
    }

    pub(super) fn portals(&self) -> Vec<Portal> {
        self.rows.portals.iter().cloned().map(Portal::from).collect()
    }

    pub(super) fn subsystems(&self) -> Vec<Subsystem> {
        self.rows.subsystems.iter().map(|row| self.subsystem(row)).collect()
    }

    pub(super) fn find_subsystem(&self, nqn: &str) -> Result<Subsystem, Refusal> {
        let rows = &self.rows.subsystems;
        let row = rows.iter().find(|row| row.nqn == nqn).ok_or_else(|| {
            Refusal::not_found(Kind::Subsystem, nqn, rows.iter().map(|row| row.nqn.as_str()))
        })?;
        Ok(self.subsystem(row))
    }

    fn subsystem(&self, row: &SubsystemRow) -> Subsystem {
        let access = self.rows.access.iter().filter(|access| access.nqn == row.nqn);
        let namespaces = self.rows.namespaces.iter().filter(|namespace| namespace.nqn == row.nqn);
        Subsystem {
            nqn: row.nqn.clone(),
            serial: row.serial.clone(),
            model: crate::api::MODEL.to_owned(),
            allow_any_host: row.allow_any,
            hosts: access.map(|access| access.host.clone()).collect(),
            namespaces: namespaces.map(namespace).collect(),
            version: row.version,
            created_ms: row.created_ms,
        }
    }
}

fn namespace(row: &NamespaceRow) -> Namespace {
    Namespace {
        nsid: row.nsid,
        volume: row.volume,
        volume_name: row.volume_name.clone(),
        size_bytes: row.size_bytes,
        nguid: Nguid(row.nguid.into_bytes()),
        read_only: row.read_only,
    }
}

fn replica(row: &ReplicaRow, report: Option<&VolumeReport>) -> Replica {
    Replica {
        uuid: row.uuid,
        node: row.node.clone(),
        disk: row.disk,
        state: report.map(|report| report.state),
        error: report.and_then(|report| report.error.clone()),
    }
}
