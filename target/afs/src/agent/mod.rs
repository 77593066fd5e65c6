//! The node's side of the conductor: fetches what the node should do, has it done, reports.
//!
//! `daemon` makes one [`Agent`] and runs it for the life of the process. I/O never waits for it: with the conductor away
//! the node goes on with what it was last told, also after a restart, because that is kept in the data folder.
//!
//! Invariants:
//! - a state of another cluster is never put into effect;
//! - what was fetched is durable in the data folder before it is put into effect, so a restart never goes further back;
//! - `applied_revision` is reported only after everything in that revision was tried.

mod backoff;
mod client;
mod conductors;
pub mod decisions;
mod saved;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use afs_coordination::Conductors;
use conductor::api::{NodeReport, NodeState};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use uuid::Uuid;

use backoff::Backoff;
use client::{Client, ClientError};
pub use saved::SavedError;

/// Reports are never further apart than this, whatever the conductor allows.
const REPORT_EVERY_MAX: Duration = Duration::from_secs(2);
/// Reports are never closer than this, so that a burst of changes makes one.
const REPORT_EVERY_MIN: Duration = Duration::from_millis(20);
/// How long a start waits for the conductor before it goes on with what was saved.
const FIRST_CONTACT: Duration = Duration::from_secs(3);

/// What the agent drives: the volumes and exports of this node.
pub trait Converge: Send + Sync + 'static {
    /// Makes the node hold and export what `state` says. Returns when everything was tried; what failed is in the report.
    fn converge(&self, state: &NodeState) -> impl Future<Output = ()> + Send;
    /// What the node has now.
    fn report(&self, applied_revision: u64) -> NodeReport;
}

/// Settings of the agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node's name.
    pub node: String,
    /// The conductor's URL, such as `http://127.0.0.1:49180`; those of several with commas between them, or none where
    /// ZooKeeper knows them.
    pub conductor: String,
    /// The conductors that ZooKeeper knows, where it is used.
    pub found: Option<watch::Receiver<Conductors>>,
    /// The data folder.
    pub data: PathBuf,
}

/// Keeps one node and its conductor in step.
pub struct Agent<N> {
    config: AgentConfig,
    node: Arc<N>,
    client: Client,
    report_now: Notify,
    applied: watch::Sender<Option<u64>>,
    cluster: Mutex<Option<Uuid>>,
}

impl<N: Converge> Agent<N> {
    /// An agent that does nothing until [`run`](Self::run).
    pub fn new(config: AgentConfig, node: Arc<N>) -> Result<Arc<Agent<N>>, AgentError> {
        let client = Client::new(&config.conductor, &config.node).map_err(|error| {
            AgentError::Url { url: config.conductor.clone(), reason: error.to_string() }
        })?;
        Ok(Arc::new(Agent {
            config,
            node,
            client,
            report_now: Notify::new(),
            applied: watch::Sender::new(None),
            cluster: Mutex::new(None),
        }))
    }

    /// The revision in effect; `None` until the first.
    pub fn applied(&self) -> watch::Receiver<Option<u64>> {
        self.applied.subscribe()
    }

    /// The conductor that is asked now.
    pub fn conductor(&self) -> watch::Receiver<Option<reqwest::Url>> {
        self.client.conductors().chosen()
    }

    /// Asks for a report soon, because something changed.
    pub fn changed(&self) {
        self.report_now.notify_one();
    }

    /// Runs until dropped.
    pub async fn run(self: Arc<Self>) {
        let converge = async {
            let known = self.begin().await;
            tokio::join!(self.follow(known), self.keep_reporting());
        };
        tokio::join!(converge, self.find_conductors());
    }

    /// Follows what ZooKeeper says about the conductors.
    async fn find_conductors(&self) {
        let Some(mut found) = self.config.found.clone() else { return };
        loop {
            let conductors = found.borrow_and_update().clone();
            let active = conductors.active().is_some();
            let urls = conductors.0.iter().filter_map(|one| client::base(&one.api).ok()).collect();
            self.client.conductors().found(urls, active);
            if found.changed().await.is_err() {
                return;
            }
        }
    }

