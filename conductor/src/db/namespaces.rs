//! Decisions about namespaces: which volume is which NSID of which subsystem.
//!
//! Hosts identify a disk by (NQN, NSID) and check the volume's ids when they look again. So an
//! NSID keeps its meaning beyond its removal (`CONFORMANCE A-23`): the same volume gets its old
//! NSID back, another one gets an NSID that was never used. Only when all are used up is one
//! taken that was removed more than a week ago.

use uuid::Uuid;

use super::backend::Transaction;
use super::numbers::{narrow, sql};
use super::query::{query, query_as};
use super::volumes::export_of;
use super::{DbError, Decided, MetaDb};
use crate::api::MAX_NSID;
use crate::refusal::{Kind, Refusal};

/// How long hosts are given to forget what an NSID meant: one week.
const FORGET_AFTER_MS: i64 = 7 * 24 * 3600 * 1000;

/// An NSID of one subsystem that is or was in use.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
struct Used {
    nsid: i64,
    volume: Uuid,
    volume_name: String,
    removed_ms: Option<i64>,
}

impl MetaDb {
    /// Exports a volume as a namespace, under this NSID or the next free one. Returns the NSID.
    pub async fn add_namespace(
        &self,
        nqn: &str,
        volume: &str,
        nsid: Option<u32>,
        read_only: bool,
    ) -> Result<Decided<u32>, DbError> {
        if let Some(nsid) = nsid.filter(|nsid| !(1..=MAX_NSID).contains(nsid)) {
            return Err(Refusal::BadNsid { nsid: nsid.into() }.into());
        }
        let mut decision = self.begin().await?;
        let subsystem = super::subsystems::find(decision.connection(), nqn).await?;
        let volume = super::volumes::find(decision.connection(), volume).await?;
        if let Some((nqn, nsid)) = export_of(decision.connection(), volume.uuid).await? {
            return Err(Refusal::AlreadyExported { volume: volume.name, nqn, nsid }.into());
        }
        let used = used(decision.connection(), nqn).await?;
        let nsid = choose(nqn, &used, volume.uuid, nsid.map(i64::from), decision.now_ms)?;
        let added = query(
            "INSERT INTO namespaces (nqn, nsid, volume, read_only) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (nqn, nsid) DO UPDATE SET volume = excluded.volume, \
             read_only = excluded.read_only, removed_ms = NULL \
             WHERE namespaces.removed_ms IS NOT NULL",
        )
        .bind(nqn)
        .bind(nsid)
        .bind(volume.uuid)
        .bind(read_only)
        .execute(decision.connection())
        .await?;
        if added != 1 {
            return Err(Refusal::Collision.into());
        }
        super::subsystems::touch(&mut decision, &subsystem).await?;
        let message = format!("volume {} is namespace {nsid} of {nqn}", volume.name);
        decision.changed("namespace_added", nqn, message);
        decision.commit(narrow(nsid, "NSID")?).await
    }

    /// Stops exporting a namespace. Its volume stays, and so does the memory of what it meant.
    pub async fn remove_namespace(&self, nqn: &str, nsid: u32) -> Result<Decided<()>, DbError> {
        let mut decision = self.begin().await?;
        let subsystem = super::subsystems::find(decision.connection(), nqn).await?;
        let now_ms = decision.now_ms;
        let removed = query(
            "UPDATE namespaces SET removed_ms = $1 \
             WHERE nqn = $2 AND nsid = $3 AND removed_ms IS NULL",
        )
        .bind(now_ms)
        .bind(nqn)
        .bind(sql(nsid))
        .execute(decision.connection())
        .await?;
        if removed != 1 {
            return Err(Refusal::NotFound {
                kind: Kind::Namespace,
                name: nsid.to_string(),
                context: Some(nqn.to_owned()),
                nearest: None,
            }
            .into());
        }
        super::subsystems::touch(&mut decision, &subsystem).await?;
        let message = format!("namespace {nsid} of {nqn} removed");
        decision.changed("namespace_removed", nqn, message);
        decision.commit(()).await
    }
}

async fn used(connection: &mut Transaction, nqn: &str) -> Result<Vec<Used>, DbError> {
    query_as(
        "SELECT n.nsid, n.volume, v.name AS volume_name, n.removed_ms FROM namespaces n \
         JOIN volumes v ON v.uuid = n.volume WHERE n.nqn = $1 ORDER BY n.nsid",
    )
    .bind(nqn)
    .fetch_all(connection)
    .await
}

/// The NSID for a volume. `used` is in ascending order and holds no live row of this volume.
fn choose(
    nqn: &str,
    used: &[Used],
    volume: Uuid,
    wanted: Option<i64>,
    now_ms: i64,
) -> Result<i64, Refusal> {
    match wanted {
        Some(nsid) => check_wanted(nqn, used, volume, nsid, now_ms),
        None => former(used, volume)
            .or_else(|| lowest_fresh(used))
            .or_else(|| longest_forgotten(used, now_ms))
            .ok_or_else(|| Refusal::NsidsExhausted { nqn: nqn.to_owned() }),
    }
}

