//! Where things are in ZooKeeper, and who may touch them.
//!
//! ```text
//! <chroot>/afs/<cluster>/conductors/<session>-<turn>-<sequence>   ephemeral, ConductorRecord
//! <chroot>/afs/<cluster>/nodes/<name>                             ephemeral, NodeRecord
//! ```

use uuid::Uuid;
use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Error, Permission};

use crate::config::ZooKeeperConfig;

/// Who may touch what two clusters share: nobody may remove it, everybody may add a cluster.
static SHARED: [Acl; 1] = [Acl::new_const(Permission::ALL, "auth", "")];

#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) conductors: String,
    pub(crate) nodes: String,
    with_secret: bool,
}

impl Paths {
    pub(crate) fn new(config: &ZooKeeperConfig) -> Self {
        Self {
            conductors: format!("{}/conductors", config.root),
            nodes: format!("{}/nodes", config.root),
            with_secret: config.secret.is_some(),
        }
    }

    /// Who may touch the cluster's own entries.
    pub(crate) fn acls(&self) -> Acls<'static> {
        if self.with_secret { Acls::creator_all() } else { Acls::anyone_all() }
    }

    /// Makes what is not there.
    pub(crate) async fn make(
        &self,
        client: &Client,
        config: &ZooKeeperConfig,
    ) -> Result<(), Error> {
        let anyone = AuthId::new("world", "anyone");
        let add = Acl::new(Permission::READ | Permission::CREATE, anyone);
        let shared: Vec<Acl> = SHARED.iter().cloned().chain([add]).collect();
        let shared = if self.with_secret { Acls::new(&shared) } else { Acls::anyone_all() };
        make(client, &format!("{}/afs", config.chroot), shared).await?;
        make(client, &self.conductors, self.acls()).await?;
        make(client, &self.nodes, self.acls()).await?;
        // Fails here, with the reason, if the entries are there but belong to another secret.
        client.list_children(&self.conductors).await.map(|_| ())
    }
}

/// Whoever may not make something may still use what is there.
async fn make(client: &Client, path: &str, acls: Acls<'_>) -> Result<(), Error> {
    if client.check_stat(path).await?.is_some() {
        return Ok(());
    }
    client.mkdir(path, &CreateMode::Persistent.with_acls(acls)).await
}

/// What all entries of one session of a candidate begin with.
pub(crate) fn session_prefix(session: Uuid) -> String {
    format!("{}-", session.simple())
}

/// What the entry of a candidate's turn begins with; ZooKeeper appends the sequence.
pub(crate) fn turn_prefix(session: Uuid, turn: u64) -> String {
    format!("{}{turn}-", session_prefix(session))
}

/// Where an entry is in the queue.
pub(crate) fn sequence(entry: &str) -> Option<u64> {
    entry.rsplit_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_read_back_whatever_precedes_it() {
        let session = Uuid::new_v4();
        let entry = format!("{}0000000012", turn_prefix(session, 3));
        assert!(entry.starts_with(&session_prefix(session)));
        assert_eq!(sequence(&entry), Some(12));
        assert_eq!(sequence("0000000012"), None);
        assert_eq!(sequence("a-x"), None);
    }
}