    /// Puts the first state into effect: the conductor's if it answers soon, else the saved one.
    async fn begin(&self) -> Option<NodeState> {
        let saved = saved::load(&self.config.data).unwrap_or_else(|error| {
            tracing::warn!(%error, "the saved state cannot be used, waiting for the conductor");
            None
        });
        *self.cluster.lock() = saved.as_ref().map(|state| state.cluster);
        let fetched = timeout(FIRST_CONTACT, self.first_fetch()).await;
        let reason = match fetched {
            Ok(Ok(state)) => return Some(self.apply(state).await),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        let url = &self.config.conductor;
        let Some(state) = saved else {
            tracing::warn!(%url, %reason, "waiting for the conductor; nothing is served before its first answer");
            return None;
        };
        tracing::warn!(%url, %reason, revision = state.revision, "no state from the conductor; serving as last told");
        self.put_into_effect(&state).await;
        Some(state)
    }

    async fn first_fetch(&self) -> Result<NodeState, ClientError> {
        let mut chosen = self.client.conductors().chosen();
        loop {
            chosen.borrow_and_update();
            match self.report_and_fetch().await {
                Err(ClientError::Moved) => {}
                Err(ClientError::Nowhere) => {
                    // The sender is the client's own.
                    let _ = chosen.changed().await;
                }
                other => return other,
            }
        }
    }

    async fn report_and_fetch(&self) -> Result<NodeState, ClientError> {
        self.report().await?;
        self.fetch(None).await?.ok_or(ClientError::Empty)
    }

    /// A state of this node's own cluster; the first cluster that a node meets is its own for ever.
    async fn fetch(&self, known: Option<&NodeState>) -> Result<Option<NodeState>, ClientError> {
        let Some(state) = self.client.state(known).await? else { return Ok(None) };
        let ours = *self.cluster.lock().get_or_insert(state.cluster);
        if ours == state.cluster {
            Ok(Some(state))
        } else {
            Err(ClientError::Foreign { theirs: state.cluster, ours })
        }
    }

    /// Waits for each new revision and puts it into effect.
    async fn follow(&self, mut known: Option<NodeState>) {
        let mut backoff = Backoff::new();
        loop {
            match self.fetch(known.as_ref()).await {
                Ok(state) => {
                    if backoff.succeeded() {
                        tracing::info!("the conductor is back");
                    }
                    // After MetaDB was replaced by an older copy another state may have the same number.
                    let which = |state: &NodeState| (state.revision, state.source);
                    let before = known.as_ref().map(which);
                    if let Some(state) = state.filter(|state| Some(which(state)) != before) {
                        known = Some(self.apply(state).await);
                    }
                }
                // Then all of it, at once.
                Err(ClientError::Incomplete) if known.is_some() => known = None,
                Err(error) => self.wait_after(&mut backoff, &error).await,
            }
        }
    }

    async fn wait_after(&self, backoff: &mut Backoff, error: &ClientError) {
        if matches!(error, ClientError::Moved) {
            return self.report_now.notify_one();
        }
        let mut chosen = self.client.conductors().chosen();
        let (pause, first) = backoff.failed();
        if first {
            tracing::warn!(%error, url = %self.config.conductor, "no state from the conductor; I/O goes on");
        } else {
            tracing::debug!(%error, ?pause, "still no state from the conductor");
        }
        if matches!(error, ClientError::UnknownNode) {
            self.report_now.notify_one();
        }
        // The next conductor need not be waited for.
        if let Ok(Ok(())) = timeout(pause, chosen.changed()).await {
            self.report_now.notify_one();
        }
    }

    /// Saves and puts into effect.
    async fn apply(&self, state: NodeState) -> NodeState {
        if let Err(error) = saved::save(&self.config.data, &state) {
            tracing::error!(%error, "the state cannot be saved; a restart without the conductor will serve an older one");
        }
        self.put_into_effect(&state).await;
        state
    }

    async fn put_into_effect(&self, state: &NodeState) {
        self.node.converge(state).await;
        self.applied.send_replace(Some(state.revision));
        tracing::info!(revision = state.revision, "in effect");
        self.changed();
    }

    async fn keep_reporting(&self) {
        let mut backoff = Backoff::new();
        loop {
            let pause = match self.report().await {
                Ok(every) => {
                    backoff.succeeded();
                    every
                }
                Err(error) => {
                    tracing::debug!(%error, "the report did not arrive");
                    backoff.failed().0
                }
            };
            tokio::time::sleep(REPORT_EVERY_MIN).await;
            // A change wakes it early, a timeout only means that nothing changed.
            let _ = timeout(pause, self.report_now.notified()).await;
        }
    }

    /// Sends one report; returns when the next one is due.
    async fn report(&self) -> Result<Duration, ClientError> {
        let applied = self.applied.borrow().unwrap_or(0);
        let answer = self.client.report(&self.node.report(applied)).await?;
        Ok((Duration::from_millis(answer.report_every_ms) / 2)
            .clamp(REPORT_EVERY_MIN, REPORT_EVERY_MAX))
    }
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The URL makes no sense.
    #[error(
        "`conductor = {url}`: {reason}; write a URL such as http://127.0.0.1:49180, or several with commas between them"
    )]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
}