fn check_wanted(
    nqn: &str,
    used: &[Used],
    volume: Uuid,
    nsid: i64,
    now_ms: i64,
) -> Result<i64, Refusal> {
    let Some(row) = used.iter().find(|row| row.nsid == nsid) else { return Ok(nsid) };
    let (nqn, volume_name) = (nqn.to_owned(), row.volume_name.clone());
    let nsid_shown = u64::try_from(nsid).unwrap_or_default();
    if row.removed_ms.is_none() {
        return Err(Refusal::NsidTaken { nqn, nsid: nsid_shown, volume: volume_name });
    }
    if row.volume == volume || is_forgotten(row, now_ms) {
        return Ok(nsid);
    }
    Err(Refusal::NsidRemembered { nqn, nsid: nsid_shown, volume: volume_name })
}

/// The NSID that hosts know this volume by. The latest, if there are several.
fn former(used: &[Used], volume: Uuid) -> Option<i64> {
    let former = used.iter().filter(|row| row.volume == volume);
    former.max_by_key(|row| row.removed_ms).map(|row| row.nsid)
}

fn lowest_fresh(used: &[Used]) -> Option<i64> {
    let gap = (1..).zip(used).find(|(expected, row)| row.nsid != *expected);
    let fresh = gap.map_or_else(|| sql(used.len()).saturating_add(1), |(expected, _)| expected);
    (fresh <= i64::from(MAX_NSID)).then_some(fresh)
}

fn longest_forgotten(used: &[Used], now_ms: i64) -> Option<i64> {
    let forgotten = used.iter().filter(|row| is_forgotten(row, now_ms));
    forgotten.min_by_key(|row| row.removed_ms).map(|row| row.nsid)
}

fn is_forgotten(row: &Used, now_ms: i64) -> bool {
    row.removed_ms.is_some_and(|removed| now_ms.saturating_sub(removed) > FORGET_AFTER_MS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: i64 = 10 * FORGET_AFTER_MS;

    fn row(nsid: i64, volume: Uuid, removed_ms: Option<i64>) -> Used {
        Used { nsid, volume, volume_name: format!("v{nsid}"), removed_ms }
    }

    fn other() -> Uuid {
        Uuid::from_u128(77)
    }

    #[test]
    fn volume_gets_the_nsid_back_that_hosts_know_it_by() {
        let volume = Uuid::from_u128(1);
        let used =
            [row(1, other(), None), row(3, volume, Some(NOW - 5)), row(4, volume, Some(NOW - 9))];
        assert_eq!(choose("q", &used, volume, None, NOW), Ok(3));
    }

    #[test]
    fn removed_nsid_is_not_given_to_another_volume_while_fresh_ones_are_left() {
        let used = [row(1, other(), Some(0)), row(2, other(), None)];
        assert_eq!(choose("q", &used, Uuid::from_u128(1), None, NOW), Ok(3));
        let gap = [row(2, other(), None)];
        assert_eq!(choose("q", &gap, Uuid::from_u128(1), None, NOW), Ok(1));
    }

    #[test]
    fn asking_for_a_remembered_nsid_is_refused_until_a_week_has_passed() {
        let volume = Uuid::from_u128(1);
        let mut used = [row(5, other(), Some(NOW - FORGET_AFTER_MS))];
        let refused = choose("q", &used, volume, Some(5), NOW).unwrap_err();
        assert!(matches!(refused, Refusal::NsidRemembered { nsid: 5, .. }));
        used[0].removed_ms = Some(NOW - FORGET_AFTER_MS - 1);
        assert_eq!(choose("q", &used, volume, Some(5), NOW), Ok(5));
        used[0].removed_ms = None;
        let refused = choose("q", &used, volume, Some(5), NOW).unwrap_err();
        assert!(matches!(refused, Refusal::NsidTaken { nsid: 5, .. }));
    }

    #[test]
    fn used_up_nsids_come_back_oldest_first_after_a_week_and_else_are_refused() {
        let volume = Uuid::from_u128(1);
        let mut used: Vec<_> =
            (1..=i64::from(MAX_NSID)).map(|nsid| row(nsid, other(), Some(NOW - nsid))).collect();
        assert!(matches!(
            choose("q", &used, volume, None, NOW),
            Err(Refusal::NsidsExhausted { .. })
        ));
        used[9].removed_ms = Some(20);
        used[19].removed_ms = Some(10);
        assert_eq!(choose("q", &used, volume, None, NOW), Ok(20));
    }
}
