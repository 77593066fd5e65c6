//! What the conductor believes about nodes, for `afs-decisions`: their sessions (today: whether
//! they report), what they say of each other, what they have to do, their disks.

use std::collections::BTreeMap;

use afs_decisions::{ClusterView, DiskView, NodeId, NodeState, NodeView};

use super::live::LiveNode;
use super::view::View;
use super::{Shared, answer::ApiError};
use crate::api::{Disk, DiskKind, DiskState, NodeLiveness};
use crate::db::{DbError, NodeRow};

/// The moment of a view. Only ages matter.
const NOW_MS: u64 = 1 << 40;

impl Shared {
    /// Who is there, and who says what of whom: enough to judge an accuser.
    pub(super) async fn beliefs(&self) -> Result<ClusterView, DbError> {
        let nodes = self.db.nodes().await?;
        Ok(self.believed(&nodes, &self.live.view()))
    }

    /// The same with what each node has to do: enough for elections.
    pub(super) async fn beliefs_with_loads(&self) -> Result<ClusterView, DbError> {
        let mut view = self.beliefs().await?;
        for (id, load) in self.db.loads().await? {
            let Some(mut node) = view.node(id).cloned() else { continue };
            (node.leads, node.replicas) = load;
            view.set_node(id, node);
        }
        Ok(view)
    }

    /// All of it, with disks: enough to place replicas.
    pub(super) async fn view_and_beliefs(&self) -> Result<(View, ClusterView), ApiError> {
        let view = self.view().await?;
        let mut beliefs = self.believed(&view.rows.nodes, &view.live);
        let mut disks: BTreeMap<String, Vec<DiskView>> = BTreeMap::new();
        for disk in view.disks() {
            disks.entry(disk.node.clone()).or_default().push(disk_view(&disk));
        }
        let loads = &view.rows.loads;
        for row in &view.rows.nodes {
            let id = NodeId(row.id);
            let Some(mut node) = beliefs.node(id).cloned() else { continue };
            node.disks = disks.remove(&row.name).unwrap_or_default();
            (node.leads, node.replicas) = loads.get(&id).copied().unwrap_or_default();
            beliefs.set_node(id, node);
        }
        Ok((view, beliefs))
    }

    fn believed(&self, nodes: &[NodeRow], live: &BTreeMap<String, LiveNode>) -> ClusterView {
        let mut view = ClusterView::new(NOW_MS);
        for row in nodes {
            view.set_node(NodeId(row.id), node_view(row, live.get(&row.name)));
        }
        for row in nodes {
            let Some(node) = live.get(&row.name) else { continue };
            let Some(report) = node.current() else { continue };
            let age_ms = node.age.map_or(0, super::view::millis);
            for peer in &report.unreachable {
                view.add_unreachable_at(NodeId(row.id), *peer, NOW_MS.saturating_sub(age_ms));
            }
        }
        for (accuser, accused, age) in self.live.accusations() {
            let at_ms = NOW_MS.saturating_sub(super::view::millis(age));
            view.add_unreachable_at(accuser, accused, at_ms);
        }
        view
    }
}

fn node_view(row: &NodeRow, live: Option<&LiveNode>) -> NodeView {
    NodeView {
        // A node that had no time yet to say that it is there is not taken for dead.
        alive: live.is_some_and(|live| live.liveness != NodeLiveness::Down),
        state: if row.state == "draining" { NodeState::Draining } else { NodeState::Active },
        rack: row.rack.clone(),
        ..NodeView::default()
    }
}

fn disk_view(disk: &Disk) -> DiskView {
    DiskView {
        disk: disk.uuid,
        usable: disk.state == Some(DiskState::Online) && !disk.retired,
        keeps_data: disk.kind == DiskKind::Store,
        total_bytes: disk.total_bytes,
        free_bytes: disk.free_bytes.unwrap_or(0),
        provisioned_bytes: disk.provisioned_bytes,
    }
}
