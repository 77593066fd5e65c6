//! The conductor as a server: [`Conductor::start`] serves the API until it is stopped, and decides
//! while it is the active one: always, unless several conductors elect one through ZooKeeper. `conductor serve` runs one by itself, `afs standalone` one inside the node's process;
//! nothing here is global, so any number can live in one process.

mod answer;
mod beliefs;
mod connection;
mod extract;
mod front;
mod leadership;
mod live;
mod metrics;
mod nodes;
mod outcome;
mod routes;
mod status;
mod term;
mod view;
mod watch_nodes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use afs_coordination::{ConductorRecord, Coordination, Embedded, ZooKeeper, ZooKeeperConfig};
use axum::Router;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::db::{DbError, MetaDb, OpenError, Place};
use connection::Connections;
use front::Front;
use live::Live;
use metrics::Metrics;
use term::{Term, serve_terms};

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
    /// Where the conductors of the cluster elect the active one; without it this one is alone.
    pub zookeeper: Option<ZooKeeperConfig>,
    /// Where clients and the other conductors find this one, when that is not `api_listen`.
    pub advertise: Option<String>,
}

impl ConductorConfig {
    /// The usual configuration for this database, or folder of one, and address.
    pub fn new(database: impl Into<Place>, api_listen: SocketAddr) -> Self {
        Self {
            database: database.into(),
            api_listen,
            node_timeout: Duration::from_secs(10),
            apply_wait: Duration::from_secs(5),
            zookeeper: None,
            advertise: None,
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
    /// Others would not find the API.
    #[error(
        "the API listens on {address}, which is no address that others could use; say under which \
         URL they find it, such as --advertise http://192.0.2.1:49180"
    )]
    NotAnAddress {
        /// The address.
        address: SocketAddr,
    },
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

/// What every call works with: one term in office.
struct Shared {
    db: MetaDb,
    live: Live,
    front: Arc<Front>,
    /// Set when the term is over, or about to be: calls wait no longer.
    stopping: watch::Sender<bool>,
    /// Set when somebody else has taken the token.
    fenced: watch::Sender<bool>,
}

/// As axum hands it to a call.
type ApiState = Arc<Front>;

/// The server. It has no state of its own; see [`Running`].
#[derive(Debug)]
pub struct Conductor;

impl Conductor {
    /// Serves the API on the current tokio runtime. A conductor that is alone opens MetaDB first,
    /// and waits for a PostgreSQL that cannot be reached: a machine that starts may have its
    /// conductor up before its database. Of several, each opens it when it becomes active.
    pub async fn start(config: ConductorConfig) -> Result<Running, StartError> {
        let listen = |source| StartError::Listen { address: config.api_listen, source };
        let listener = TcpListener::bind(config.api_listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let api = config.advertise.clone().unwrap_or_else(|| format!("http://{address}"));
        if config.zookeeper.is_some() && config.advertise.is_none() && address.ip().is_unspecified()
        {
            return Err(StartError::NotAnAddress { address });
        }
        warn_when_exposed(address);
        let (stop_sender, stop) = watch::channel(false);
        let (router, openapi) = routes::router();
        let coordination = match config.zookeeper.clone() {
            Some(zookeeper) => {
                Coordination::ZooKeeper(ZooKeeper::start(zookeeper.watching_nodes(true)))
            }
            None => Coordination::Embedded(Embedded::default()),
        };
        let metrics = Metrics::new();
        let record = own_record(api.clone());
        let front = Front::new(config, coordination, metrics, openapi, api);
        let front = Arc::new(front);
        front.coordination.stand(record);
        let first = match front.coordination {
            Coordination::Embedded(_) => Some(Term::begin(front.clone()).await?),
            Coordination::ZooKeeper(_) => None,
        };
        let app = routes::finish(router, front.clone());
        let database = &front.config.database;
        tracing::info!(%address, %database, "conductor ready");
        let (end_terms, ended) = watch::channel(false);
        let terms = tokio::spawn(serve_terms(front.clone(), first, ended));
        let server = tokio::spawn(serve(listener, app, stop));
        Ok(Running { address, front, stop: stop_sender, server, end_terms, terms })
    }
}

fn own_record(api: String) -> ConductorRecord {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let software = env!("CARGO_PKG_VERSION").to_owned();
    ConductorRecord { api, host: host.trim().to_owned(), software, token: None }
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
    front: Arc<Front>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    end_terms: watch::Sender<bool>,
    terms: JoinHandle<()>,
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

    /// Whether it is the active one.
    pub fn is_active(&self) -> bool {
        self.front.term().is_some()
    }

    /// Ends waiting calls, lets others finish, closes MetaDB, hands over.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(term) = self.front.term() {
            term.stopping.send_replace(true);
        }
        if tokio::time::timeout(STOP_WAIT, &mut self.server).await.is_err() {
            self.server.abort();
        }
        // Only now, because calls in progress need MetaDB.
        self.end_terms.send_replace(true);
        let _ = self.terms.await;
        // After MetaDB was closed, so that the next one finds it free.
        self.front.coordination.close().await;
        tracing::info!("conductor stopped");
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}
