//! A copy of all children of one path that follows every change.

use std::collections::BTreeMap;
use std::time::Duration;

use zookeeper_client::{
    AddWatchMode, Client, Error, EventType, PersistentWatcher, SessionState, StateWatcher,
};

/// Before what failed is tried again within a session. The client itself waits for connections.
pub(crate) const RETRY: Duration = Duration::from_millis(200);

/// Name and data.
pub(crate) type Children = BTreeMap<String, Vec<u8>>;

/// Follows the children of `path` for as long as the session lasts. `publish` is given them after
/// each change, and nothing while it is not known how they are.
pub(crate) async fn mirror(
    client: &Client,
    path: &str,
    mut publish: impl FnMut(Option<&Children>),
) {
    let mut states = client.state_watcher();
    loop {
        let ended = follow(client, path, &mut states, &mut publish).await;
        publish(None);
        if let Err(error) = ended {
            tracing::debug!(%error, path, "cannot follow what is in ZooKeeper");
            tokio::time::sleep(RETRY).await;
        }
        while states.state() != SessionState::SyncConnected {
            // It never returns after the end of the session; whoever drives this sees that, too.
            states.changed().await;
        }
    }
}

/// Until the connection is lost.
async fn follow(
    client: &Client,
    path: &str,
    states: &mut StateWatcher,
    publish: &mut impl FnMut(Option<&Children>),
) -> Result<(), Error> {
    if states.state() != SessionState::SyncConnected {
        return Ok(());
    }
    // The watch first, so that nothing falls between it and the list.
    let mut watcher = client.watch(path, AddWatchMode::PersistentRecursive).await?;
    let mut children = list(client, path).await?;
    loop {
        // A connection that was lost meanwhile must not be followed by news of before.
        if states.peek_state() != SessionState::SyncConnected {
            return Ok(());
        }
        publish(Some(&children));
        tokio::select! {
            biased;
            _ = states.changed() => return Ok(()),
            changed = changed(&mut watcher, path) => match changed {
                Some(name) => refresh(client, path, &name, &mut children).await?,
                None => return Ok(()),
            },
        }
    }
}

/// The name of the next child that changed; none when the session did.
async fn changed(watcher: &mut PersistentWatcher, path: &str) -> Option<String> {
    loop {
        let event = watcher.changed().await;
        if event.event_type == EventType::Session {
            return None;
        }
        let below = event.path.strip_prefix(path).and_then(|rest| rest.strip_prefix('/'));
        if let Some(name) = below.filter(|name| !name.contains('/')) {
            return Some(name.to_owned());
        }
    }
}

async fn list(client: &Client, path: &str) -> Result<Children, Error> {
    let mut children = Children::new();
    for name in client.list_children(path).await? {
        refresh(client, path, &name, &mut children).await?;
    }
    Ok(children)
}

/// Whatever the event said: how things are is read. So a child that was replaced in one
/// transaction is never seen as gone.
async fn refresh(
    client: &Client,
    path: &str,
    name: &str,
    children: &mut Children,
) -> Result<(), Error> {
    match client.get_data(&format!("{path}/{name}")).await {
        Ok((data, _)) => {
            children.insert(name.to_owned(), data);
        }
        Err(Error::NoNode) => {
            children.remove(name);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
