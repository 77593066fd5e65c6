//! Decisions about nodes: what their reports add to what the cluster knows.
//!
//! A node is accepted with its first report. What changes all the time (free bytes, progress,
//! liveness) stays in the server's memory; only what other decisions rest on is written.

use std::collections::{BTreeSet, HashMap};

use afs_decisions::NodeId;
use uuid::Uuid;

use super::backend::Transaction;
use super::decision::Decision;
use super::news::Touch;
use super::numbers::{narrow, sql};
use super::query::{query, query_as, query_scalar};
use super::rows::{PeerPortalRow, PortalRow};
use super::{DbError, Decided, MetaDb};
use crate::api::{DiskKind, DiskReport, NodeReport, PortalReport, Severity};
use crate::refusal::Refusal;

/// Highest controller id (`CONFORMANCE F-5`).
const CONTROLLER_ID_MAX: i64 = 0xffef;
/// The first nodes of a subsystem get large ranges, so that ids come round late...
const WIDE: i64 = 1024;
const WIDE_NODES: i64 = 32;
/// ...the others still get enough for their hosts: 1024 nodes in all.
const NARROW: i64 = 33;

impl MetaDb {
    /// Takes in what a node reports. `has` tells whether another node is there and has a disk: one
    /// that two live nodes have is refused, one that another does not have any more has moved.
    pub async fn register(
        &self,
        report: &NodeReport,
        has: impl Fn(&str, Uuid) -> bool,
    ) -> Result<Decided<()>, DbError> {
        let mut decision = self.begin().await?;
        let applied = sql(report.applied_revision);
        decision.seen_elsewhere(applied, &format!("node {}", report.node));
        let id = join(&mut decision, &report.node).await?;
        rack(&mut decision, report).await?;
        portals(&mut decision, report).await?;
        peer_portals(&mut decision, report).await?;
        for disk in &report.disks {
            register_disk(&mut decision, &report.node, id, disk, &has).await?;
        }
        for replica in &report.deleted {
            replica_deleted(&mut decision, &report.node, *replica).await?;
        }
        let promises = promises(&mut decision, report).await?;
        let decided = decision.commit(()).await?;
        self.maker.published.node_promised(&report.node, promises);
        Ok(decided)
    }
}

/// The highest epoch that the node's replicas of each volume promised. One that MetaDB does not know of is told of when it is
/// first seen.
async fn promises(
    decision: &mut Decision,
    report: &NodeReport,
) -> Result<HashMap<Uuid, u64>, DbError> {
    let mut promises = HashMap::new();
    for replica in report.volumes.iter().filter(|replica| replica.promised > 0) {
        let highest = promises.entry(replica.volume).or_insert(0);
        *highest = replica.promised.max(*highest);
    }
    for (&volume, &promised) in &promises {
        if decision.has_promised(&report.node, volume, promised) {
            continue;
        }
        let known: Option<(String, i64)> =
            query_as("SELECT name, epoch FROM volumes WHERE uuid = $1 AND deleted_ms IS NULL")
                .bind(volume)
                .fetch_optional(decision.connection())
                .await?;
        let Some((name, epoch)) = known.filter(|(_, epoch)| *epoch < sql(promised)) else {
            continue;
        };
        let message = format!(
            "MetaDB knows epoch {epoch} of volume {name}, but a replica on node {} promised epoch \
             {promised}: MetaDB is an older copy, and who is in sync since is not known. Nothing is \
             decided about the volume until you say which replica has the newest data: conductor \
             volume force",
            report.node
        );
        decision.volume_went_back(&name, message);
    }
    Ok(promises)
}

#[derive(sqlx::FromRow)]
struct KnownNode {
    id: i64,
    state: String,
}

