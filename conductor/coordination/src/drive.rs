//! One session after the other: connects, keeps the own entries, follows those of others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use uuid::Uuid;
use zookeeper_client::{Client, Error, SessionState};

use crate::backoff::Backoff;
use crate::board::{Board, Conductors, Link, Nodes, Role, set};
use crate::config::ZooKeeperConfig;
use crate::enter::{self, Registered};
use crate::mirror::{Children, RETRY, mirror};
use crate::paths::{Paths, sequence, session_prefix};
use crate::records::read;

/// A name that somebody else has is tried again this often.
const TAKEN_RETRY: Duration = Duration::from_secs(1);
/// How long a planned stop waits for ZooKeeper.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// Who may do so is named by this in ZooKeeper's access lists.
const DIGEST_USER: &str = "afs";

/// Runs until `closing` is true.
pub(crate) async fn drive(
    config: ZooKeeperConfig,
    board: Arc<Board>,
    mut closing: watch::Receiver<bool>,
) {
    let mut driver = Driver {
        paths: Paths::new(&config),
        config,
        board,
        entered: None,
        said_away: AtomicBool::new(false),
    };
    tokio::select! {
        biased;
        // A sender that is gone means the end, too.
        _ = closing.wait_for(|closing| *closing) => {}
        () = driver.sessions() => {}
    }
    driver.leave().await;
}

struct Driver {
    config: ZooKeeperConfig,
    paths: Paths,
    board: Arc<Board>,
    /// The session, for a planned stop.
    entered: Option<(Client, Uuid)>,
    /// Whether the log has it that ZooKeeper is away.
    said_away: AtomicBool,
}

