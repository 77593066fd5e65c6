//! The operator's decisions about nodes and disks: emptying them, and letting them go.

use uuid::Uuid;

use super::backend::Transaction;
use super::query::{query, query_as, query_scalar};
use super::{DbError, Decided, MetaDb};
use crate::refusal::{Kind, Refusal};

impl MetaDb {
    /// Empties a node (`draining`) or lets it take part again.
    pub async fn set_draining(&self, node: &str, draining: bool) -> Result<Decided<()>, DbError> {
        let mut decision = self.begin().await?;
        find_node(decision.connection(), node).await?;
        let state = if draining { "draining" } else { "active" };
        let updated = query("UPDATE nodes SET state = $1 WHERE name = $2 AND state <> $1")
            .bind(state)
            .bind(node)
            .execute(decision.connection())
            .await?;
        if updated == 1 {
            let (kind, message) = match draining {
                true => ("node_draining", format!("node {node} is being emptied")),
                false => ("node_resumed", format!("node {node} takes part again")),
            };
            decision.changed(kind, node, message);
        }
        decision.commit(()).await
    }

    /// Forgets a node that holds nothing any more. Its number is never given again.
    pub async fn remove_node(&self, node: &str) -> Result<Decided<()>, DbError> {
        let mut decision = self.begin().await?;
        let id = find_node(decision.connection(), node).await?;
        let holds = count(
            decision.connection(),
            "SELECT COUNT(*) FROM replicas WHERE node = $1 AND state = 'wanted'",
            id,
        )
        .await?;
        let leads = count(
            decision.connection(),
            "SELECT COUNT(*) FROM volumes WHERE leader = $1 AND deleted_ms IS NULL",
            id,
        )
        .await?;
        if holds > 0 || leads > 0 {
            return Err(Refusal::NodeInUse { node: node.to_owned(), holds, leads }.into());
        }
        for statement in [
            "UPDATE nodes SET state = 'removed' WHERE name = $1",
            "UPDATE portals SET active = FALSE WHERE node = $1",
            "DELETE FROM peer_portals WHERE node = $1",
        ] {
            query(statement).bind(node).execute(decision.connection()).await?;
        }
        decision.changed("node_removed", node, format!("node {node} left the cluster"));
        decision.commit(()).await
    }

    /// Whether a disk is being emptied.
    pub async fn any_disk_retired(&self) -> Result<bool, DbError> {
        let mut view = self.read().await?;
        let retired: i64 =
            query_scalar("SELECT COUNT(*) FROM disks WHERE retired").fetch_one(&mut view).await?;
        Ok(retired > 0)
    }

    /// Empties a disk, or lets it be used again.
    pub async fn set_disk_retired(
        &self,
        disk: Uuid,
        retired: bool,
    ) -> Result<Decided<()>, DbError> {
        let mut decision = self.begin().await?;
        let known: Option<(String, String, bool)> =
            query_as("SELECT node, path, retired FROM disks WHERE uuid = $1")
                .bind(disk)
                .fetch_optional(decision.connection())
                .await?;
        let Some((node, path, before)) = known else {
            return Err(Refusal::not_found(Kind::Disk, &disk.to_string(), []).into());
        };
        if before != retired {
            query("UPDATE disks SET retired = $1 WHERE uuid = $2")
                .bind(retired)
                .bind(disk)
                .execute(decision.connection())
                .await?;
            let (kind, message) = match retired {
                true => ("disk_retired", format!("disk {path} of node {node} is being emptied")),
                false => ("disk_restored", format!("disk {path} of node {node} is used again")),
            };
            decision.changed(kind, &node, message);
        }
        decision.commit(()).await
    }
}

async fn find_node(connection: &mut Transaction, node: &str) -> Result<i64, DbError> {
    let id = query_scalar("SELECT id FROM nodes WHERE name = $1 AND state <> 'removed'")
        .bind(node)
        .fetch_optional(connection)
        .await?;
    if let Some(id) = id {
        return Ok(id);
    }
    let known: Vec<String> = query_scalar("SELECT name FROM nodes WHERE state <> 'removed'")
        .fetch_all(connection)
        .await?;
    Err(Refusal::not_found(Kind::Node, node, known.iter().map(String::as_str)).into())
}

async fn count(
    connection: &mut Transaction,
    statement: &'static str,
    node: i64,
) -> Result<u64, DbError> {
    let count: i64 = query_scalar(statement).bind(node).fetch_one(connection).await?;
    super::numbers::narrow(count, "count")
}