/// The node's number; a new one when the node is new, or comes back after it was removed.
async fn join(decision: &mut Decision, node: &str) -> Result<NodeId, DbError> {
    let known: Option<KnownNode> = query_as("SELECT id, state FROM nodes WHERE name = $1")
        .bind(node)
        .fetch_optional(decision.connection())
        .await?;
    if let Some(known) = known.filter(|known| known.state != "removed") {
        return Ok(NodeId(narrow(known.id, "number of a node")?));
    }
    let id: i64 = query_scalar(
        "UPDATE settings SET last_node = last_node + 1 WHERE id = 1 RETURNING last_node",
    )
    .fetch_one(decision.connection())
    .await?;
    let now_ms = decision.now_ms;
    query(
        "INSERT INTO nodes (name, created_ms, id) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET id = excluded.id, state = 'active'",
    )
    .bind(node)
    .bind(now_ms)
    .bind(id)
    .execute(decision.connection())
    .await?;
    let nqns: Vec<String> =
        query_scalar("SELECT nqn FROM subsystems").fetch_all(decision.connection()).await?;
    for nqn in nqns {
        give_controller_ids(decision.connection(), &nqn, node).await?;
    }
    decision.changed("node_joined", node, format!("node {node} joined the cluster"));
    Ok(NodeId(narrow(id, "number of a node")?))
}

async fn rack(decision: &mut Decision, report: &NodeReport) -> Result<(), DbError> {
    let NodeReport { node, rack, .. } = report;
    let before: Option<String> = query_scalar("SELECT rack FROM nodes WHERE name = $1")
        .bind(node)
        .fetch_one(decision.connection())
        .await?;
    if before == *rack {
        return Ok(());
    }
    query("UPDATE nodes SET rack = $1 WHERE name = $2")
        .bind(rack.as_deref())
        .bind(node)
        .execute(decision.connection())
        .await?;
    let place = rack.as_deref().unwrap_or("no rack");
    decision.nodes_changed();
    decision.note(Severity::Info, "rack_changed", node, format!("node {node} stands in {place}"));
    Ok(())
}

async fn peer_portals(decision: &mut Decision, report: &NodeReport) -> Result<(), DbError> {
    let node = &report.node;
    let known: Vec<PeerPortalRow> =
        query_as("SELECT node, transport, address, service FROM peer_portals WHERE node = $1")
            .bind(node)
            .fetch_all(decision.connection())
            .await?;
    let reported: BTreeSet<Listener<'_>> = report.peer_portals.iter().map(Listener::from).collect();
    if reported == known.iter().map(Listener::from).collect() {
        return Ok(());
    }
    query("DELETE FROM peer_portals WHERE node = $1")
        .bind(node)
        .execute(decision.connection())
        .await?;
    for listener in &reported {
        query(
            "INSERT INTO peer_portals (node, transport, address, service) VALUES ($1, $2, $3, $4)",
        )
        .bind(node)
        .bind(listener.transport)
        .bind(listener.address)
        .bind(listener.service)
        .execute(decision.connection())
        .await?;
    }
    let list: Vec<String> = reported.iter().map(Listener::to_string).collect();
    let message = format!("nodes reach node {node} at {}", list.join(", "));
    decision.changed("peer_portals_changed", node, message);
    Ok(())
}

/// Gives every node its range of a new subsystem. A subsystem that was there before under the
/// same NQN keeps its ranges.
pub(super) async fn give_controller_ids_to_all_nodes(
    connection: &mut Transaction,
    nqn: &str,
) -> Result<(), DbError> {
    let nodes: Vec<String> = query_scalar(
        "SELECT name FROM nodes WHERE state <> 'removed' AND name NOT IN \
         (SELECT node FROM controller_ranges WHERE nqn = $1) ORDER BY created_ms, name",
    )
    .bind(nqn)
    .fetch_all(connection)
    .await?;
    for node in nodes {
        give_controller_ids(connection, nqn, &node).await?;
    }
    Ok(())
}

