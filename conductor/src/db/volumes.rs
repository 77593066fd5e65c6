//! Decisions about volumes.

use uuid::Uuid;

use super::backend::Transaction;
use super::numbers::sql;
use super::query::{query, query_as, query_scalar};
use super::{DbError, Decided, MetaDb, VolumeRow};
use crate::names;
use crate::refusal::{Kind, Refusal};
use crate::size::{MAX_VOLUME_BYTES, human, round_up};

impl MetaDb {
    /// Whether a volume of this name and size could be made, as far as MetaDB knows now.
    pub async fn check_new_volume(&self, name: &str, size_bytes: u64) -> Result<(), DbError> {
        check_name(name)?;
        check_size(size_bytes)?;
        let mut view = self.read().await?;
        refuse_taken(&mut view, name).await
    }

    /// Makes a volume with one replica on this disk.
    ///
    /// `size_bytes` is rounded up to whole blocks. The node's part comes later: the decision is
    /// what the node's next state will say.
    pub async fn create_volume(
        &self,
        name: &str,
        size_bytes: u64,
        disk: Uuid,
    ) -> Result<Decided<Uuid>, DbError> {
        check_name(name)?;
        let size_bytes = check_size(size_bytes)?;
        let mut decision = self.begin().await?;
        refuse_taken(decision.connection(), name).await?;
        // One identity for UUID and NGUID: a person who sees either on a host finds the volume.
        let uuid = Uuid::new_v4();
        query(
            "INSERT INTO volumes (uuid, name, size_bytes, nguid, version, created_ms) \
             VALUES ($1, $2, $3, $4, 1, $5)",
        )
        .bind(uuid)
        .bind(name)
        .bind(sql(size_bytes))
        .bind(uuid)
        .bind(decision.now_ms)
        .execute(decision.connection())
        .await?;
        add_replica(decision.connection(), uuid, disk).await?;
        let message = format!("volume {name} ({}) made on disk {disk}", human(size_bytes));
        decision.changed("volume_created", name, message);
        decision.commit(uuid).await
    }

    /// Makes a volume larger. The same size is fine and changes nothing.
    pub async fn resize_volume(
        &self,
        name: &str,
        size_bytes: u64,
        version: Option<u64>,
    ) -> Result<Decided<Uuid>, DbError> {
        let size_bytes = check_size(size_bytes)?;
        let mut decision = self.begin().await?;
        let volume = find(decision.connection(), name).await?;
        check_version(&volume, version)?;
        if size_bytes < volume.size_bytes {
            let (name, from) = (volume.name, volume.size_bytes);
            return Err(Refusal::Shrink { name, from, to: size_bytes }.into());
        }
        if size_bytes > volume.size_bytes {
            let updated = query(
                "UPDATE volumes SET size_bytes = $1, version = version + 1 \
                 WHERE uuid = $2 AND version = $3 AND deleted_ms IS NULL",
            )
            .bind(sql(size_bytes))
            .bind(volume.uuid)
            .bind(sql(volume.version))
            .execute(decision.connection())
            .await?;
            check_swapped(updated, &volume)?;
            let (old, new) = (human(volume.size_bytes), human(size_bytes));
            let message = format!("volume {} grew from {old} to {new}", volume.name);
            decision.changed("volume_resized", &volume.name, message);
        }
        decision.commit(volume.uuid).await
    }

