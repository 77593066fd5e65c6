//! What operators see: MetaDB's rows joined with what nodes last reported.

use std::collections::{BTreeMap, HashMap};

use afs_decisions::{BLOCK_BYTES, NodeId, Role, VolumeConfig};
use uuid::Uuid;

use super::live::LiveNode;
use super::{Shared, answer::ApiError};
use crate::api::{
    Disk, DiskKind, DiskReport, Export, Namespace, Nguid, Node, NodeLiveness, Portal, Replica,
    ReplicaState, Resync, ResyncReport, Subsystem, Volume, VolumeReport, VolumeState,
};
use crate::db::{DiskRow, NamespaceRow, NodeRow, ReplicaRow, Snapshot, SubsystemRow, VolumeRow};
use crate::refusal::{Kind, Refusal};

/// One moment of the cluster.
pub(super) struct View {
    pub(super) rows: Snapshot,
    pub(super) live: BTreeMap<String, LiveNode>,
    names: HashMap<NodeId, String>,
}

impl Shared {
    /// The cluster now.
    pub(super) async fn view(&self) -> Result<View, ApiError> {
        // Rows first: a node that reports in between is then known to both.
        let rows = self.db.snapshot().await?;
        let names = rows.nodes.iter().map(|row| (NodeId(row.id), row.name.clone())).collect();
        Ok(View { rows, live: self.live.view(), names })
    }
}

