//! What one node should be doing, as JSON: its part of the [`Plan`](super::plan::Plan).

use std::time::Instant;

use afs_decisions::{BLOCK_BYTES, NodeId, VolumeConfig};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::plan::{Exported, Known, Own, Plan};
use super::{DbError, MetaDb};
use crate::api::{MAX_NSID, MODEL, VolumeAssignment};

impl MetaDb {
    /// The state of a node ([`NodeState`](crate::api::NodeState)) as JSON, or nothing if the node is not known. A node that knows
    /// an earlier one is told what is new ([`StateNews`](crate::api::StateNews)).
    pub async fn node_state(
        &self,
        node: &str,
        known: Option<Known>,
    ) -> Result<Option<String>, DbError> {
        // An old plan of a conductor that was replaced must reach nobody.
        self.checked_since(Instant::now()).await?;
        let known = known.filter(|known| known.source == Some(self.source));
        self.plan().await?.state(node, self.cluster, self.source, known.map(|it| it.revision))
    }
}

#[cfg(test)]
impl MetaDb {
    /// The state of a node from what MetaDB says now, and nothing that is kept in memory.
    pub(super) async fn node_state_anew(&self, node: &str) -> Result<Option<String>, DbError> {
        self.plan_anew().await?.state(node, self.cluster, self.source, None)
    }

    pub(super) async fn snapshot_anew(&self) -> Result<super::Snapshot, DbError> {
        Ok(self.plan_anew().await?.snapshot())
    }

    async fn plan_anew(&self) -> Result<Plan, DbError> {
        let mut view = self.read().await?;
        let base = super::decision::Base::read(&mut view).await?;
        Plan::read(&mut view, super::numbers::narrow(base.revision, "revision")?).await
    }
}

/// [`StateNews`](crate::api::StateNews), field by field.
#[derive(Serialize)]
struct StateView<'a> {
    revision: u64,
    node: &'a str,
    id: NodeId,
    cluster: Uuid,
    source: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    volumes: Option<Vec<VolumeAssignment>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retired: Option<Vec<Uuid>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subsystems: Option<Vec<SubsystemView<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    portals: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leads: Option<Vec<&'a VolumeConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<&'a RawValue>,
}

/// [`SubsystemNews`](crate::api::SubsystemNews).
#[derive(Serialize)]
#[serde(untagged)]
enum SubsystemView<'a> {
    Whole {
        nqn: &'a str,
        serial: &'a str,
        model: &'static str,
        controller_ids: (u16, u16),
        allow_any_host: bool,
        hosts: &'a RawValue,
        namespaces: &'a RawValue,
        max_nsid: u32,
    },
    Unchanged {
        unchanged: &'a str,
    },
}

impl Plan {
    /// The state of a node, or what is new in it after a revision.
    fn state(
        &self,
        node: &str,
        cluster: Uuid,
        source: Uuid,
        after: Option<u64>,
    ) -> Result<Option<String>, DbError> {
        let Some((id, own)) = self.commons.node(node) else { return Ok(None) };
        let after = after.filter(|after| *after <= self.revision);
        let is_new = |changed: u64| after.is_none_or(|after| changed > after);
        let commons = &self.commons;
        let state = StateView {
            revision: self.revision,
            node,
            id,
            cluster,
            source,
            volumes: is_new(own.held_changed).then(|| self.assignments(own)),
            retired: is_new(own.held_changed).then(|| self.retired(own)),
            subsystems: is_new(commons.subsystems_changed()).then(|| self.subsystems(own, is_new)),
            portals: is_new(commons.portals.changed).then_some(&commons.portals.json),
            leads: is_new(own.leads_changed).then(|| self.volumes.led_by(id).collect()),
            peers: is_new(commons.peers.changed).then_some(&commons.peers.json),
        };
        serde_json::to_string(&state).map(Some).map_err(|error| DbError::unwritable(&error))
    }

    /// A subsystem for which the node has no controller ids is left out: it could not be connected to.
    fn subsystems(&self, own: &Own, is_new: impl Fn(u64) -> bool) -> Vec<SubsystemView<'_>> {
        let views = self.commons.subsystems.iter().filter_map(|exported| {
            let controller_ids = *own.ranges.get(&exported.row.nqn)?;
            let Exported { row, hosts, namespaces, .. } = exported;
            if !is_new(namespaces.changed) {
                return Some(SubsystemView::Unchanged { unchanged: &row.nqn });
            }
            Some(SubsystemView::Whole {
                nqn: &row.nqn,
                serial: &row.serial,
                model: MODEL,
                controller_ids,
                allow_any_host: row.allow_any,
                hosts,
                namespaces: &namespaces.json,
                max_nsid: MAX_NSID,
            })
        });
        views.collect()
    }

    fn assignments(&self, own: &Own) -> Vec<VolumeAssignment> {
        let on = |disk: &Uuid| {
            let disk = *disk;
            self.volumes.held_on(disk).map(move |held| (held, disk))
        };
        let mut held: Vec<_> = own.disks.iter().flat_map(on).collect();
        held.sort_unstable();
        let assignment = |((volume, shard, replica), disk)| {
            let planned = self.volumes.get(volume)?;
            let config = &planned.config;
            Some(VolumeAssignment {
                volume,
                replica,
                disk,
                size_bytes: config.blocks_of_shard(shard).saturating_mul(BLOCK_BYTES),
                name: planned.row.name.clone(),
                shard,
                whole: config.members().count() == 1,
            })
        };
        held.into_iter().filter_map(assignment).collect()
    }

    fn retired(&self, own: &Own) -> Vec<Uuid> {
        let mut retired: Vec<Uuid> =
            own.disks.iter().flat_map(|disk| self.volumes.retired_on(*disk)).collect();
        retired.sort_unstable();
        retired
    }
}
