//! Decisions about subsystems and the hosts that may use them.

use uuid::Uuid;

use super::backend::Transaction;
use super::decision::Decision;
use super::numbers::sql;
use super::query::{query, query_as, query_scalar};
use super::{DbError, Decided, MetaDb, SubsystemRow};
use crate::names::{ANY_HOST, check_nqn, nearest};
use crate::refusal::{Kind, Refusal};

impl MetaDb {
    /// Makes a subsystem that no host may use yet.
    pub async fn create_subsystem(&self, nqn: &str) -> Result<Decided<()>, DbError> {
        check(nqn)?;
        let mut decision = self.begin().await?;
        if by_nqn(decision.connection(), nqn).await?.is_some() {
            return Err(Refusal::Exists { kind: Kind::Subsystem, name: nqn.to_owned() }.into());
        }
        let now_ms = decision.now_ms;
        query(
            "INSERT INTO subsystems (nqn, serial, allow_any, version, created_ms) \
             VALUES ($1, $2, FALSE, 1, $3)",
        )
        .bind(nqn)
        .bind(new_serial())
        .bind(now_ms)
        .execute(decision.connection())
        .await?;
        super::nodes::give_controller_ids_to_all_nodes(decision.connection(), nqn).await?;
        decision.changed("subsystem_created", nqn, format!("subsystem {nqn} made"));
        decision.commit(()).await
    }

    /// Deletes a subsystem that has no namespaces. What its NSIDs and controller ids meant is
    /// remembered, because hosts do so too.
    pub async fn delete_subsystem(
        &self,
        nqn: &str,
        version: Option<u64>,
    ) -> Result<Decided<()>, DbError> {
        let mut decision = self.begin().await?;
        let subsystem = find(decision.connection(), nqn).await?;
        if version.is_some_and(|version| version != subsystem.version) {
            return Err(changed(nqn).into());
        }
        let count: i64 =
            query_scalar("SELECT COUNT(*) FROM namespaces WHERE nqn = $1 AND removed_ms IS NULL")
                .bind(nqn)
                .fetch_one(decision.connection())
                .await?;
        if count > 0 {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            return Err(Refusal::HasNamespaces { nqn: nqn.to_owned(), count }.into());
        }
        query("DELETE FROM access WHERE nqn = $1").bind(nqn).execute(decision.connection()).await?;
        let deleted = query("DELETE FROM subsystems WHERE nqn = $1 AND version = $2")
            .bind(nqn)
            .bind(sql(subsystem.version))
            .execute(decision.connection())
            .await?;
        if deleted != 1 {
            return Err(changed(nqn).into());
        }
        decision.changed("subsystem_deleted", nqn, format!("subsystem {nqn} deleted"));
        decision.commit(()).await
    }