async fn give_controller_ids(
    connection: &mut Transaction,
    nqn: &str,
    node: &str,
) -> Result<(), DbError> {
    let given: i64 = query_scalar("SELECT COUNT(*) FROM controller_ranges WHERE nqn = $1")
        .bind(nqn)
        .fetch_one(connection)
        .await?;
    let Some((first, last)) = controller_range(given) else {
        return Err(Refusal::ControllerIdsExhausted { nqn: nqn.to_owned() }.into());
    };
    query(
        "INSERT INTO controller_ranges (nqn, node, first_id, last_id) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (nqn, node) DO NOTHING",
    )
    .bind(nqn)
    .bind(node)
    .bind(first)
    .bind(last)
    .execute(connection)
    .await?;
    Ok(())
}

/// The range of the n-th node of a subsystem, counted from 0.
fn controller_range(n: i64) -> Option<(i64, i64)> {
    let (first, length) = match n {
        ..WIDE_NODES => (1 + n * WIDE, WIDE),
        _ => (1 + WIDE_NODES * WIDE + (n - WIDE_NODES).checked_mul(NARROW)?, NARROW),
    };
    let last = first.checked_add(length - 1)?;
    (last <= CONTROLLER_ID_MAX).then_some((first, last))
}

async fn portals(decision: &mut Decision, report: &NodeReport) -> Result<(), DbError> {
    let node = &report.node;
    let known: Vec<PortalRow> = query_as(
        "SELECT id, node, transport, address, service FROM portals WHERE node = $1 AND active",
    )
    .bind(node)
    .fetch_all(decision.connection())
    .await?;
    let reported: BTreeSet<Listener<'_>> = report.portals.iter().map(Listener::from).collect();
    let known_set: BTreeSet<Listener<'_>> = known.iter().map(Listener::from).collect();
    if reported == known_set {
        return Ok(());
    }
    for portal in known.iter().filter(|row| !reported.contains(&Listener::from(*row))) {
        query("UPDATE portals SET active = FALSE WHERE id = $1")
            .bind(i64::from(portal.id))
            .execute(decision.connection())
            .await?;
    }
    for listener in reported.difference(&known_set) {
        activate(decision, node, *listener).await?;
    }
    let list: Vec<String> = reported.iter().map(Listener::to_string).collect();
    let message = format!("node {node} listens on {}", list.join(", "));
    decision.changed("portals_changed", node, message);
    Ok(())
}

async fn activate(
    decision: &mut Decision,
    node: &str,
    listener: Listener<'_>,
) -> Result<(), DbError> {
    let known = query(
        "UPDATE portals SET active = TRUE \
         WHERE node = $1 AND transport = $2 AND address = $3 AND service = $4",
    )
    .bind(node)
    .bind(listener.transport)
    .bind(listener.address)
    .bind(listener.service)
    .execute(decision.connection())
    .await?;
    if known == 1 {
        return Ok(());
    }
    let id: Option<i64> = query_scalar(
        "UPDATE settings SET last_portal = last_portal + 1 \
         WHERE id = 1 AND last_portal < 65535 RETURNING last_portal",
    )
    .fetch_optional(decision.connection())
    .await?;
    query(
        "INSERT INTO portals (id, node, transport, address, service, active) \
         VALUES ($1, $2, $3, $4, $5, TRUE)",
    )
    .bind(id.ok_or(Refusal::PortalsExhausted)?)
    .bind(node)
    .bind(listener.transport)
    .bind(listener.address)
    .bind(listener.service)
    .execute(decision.connection())
    .await?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Listener<'a> {
    transport: &'a str,
    address: &'a str,
    service: &'a str,
}

impl<'a> From<&'a PortalReport> for Listener<'a> {
    fn from(portal: &'a PortalReport) -> Self {
        let PortalReport { transport, address, service } = portal;
        Self { transport, address, service }
    }
}

impl<'a> From<&'a PortalRow> for Listener<'a> {
    fn from(row: &'a PortalRow) -> Self {
        Self { transport: &row.transport, address: &row.address, service: &row.service }
    }
}

impl<'a> From<&'a PeerPortalRow> for Listener<'a> {
    fn from(row: &'a PeerPortalRow) -> Self {
        Self { transport: &row.transport, address: &row.address, service: &row.service }
    }
}