    /// Deletes a volume that is not exported; its replicas are retired.
    pub async fn delete_volume(
        &self,
        name: &str,
        version: Option<u64>,
    ) -> Result<Decided<Uuid>, DbError> {
        let mut decision = self.begin().await?;
        let volume = find(decision.connection(), name).await?;
        check_version(&volume, version)?;
        if let Some((nqn, nsid)) = export_of(decision.connection(), volume.uuid).await? {
            return Err(Refusal::Exported { volume: volume.name, nqn, nsid }.into());
        }
        let now_ms = decision.now_ms;
        let updated = query(
            "UPDATE volumes SET deleted_ms = $1, version = version + 1 \
             WHERE uuid = $2 AND version = $3 AND deleted_ms IS NULL",
        )
        .bind(now_ms)
        .bind(volume.uuid)
        .bind(sql(volume.version))
        .execute(decision.connection())
        .await?;
        check_swapped(updated, &volume)?;
        query("UPDATE replicas SET state = 'retired' WHERE volume = $1 AND state = 'wanted'")
            .bind(volume.uuid)
            .execute(decision.connection())
            .await?;
        let message = format!("volume {} ({}) deleted", volume.name, volume.uuid);
        decision.changed("volume_deleted", &volume.name, message);
        decision.commit(volume.uuid).await
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if names::is_name(name) {
        return Ok(());
    }
    // A refused name may be long; the answer is not.
    Err(Refusal::BadName { kind: Kind::Volume, name: name.chars().take(80).collect() })
}

async fn refuse_taken(connection: &mut Transaction, name: &str) -> Result<(), DbError> {
    match by_name(connection, name).await? {
        Some(_) => Err(Refusal::Exists { kind: Kind::Volume, name: name.to_owned() }.into()),
        None => Ok(()),
    }
}

fn check_size(size_bytes: u64) -> Result<u64, Refusal> {
    match size_bytes {
        0 => Err(Refusal::SizeZero),
        1..=MAX_VOLUME_BYTES => Ok(round_up(size_bytes)),
        bytes => Err(Refusal::SizeTooLarge { bytes }),
    }
}

fn check_version(volume: &VolumeRow, version: Option<u64>) -> Result<(), Refusal> {
    if version.is_some_and(|version| version != volume.version) {
        return Err(Refusal::Changed { kind: Kind::Volume, name: volume.name.clone() });
    }
    Ok(())
}

fn check_swapped(rows: u64, volume: &VolumeRow) -> Result<(), Refusal> {
    if rows == 1 {
        return Ok(());
    }
    Err(Refusal::Changed { kind: Kind::Volume, name: volume.name.clone() })
}

async fn add_replica(
    connection: &mut Transaction,
    volume: Uuid,
    disk: Uuid,
) -> Result<(), DbError> {
    let known: Option<String> = query_scalar("SELECT node FROM disks WHERE uuid = $1")
        .bind(disk)
        .fetch_optional(connection)
        .await?;
    if known.is_none() {
        return Err(Refusal::not_found(Kind::Disk, &disk.to_string(), []).into());
    }
    query("INSERT INTO replicas (uuid, volume, disk, state) VALUES ($1, $2, $3, 'wanted')")
        .bind(Uuid::new_v4())
        .bind(volume)
        .bind(disk)
        .execute(connection)
        .await?;
    Ok(())
}

async fn by_name(connection: &mut Transaction, name: &str) -> Result<Option<VolumeRow>, DbError> {
    query_as(
        "SELECT uuid, name, size_bytes, nguid, version, created_ms FROM volumes \
         WHERE name = $1 AND deleted_ms IS NULL",
    )
    .bind(name)
    .fetch_optional(connection)
    .await
}

/// The volume of this name or UUID.
pub(super) async fn find(connection: &mut Transaction, name: &str) -> Result<VolumeRow, DbError> {
    if let Some(volume) = by_name(connection, name).await? {
        return Ok(volume);
    }
    if let Ok(uuid) = name.parse::<Uuid>() {
        let volume = query_as(
            "SELECT uuid, name, size_bytes, nguid, version, created_ms FROM volumes \
             WHERE uuid = $1 AND deleted_ms IS NULL",
        )
        .bind(uuid)
        .fetch_optional(connection)
        .await?;
        if let Some(volume) = volume {
            return Ok(volume);
        }
    }
    let known: Vec<String> = query_scalar("SELECT name FROM volumes WHERE deleted_ms IS NULL")
        .fetch_all(connection)
        .await?;
    Err(Refusal::not_found(Kind::Volume, name, known.iter().map(String::as_str)).into())
}

/// The namespace that a volume is exported as.
pub(super) async fn export_of(
    connection: &mut Transaction,
    volume: Uuid,
) -> Result<Option<(String, u64)>, DbError> {
    let row: Option<(String, i64)> =
        query_as("SELECT nqn, nsid FROM namespaces WHERE volume = $1 AND removed_ms IS NULL")
            .bind(volume)
            .fetch_optional(connection)
            .await?;
    row.map(|(nqn, nsid)| Ok((nqn, super::numbers::narrow(nsid, "NSID")?))).transpose()
}