    /// Lets a host, or any host, use a subsystem. What is allowed already stays so.
    pub async fn allow_host(&self, nqn: &str, host: &str) -> Result<Decided<()>, DbError> {
        if host != ANY_HOST {
            check(host)?;
        }
        let mut decision = self.begin().await?;
        let subsystem = find(decision.connection(), nqn).await?;
        let changed = if host == ANY_HOST {
            set_allow_any(decision.connection(), &subsystem, true).await?
        } else {
            let inserted =
                query("INSERT INTO access (nqn, host) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                    .bind(nqn)
                    .bind(host)
                    .execute(decision.connection())
                    .await?;
            inserted == 1
        };
        if changed {
            touch(&mut decision, &subsystem).await?;
            decision.changed("host_allowed", nqn, format!("{host} may use {nqn}"));
        }
        decision.commit(()).await
    }

    /// Takes a host, or the leave for any host, off a subsystem's list.
    pub async fn deny_host(&self, nqn: &str, host: &str) -> Result<Decided<()>, DbError> {
        let mut decision = self.begin().await?;
        let subsystem = find(decision.connection(), nqn).await?;
        let changed = if host == ANY_HOST {
            set_allow_any(decision.connection(), &subsystem, false).await?
        } else {
            remove_host(decision.connection(), &subsystem, host).await?;
            true
        };
        if changed {
            touch(&mut decision, &subsystem).await?;
            decision.changed("host_denied", nqn, format!("{host} may no longer use {nqn}"));
        }
        decision.commit(()).await
    }
}

fn check(nqn: &str) -> Result<(), Refusal> {
    check_nqn(nqn).map_err(|fault| Refusal::BadNqn { nqn: shorten(nqn), fault })
}

/// A refused NQN may be megabytes long; the answer is not.
fn shorten(nqn: &str) -> String {
    match nqn.char_indices().nth(crate::names::MAX_NQN_BYTES) {
        Some((end, _)) => format!("{}...", nqn.get(..end).unwrap_or_default()),
        None => nqn.to_owned(),
    }
}

/// 19 ASCII characters (SN takes 20), unique by 64 random bits and by the schema.
fn new_serial() -> String {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    let (_, low) = Uuid::new_v4().as_u64_pair();
    format!("AFS{:016X}", high ^ low.rotate_left(32))
}

fn changed(nqn: &str) -> Refusal {
    Refusal::Changed { kind: Kind::Subsystem, name: nqn.to_owned() }
}

async fn set_allow_any(
    connection: &mut Transaction,
    subsystem: &SubsystemRow,
    allow: bool,
) -> Result<bool, DbError> {
    let updated = query("UPDATE subsystems SET allow_any = $1 WHERE nqn = $2 AND allow_any <> $1")
        .bind(allow)
        .bind(&subsystem.nqn)
        .execute(connection)
        .await?;
    Ok(updated == 1)
}

async fn remove_host(
    connection: &mut Transaction,
    subsystem: &SubsystemRow,
    host: &str,
) -> Result<(), DbError> {
    let nqn = &subsystem.nqn;
    let deleted = query("DELETE FROM access WHERE nqn = $1 AND host = $2")
        .bind(nqn)
        .bind(host)
        .execute(connection)
        .await?;
    if deleted == 1 {
        return Ok(());
    }
    if subsystem.allow_any {
        return Err(Refusal::AnyHostAllowed { nqn: nqn.clone(), host: host.to_owned() }.into());
    }
    let known: Vec<String> = query_scalar("SELECT host FROM access WHERE nqn = $1")
        .bind(nqn)
        .fetch_all(connection)
        .await?;
    Err(Refusal::NotFound {
        kind: Kind::Host,
        name: host.to_owned(),
        context: Some(nqn.clone()),
        nearest: nearest(host, known.iter().map(String::as_str)).map(str::to_owned),
    }
    .into())
}

/// Raises a subsystem's version, if it is still the one that the decision read.
pub(super) async fn touch(
    decision: &mut Decision,
    subsystem: &SubsystemRow,
) -> Result<(), DbError> {
    let updated =
        query("UPDATE subsystems SET version = version + 1 WHERE nqn = $1 AND version = $2")
            .bind(&subsystem.nqn)
            .bind(sql(subsystem.version))
            .execute(decision.connection())
            .await?;
    if updated == 1 { Ok(()) } else { Err(changed(&subsystem.nqn).into()) }
}

async fn by_nqn(connection: &mut Transaction, nqn: &str) -> Result<Option<SubsystemRow>, DbError> {
    query_as("SELECT nqn, serial, allow_any, version, created_ms FROM subsystems WHERE nqn = $1")
        .bind(nqn)
        .fetch_optional(connection)
        .await
}

/// The subsystem of this NQN.
pub(super) async fn find(connection: &mut Transaction, nqn: &str) -> Result<SubsystemRow, DbError> {
    if let Some(subsystem) = by_nqn(connection, nqn).await? {
        return Ok(subsystem);
    }
    let known: Vec<String> =
        query_scalar("SELECT nqn FROM subsystems").fetch_all(connection).await?;
    let known = known.iter().map(String::as_str);
    Err(Refusal::not_found(Kind::Subsystem, &shorten(nqn), known).into())
}
