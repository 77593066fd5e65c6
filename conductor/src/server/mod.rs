//! The conductor as a server: [`Conductor::start`] opens MetaDB and serves the API until it is
//! stopped. `conductor serve` runs one by itself, `afs standalone` one inside the node's process;
//! nothing here is global, so any number can live in one process.

mod answer;
mod beliefs;
mod connection;
mod extract;
mod leadership;
mod live;
mod metrics;
mod nodes;
mod outcome;
mod routes;
mod status;
mod view;
mod watch_nodes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::db::{DbError, MetaDb, OpenError, Place};
use connection::Connections;
use live::Live;
use metrics::Metrics;

/// How long a stop waits for calls in progress.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// How a conductor runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConductorConfig {
    /// Where MetaDB is. A folder is made when it is not there.
    pub database: Place,
    /// Address of the API. Anyone who reaches it may do everything: loopback, unless the network
    /// is trusted. Port 0 takes any free one.
    pub api_listen: SocketAddr,
    /// A node that did not report for this long is down. Nodes report three times as often.
    pub node_timeout: Duration,
    /// How long a change waits for the nodes concerned to put it into effect.
    pub apply_wait: Duration,
}

impl ConductorConfig {
    /// The usual configuration for this database, or folder of one, and address.
    pub fn new(database: impl Into<Place>, api_listen: SocketAddr) -> Self {
        Self {
            database: database.into(),
            api_listen,
            node_timeout: Duration::from_secs(10),
            apply_wait: Duration::from_secs(5),
        }
    }
}

/// Why a conductor could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// MetaDB could not be opened.
    #[error(transparent)]
    MetaDb(#[from] OpenError),
    /// MetaDB could not be read.
    #[error(transparent)]
    Read(#[from] DbError),
    /// The API's address could not be taken.
    #[error(
        "cannot serve the API on {address}: {source}. Choose another address (--api), or stop what uses it"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// What every call works with.
struct Shared {
    db: MetaDb,
    live: Live,
    metrics: Metrics,
    config: ConductorConfig,
    openapi: String,
    stop: watch::Receiver<bool>,
}

impl Shared {
    /// Waits for the stop; a sender that is gone means stop, too.
    async fn stopped(&self) {
        let mut stop = self.stop.clone();
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

/// As axum hands it to a call.
type ApiState = Arc<Shared>;

/// The server. It has no state of its own; see [`Running`].
#[derive(Debug)]
pub struct Conductor;

impl Conductor {
    /// Opens MetaDB and serves the API on the current tokio runtime.
    pub async fn start(config: ConductorConfig) -> Result<Running, StartError> {
        let metrics = Metrics::new();
        let db = MetaDb::open_measured(&config.database, metrics.transaction_seconds()).await?;
        let listen = |source| StartError::Listen { address: config.api_listen, source };
        let listener = TcpListener::bind(config.api_listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        warn_when_exposed(address);
        let nodes = db.snapshot().await?.nodes.into_iter().map(|row| row.name);
        let live = Live::new(config.node_timeout, nodes);
        let (stop_sender, stop) = watch::channel(false);
        let (router, openapi) = routes::router();
        let shared = Arc::new(Shared { db, live, metrics, config, openapi, stop: stop.clone() });
        let app = routes::finish(router, shared.clone());
        let watcher = tokio::spawn(watch_nodes::watch(shared.clone()));
        let server = tokio::spawn(serve(listener, app, stop));
        let database = &shared.config.database;
        tracing::info!(%address, cluster = %shared.db.cluster(), %database, "conductor ready");
        Ok(Running { address, shared, stop: stop_sender, server, watcher })
    }
}

fn warn_when_exposed(address: SocketAddr) {
    if !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "the API has neither tokens nor TLS: whoever reaches this address can change and \
             delete volumes; keep it on a loopback address or a trusted network"
        );
    }
}

async fn serve(listener: TcpListener, app: Router, mut stop: watch::Receiver<bool>) {
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let served = axum::serve(Connections::new(listener), app).with_graceful_shutdown(stopped).await;
    if let Err(error) = served {
        tracing::error!(%error, "the API server ended");
    }
}

/// A conductor that serves. Dropping it stops it too, without waiting.
pub struct Running {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    watcher: JoinHandle<()>,
}

impl Running {
    /// Where the API is served: the real port when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a client finds the API.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends waiting calls, lets others finish, closes MetaDB.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(STOP_WAIT, &mut self.server).await.is_err() {
            self.server.abort();
        }
        let _ = self.watcher.await;
        self.shared.db.close().await;
        tracing::info!("conductor stopped");
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}