impl std::fmt::Display for Listener<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { transport, address, service } = self;
        match address.contains(':') {
            true => write!(f, "{transport}://[{address}]:{service}"),
            false => write!(f, "{transport}://{address}:{service}"),
        }
    }
}

#[derive(sqlx::FromRow)]
struct KnownDisk {
    node: String,
    path: String,
    kind: String,
    total_bytes: i64,
}

async fn register_disk(
    decision: &mut Decision,
    node: &str,
    id: NodeId,
    disk: &DiskReport,
    has: impl Fn(&str, Uuid) -> bool,
) -> Result<(), DbError> {
    let known: Option<KnownDisk> =
        query_as("SELECT node, path, kind, total_bytes FROM disks WHERE uuid = $1")
            .bind(disk.uuid)
            .fetch_optional(decision.connection())
            .await?;
    let Some(known) = known else {
        write_disk(decision, node, disk).await?;
        let message = format!("node {node} has a new disk {} ({})", disk.path, disk.uuid);
        decision.changed("disk_added", node, message);
        return Ok(());
    };
    if known.node != node && has(&known.node, disk.uuid) {
        let reason = format!(
            "its disk {} has the identity {} of disk {} on node {}; is one a copy of the other?",
            disk.path, disk.uuid, known.path, known.node
        );
        return Err(Refusal::BadReport { node: node.to_owned(), reason }.into());
    }
    // A disk that could not be opened does not know its size; that is no news about its size.
    let same_size = known.total_bytes == sql(disk.total_bytes) || disk.total_bytes == 0;
    let same_place = known.node == node && known.path == disk.path;
    if same_place && same_size && known.kind == kind_word(disk.kind) {
        return Ok(());
    }
    write_disk(decision, node, disk).await?;
    super::replication::disk_moved(decision, disk.uuid, id).await?;
    let message = format!(
        "disk {} was {} on node {}, is now {} on node {node}",
        disk.uuid, known.path, known.node, disk.path
    );
    decision.changed("disk_changed", node, message);
    Ok(())
}

async fn write_disk(decision: &mut Decision, node: &str, disk: &DiskReport) -> Result<(), DbError> {
    query(
        "INSERT INTO disks (uuid, node, kind, path, total_bytes) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (uuid) DO UPDATE SET node = excluded.node, kind = excluded.kind, \
         path = excluded.path, total_bytes = excluded.total_bytes",
    )
    .bind(disk.uuid)
    .bind(node)
    .bind(kind_word(disk.kind))
    .bind(&disk.path)
    .bind(sql(disk.total_bytes))
    .execute(decision.connection())
    .await?;
    Ok(())
}

async fn replica_deleted(
    decision: &mut Decision,
    node: &str,
    replica: Uuid,
) -> Result<(), DbError> {
    let updated = query(
        "UPDATE replicas SET state = 'deleted' WHERE uuid = $1 AND state = 'retired' \
         AND disk IN (SELECT uuid FROM disks WHERE node = $2)",
    )
    .bind(replica)
    .bind(node)
    .execute(decision.connection())
    .await?;
    if updated == 1 {
        decision.touch(Touch::Forgotten(replica));
        decision.volume_changed(
            "replica_deleted",
            node,
            format!("node {node} deleted replica {replica}"),
        );
    }
    Ok(())
}

/// How MetaDB writes a disk's kind.
pub(crate) fn kind_word(kind: DiskKind) -> &'static str {
    match kind {
        DiskKind::Store => "store",
        DiskKind::Null => "null",
    }
}

#[cfg(test)]
mod range_tests {
    use super::*;

    #[test]
    fn controller_id_ranges_of_1024_nodes_are_disjoint_and_legal() {
        let mut next = 1;
        for n in 0..1024 {
            let (first, last) = controller_range(n).unwrap_or_default();
            assert_eq!(first, next, "node {n}");
            assert!(last > first && last <= CONTROLLER_ID_MAX, "node {n}");
            next = last + 1;
        }
        assert_eq!(controller_range(1025), None);
    }
}