impl Driver {
    async fn sessions(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            match self.connect().await {
                Ok(client) => {
                    backoff.succeeded();
                    self.session(client).await;
                }
                Err(Error::NoAuth) => self.away("the secret is not that of the cluster's entries"),
                Err(error) => self.away(&error.to_string()),
            }
            tokio::time::sleep(backoff.failed()).await;
        }
    }

    async fn connect(&self) -> Result<Client, Error> {
        let mut connector = Client::connector().with_session_timeout(self.config.session_timeout);
        if let Some(secret) = &self.config.secret {
            let auth = format!("{DIGEST_USER}:{secret}");
            connector = connector.with_auth("digest", auth.as_bytes());
        }
        let client = connector.connect(&self.config.connect_string()).await?;
        self.paths.make(&client, &self.config).await?;
        Ok(client)
    }

    /// From a connection to the end of its session.
    async fn session(&mut self, client: Client) {
        // A place in the queue is this session's alone.
        let session = Uuid::new_v4();
        self.entered = Some((client.clone(), session));
        self.connected(&client);
        // Set when the own entry is not where it should be.
        let missing = Notify::new();
        tokio::select! {
            biased;
            end = self.follow_link(&client) => self.away(&end.to_string()),
            () = self.follow_conductors(&client, session, &missing) => {}
            () = self.follow_nodes(&client) => {}
            () = self.keep_candidate(&client, session, &missing) => {}
            () = self.keep_registration(&client) => {}
        }
        self.entered = None;
    }

    /// Says how the connection is. Returns with the end of the session.
    async fn follow_link(&self, client: &Client) -> SessionState {
        let mut states = client.state_watcher();
        loop {
            match states.state() {
                SessionState::SyncConnected | SessionState::ConnectedReadOnly => {
                    self.connected(client);
                }
                SessionState::Disconnected => self.away("the connection is lost"),
                end => return end,
            }
            tokio::select! {
                _ = states.changed() => {}
                () = tokio::time::sleep(self.config.session_timeout) => {
                    // A client that ended without a word would otherwise never be replaced.
                    if let Err(Error::ClientClosed) = client.check_stat(&self.paths.nodes).await {
                        return SessionState::Closed;
                    }
                }
            }
        }
    }

    fn connected(&self, client: &Client) {
        if self.board.set_link(Link::Connected) {
            self.said_away.store(false, Ordering::Relaxed);
            let session_ms = client.session_timeout().as_millis();
            let servers = self.config.connect_string();
            tracing::info!(servers, session_ms, "ZooKeeper is there");
        }
    }

    fn away(&self, reason: &str) {
        self.board.set_role(Role::Lost);
        self.board.set_link(Link::Away);
        if self.said_away.swap(true, Ordering::Relaxed) {
            tracing::debug!(reason, "ZooKeeper is still away");
        } else {
            let servers = self.config.connect_string();
            tracing::warn!(servers, reason, "ZooKeeper is away; trying again until it is there");
        }
    }

    async fn follow_conductors(&self, client: &Client, session: Uuid, missing: &Notify) {
        let own = session_prefix(session);
        mirror(client, &self.paths.conductors, |children| {
            let Some(children) = children else { return self.board.set_role(Role::Lost) };
            let queue = queue(children);
            let records = queue.iter().filter_map(|(_, data)| read(data)).collect();
            // Before the role, so that who becomes active finds itself in the list.
            set(&self.board.conductors, Conductors(Arc::new(records)));
            let place = queue.iter().position(|(name, _)| name.starts_with(&own));
            let stands = self.board.candidate.borrow().is_some();
            self.board.set_role(match place {
                Some(0) if stands => Role::Active,
                Some(_) => Role::Standby,
                None => Role::Lost,
            });
            if place.is_none() && stands {
                missing.notify_one();
            }
        })
        .await;
    }

    async fn follow_nodes(&self, client: &Client) {
        if !self.config.watch_nodes {
            return std::future::pending().await;
        }
        mirror(client, &self.paths.nodes, |children| match children {
            Some(children) => {
                let record = |(name, data): (&String, &Vec<u8>)| (name.clone(), read(data));
                let nodes: BTreeMap<_, _> = children.iter().map(record).collect();
                set(&self.board.nodes, Nodes { current: true, nodes: Arc::new(nodes) });
            }
            None => {
                self.board.nodes.send_if_modified(|nodes| std::mem::take(&mut nodes.current));
            }
        })
        .await;
    }

    async fn keep_candidate(&self, client: &Client, session: Uuid, missing: &Notify) {
        let mut wanted = self.board.candidate.subscribe();
        loop {
            let candidate = wanted.borrow_and_update().clone();
            let entered = enter::candidate(client, &self.paths, session, candidate.as_ref()).await;
            if let Err(error) = entered {
                tracing::debug!(%error, "the entry of this conductor could not be made");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            tokio::select! {
                // The sender is on the board, which outlives this.
                _ = wanted.changed() => {}
                () = missing.notified() => {}
            }
        }
    }

    async fn keep_registration(&self, client: &Client) {
        let mut wanted = self.board.registration.subscribe();
        let mut taken_before = false;
        loop {
            let record = wanted.borrow_and_update().clone();
            let pause = match &record {
                None => None,
                Some(record) => match enter::registration(client, &self.paths, record).await {
                    Ok(Registered::Done) => {
                        taken_before = false;
                        None
                    }
                    Ok(Registered::Taken) => {
                        if !std::mem::replace(&mut taken_before, true) {
                            tracing::warn!(
                                node = record.name,
                                "another one is registered under this name"
                            );
                        }
                        Some(TAKEN_RETRY)
                    }
                    Err(error) => {
                        tracing::debug!(%error, "this node could not be registered");
                        Some(RETRY)
                    }
                },
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    let _ = wanted.changed().await;
                }
            }
        }
    }

    /// Takes back the own entries while ZooKeeper is there.
    async fn leave(&mut self) {
        self.board.set_role(Role::Lost);
        let connected = *self.board.link.borrow() == Link::Connected;
        if let Some((client, session)) = self.entered.take().filter(|_| connected) {
            let node = self.board.registration.borrow().as_ref().map(|record| record.name.clone());
            let left = enter::leave(&client, &self.paths, session, node.as_deref());
            if !matches!(tokio::time::timeout(LEAVE_WAIT, left).await, Ok(Ok(()))) {
                tracing::debug!("ZooKeeper could not be told; the session will expire");
            }
        }
        self.board.set_link(Link::Away);
    }
}

/// The entries in the order in which they came.
fn queue(children: &Children) -> Vec<(&String, &Vec<u8>)> {
    let mut queue: Vec<_> = children.iter().filter(|(name, _)| sequence(name).is_some()).collect();
    queue.sort_by_key(|(name, _)| sequence(name));
    queue
}
