//! Making the own entries what they should be. Each function looks first and then changes what
//! differs, so it can be repeated after any failure, also one whose outcome is not known.

use uuid::Uuid;
use zookeeper_client::{Client, CreateMode, Error};

use crate::board::Candidate;
use crate::paths::{Paths, session_prefix, turn_prefix};
use crate::records::{NodeRecord, read, write};

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// It is there.
    Done,
    /// Somebody else has the name.
    Taken,
}

/// Puts a candidate in the queue, or out of it.
pub(crate) async fn candidate(
    client: &Client,
    paths: &Paths,
    session: Uuid,
    candidate: Option<&Candidate>,
) -> Result<(), Error> {
    let queue = &paths.conductors;
    let prefix = candidate.map(|candidate| turn_prefix(session, candidate.turn));
    let mut kept = None;
    for entry in client.list_children(queue).await? {
        let wanted = prefix.as_ref().is_some_and(|prefix| entry.starts_with(prefix));
        if wanted && kept.is_none() {
            kept = Some(format!("{queue}/{entry}"));
        } else if entry.starts_with(&session_prefix(session)) {
            gone(client.delete(&format!("{queue}/{entry}"), None).await)?;
        }
    }
    let (Some(candidate), Some(prefix)) = (candidate, prefix) else { return Ok(()) };
    let data = write(&candidate.record);
    match kept {
        Some(path) => update(client, &path, &data).await,
        None => {
            let options = CreateMode::EphemeralSequential.with_acls(paths.acls());
            client.create(&format!("{queue}/{prefix}"), &data, &options).await.map(|_| ())
        }
    }
}

/// Registers a node.
pub(crate) async fn registration(
    client: &Client,
    paths: &Paths,
    record: &NodeRecord,
) -> Result<Registered, Error> {
    let path = format!("{}/{}", paths.nodes, record.name);
    let data = write(record);
    let options = CreateMode::Ephemeral.with_acls(paths.acls());
    match client.create(&path, &data, &options).await {
        Ok(_) => return Ok(Registered::Done),
        Err(Error::NodeExists) => {}
        Err(error) => return Err(error),
    }
    let (there, stat) = client.get_data(&path).await?;
    if stat.ephemeral_owner == client.session_id().0 {
        return update(client, &path, &data).await.map(|()| Registered::Done);
    }
    let earlier = read::<NodeRecord>(&there);
    if !earlier.is_some_and(|earlier| !earlier.place.is_empty() && earlier.place == record.place) {
        return Ok(Registered::Taken);
    }
    // Our own earlier life, whose session has not expired yet. In one transaction, so that nobody
    // sees the node as gone.
    let mut writer = client.new_multi_writer();
    writer.add_delete(&path, Some(stat.version))?;
    writer.add_create(&path, &data, &options)?;
    match writer.commit().await {
        Ok(_) => Ok(Registered::Done),
        Err(error) => {
            tracing::debug!(%error, "the entry of the earlier life could not be replaced");
            Ok(Registered::Taken)
        }
    }
}

/// Takes back what this session entered.
pub(crate) async fn leave(
    client: &Client,
    paths: &Paths,
    session: Uuid,
    node: Option<&str>,
) -> Result<(), Error> {
    candidate(client, paths, session, None).await?;
    let Some(node) = node else { return Ok(()) };
    let path = format!("{}/{node}", paths.nodes);
    match client.get_data(&path).await {
        Ok((_, stat)) if stat.ephemeral_owner == client.session_id().0 => {
            gone(client.delete(&path, None).await)
        }
        Ok(_) | Err(Error::NoNode) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn update(client: &Client, path: &str, data: &[u8]) -> Result<(), Error> {
    if client.get_data(path).await?.0 == data {
        return Ok(());
    }
    client.set_data(path, data, None).await.map(|_| ())
}

/// What should be gone may be so already.
fn gone(deleted: Result<(), Error>) -> Result<(), Error> {
    match deleted {
        Err(Error::NoNode) => Ok(()),
        other => other,
    }
}