pub(super) fn millis(duration: std::time::Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

impl View {
    fn live(&self, node: &str) -> Option<&LiveNode> {
        self.live.get(node)
    }

    fn is_up(&self, node: &str) -> bool {
        self.live(node).is_some_and(|node| node.liveness == NodeLiveness::Up)
    }

    /// The name of a node by its number.
    pub(super) fn node_name(&self, id: NodeId) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    pub(super) fn volumes(&self) -> Vec<Volume> {
        let reports = self.reports();
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
        Ok(self.volume(row, &replicas, &self.reports(), export))
    }

    fn volume(
        &self,
        row: &VolumeRow,
        replicas: &[&ReplicaRow],
        reports: &Reports<'_>,
        export: Option<&NamespaceRow>,
    ) -> Volume {
        let config = self.rows.configs.get(&row.uuid);
        let allocated =
            replicas.iter().map(|row| Some(reports.replicas.get(&row.uuid)?.allocated_bytes));
        let allocated_bytes = allocated.sum();
        let replicas: Vec<Replica> =
            replicas.iter().map(|row| self.replica(row, config, reports)).collect();
        let shards = config.map_or(0, |config| config.shards.len());
        let shard_bytes =
            config.map_or(0, |config| config.shard_blocks.saturating_mul(BLOCK_BYTES));
        Volume {
            uuid: row.uuid,
            name: row.name.clone(),
            size_bytes: row.size_bytes,
            nguid: Nguid(row.nguid.into_bytes()),
            state: self.volume_state(&replicas, config),
            allocated_bytes,
            leader: config
                .and_then(|config| config.leader)
                .and_then(|leader| self.node_name(leader))
                .map(str::to_owned),
            claimed: config.is_some_and(|config| config.leader_process != 0),
            epoch: config.map_or(0, |config| config.epoch),
            copies: row.copies,
            min_in_sync: config.map_or(0, |config| config.min_in_sync),
            shard_bytes: shard_bytes.min(row.size_bytes),
            shards: u32::try_from(shards).unwrap_or(u32::MAX),
            replicas,
            export: export.map(|row| Export { nqn: row.nqn.clone(), nsid: row.nsid }),
            version: row.version,
            created_ms: row.created_ms,
        }
    }

    fn replica(
        &self,
        row: &ReplicaRow,
        config: Option<&VolumeConfig>,
        reports: &Reports<'_>,
    ) -> Replica {
        let report = reports.replicas.get(&row.uuid);
        let shard = usize::try_from(row.shard).unwrap_or(usize::MAX);
        let shard = config.and_then(|config| config.shards.get(shard));
        let member = shard.and_then(|shard| shard.member(row.uuid));
        let holder = member.and_then(|member| self.node_name(member.node));
        let mut replica = Replica {
            uuid: row.uuid,
            shard: row.shard,
            in_sync: member.is_some_and(|member| member.role == Role::InSync),
            resync: reports.resyncs.get(&row.uuid).map(|report| resync(report)),
            node: row.node.clone(),
            disk: row.disk,
            state: report.map(|report| report.state),
            error: report.and_then(|report| report.error.clone()),
        };
        if let Some(holder) = holder.filter(|holder| *holder != row.node) {
            replica.state = Some(ReplicaState::Failed);
            replica.error = Some(format!(
                "its disk is in node {}, which holds another replica of the shard; put it back into node {holder}",
                row.node
            ));
        }
        replica
    }

    /// A volume is as bad as its worst shard.
    fn volume_state(&self, replicas: &[Replica], config: Option<&VolumeConfig>) -> VolumeState {
        let min = config.map_or(1, |config| usize::from(config.min_in_sync));
        let shards = replicas.chunk_by(|a, b| a.shard == b.shard);
        let states = shards.map(|shard| self.shard_state(shard, min));
        states.max_by_key(|state| badness(*state)).unwrap_or(VolumeState::Failed)
    }

    fn shard_state(&self, replicas: &[Replica], min: usize) -> VolumeState {
        let state = |replica: &Replica| match replica.state {
            _ if !self.is_up(&replica.node) => VolumeState::Unavailable,
            Some(ReplicaState::Ready) => VolumeState::Online,
            Some(ReplicaState::Failed) => VolumeState::Failed,
            Some(ReplicaState::Creating) | None => VolumeState::Pending,
        };
        if let [alone] = replicas {
            return state(alone);
        }
        let is_good = |replica: &&Replica| replica.in_sync && state(replica) == VolumeState::Online;
        match replicas.iter().filter(is_good).count() {
            good if good == replicas.len() => VolumeState::Online,
            good if good >= min => VolumeState::Degraded,
            _ if replicas.iter().any(|replica| state(replica) == VolumeState::Pending) => {
                VolumeState::Pending
            }
            _ => VolumeState::Stalled,
        }
    }

    /// What nodes that are up report.
    fn reports(&self) -> Reports<'_> {
        let reports = || self.live.values().filter_map(LiveNode::current);
        let replicas = reports().flat_map(|report| &report.volumes);
        let resyncs = reports().flat_map(|report| &report.resyncs);
        Reports {
            replicas: replicas.map(|volume| (volume.replica, volume)).collect(),
            resyncs: resyncs.map(|resync| (resync.replica, resync)).collect(),
        }
    }

    pub(super) fn disks(&self) -> Vec<Disk> {
        let mut replicas: HashMap<Uuid, u32> = HashMap::new();
        for row in &self.rows.replicas {
            *replicas.entry(row.disk).or_default() += 1;
        }
        let count = |row: &DiskRow| replicas.get(&row.uuid).copied().unwrap_or(0);
        self.rows.disks.iter().map(|row| self.disk(row, count(row))).collect()
    }

    fn disk(&self, row: &DiskRow, replicas: u32) -> Disk {
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
            retired: row.retired,
            replicas,
            state: report.map(|disk| disk.state),
            error: report.and_then(|disk| disk.error.clone()),
        }
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        let loads = &self.rows.loads;
        let mut disks: HashMap<String, Vec<Disk>> = HashMap::new();
        for disk in self.disks() {
            disks.entry(disk.node.clone()).or_default().push(disk);
        }
        let node = |row: &NodeRow| {
            let disks = disks.remove(&row.name).unwrap_or_default();
            self.node(row, disks, loads.get(&NodeId(row.id)).copied().unwrap_or_default())
        };
        self.rows.nodes.iter().map(node).collect()
    }

    pub(super) fn find_node(&self, name: &str) -> Result<Node, Refusal> {
        let known = self.rows.nodes.iter().map(|row| row.name.as_str());
        let node = self.nodes().into_iter().find(|node| node.name == name);
        node.ok_or_else(|| Refusal::not_found(Kind::Node, name, known))
    }

    fn node(&self, row: &NodeRow, disks: Vec<Disk>, (leads, replicas): (u32, u32)) -> Node {
        let name = row.name.as_str();
        let live = self.live(name);
        let report = live.and_then(|live| live.report.as_deref());
        let unreachable = live.and_then(LiveNode::current).into_iter();
        let unreachable = unreachable.flat_map(|report| &report.unreachable);
        Node {
            name: name.to_owned(),
            id: row.id,
            rack: row.rack.clone(),
            draining: row.state == "draining",
            leads,
            replicas,
            unreachable: unreachable
                .map(|id| self.node_name(*id).map_or_else(|| id.to_string(), str::to_owned))
                .collect(),
            state: live.map_or(NodeLiveness::Unknown, |live| live.liveness),
            applied_revision: report.map(|report| report.applied_revision),
            last_report_ms: live.and_then(|live| live.age).map(millis),
            http: report.and_then(|report| report.http.clone()),
            version: report.map(|report| report.version.clone()),
            portals: self.portals().into_iter().filter(|portal| portal.node == name).collect(),
            disks,
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

fn resync(report: &ResyncReport) -> Resync {
    let ResyncReport { total_bytes, left_bytes, bytes_per_second, .. } = *report;
    let left_seconds = left_bytes.checked_div(bytes_per_second);
    Resync { total_bytes, left_bytes, left_seconds }
}

/// What nodes that are up report of replicas, by replica.
struct Reports<'a> {
    replicas: HashMap<Uuid, &'a VolumeReport>,
    resyncs: HashMap<Uuid, &'a ResyncReport>,
}

fn badness(state: VolumeState) -> u8 {
    match state {
        VolumeState::Online => 0,
        VolumeState::Degraded => 1,
        VolumeState::Pending => 2,
        VolumeState::Stalled => 3,
        VolumeState::Unavailable => 4,
        VolumeState::Failed => 5,
    }
}
