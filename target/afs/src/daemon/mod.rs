//! One node from start to end: takes its ports, opens its disks, follows its conductor, serves hosts, stops in order.
//!
//! `afs serve` runs it alone; `standalone` runs it beside a conductor in the same process.
//!
//! Order of a start: ports taken but refusing · HTTP · disks · first state of the conductor in effect · hosts answered
//! (CONFORMANCE M-41). Order of a stop: hosts told and drained (M-40) · disks closed · reactors ended.

mod hosts;
mod locked_memory;
mod membership;
mod rdma;
mod status;
mod summary;
mod watchdog;

use std::net::SocketAddr;
use std::sync::Arc;

use afs_coordination::ServiceManager;
use afs_reactor::verbs::Unavailable;
use afs_reactor::{ReactorConfig, Reactors};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::agent::decisions::Decisions;
use crate::agent::{Agent, AgentConfig, AgentError};
use crate::cluster::{Cluster, control};
use crate::config::NodeConfig;
use crate::data_folder::DataFolder;
use crate::disks::{DiskFailure, DiskSet};
use crate::http::HttpServer;
use crate::listeners::Listeners;
use crate::metrics::Metrics;
use crate::metrics::reactors::ReactorFigures;
use crate::node::{Node, NodeOptions};
use crate::ports::{PortError, Ports};
use crate::queue::Door;
use crate::volumes::{Identity, Volumes};
use hosts::Hosts;
pub use locked_memory::LockedMemoryError;
use membership::Membership;
use rdma::{Rdma, Serving};
use status::{Phase, StatusPages};
pub use summary::Summary;

/// How many disk operations one reactor has under way at most.
const RING_ENTRIES: u32 = 1024;

/// Why a node did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Port(#[from] PortError),
    /// All listeners are for RDMA, and it is not there.
    #[error("every address to --listen on is an rdma:// one, but there is no RDMA: {0}")]
    NoRdma(Unavailable),
    /// RDMA could lock more memory than allowed.
    #[error(transparent)]
    LockedMemory(#[from] LockedMemoryError),
    /// A disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskFailure),
    /// The conductor's URL makes no sense.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The threads, their buffers or their rings cannot be made.
    #[error("the reactors cannot be started: {0}; fewer --reactors or less --buffers may help")]
    Reactors(std::io::Error),
    /// The part that follows the conductor ended, which it never should.
    #[error("the agent ended unexpectedly; see the log")]
    AgentEnded,
}

/// A node that is starting or serving.
pub struct RunningNode {
    metrics: Arc<Metrics>,
    node: Arc<Node>,
    disks: Arc<DiskSet>,
    cluster: Arc<Cluster>,
    control_tasks: JoinSet<()>,
    volumes: Arc<Volumes>,
    agent: Arc<Agent<Volumes>>,
    agent_task: JoinHandle<()>,
    membership: Option<Membership>,
    pages: Arc<StatusPages>,
    http: RunningHttp,
    ports: Ports,
    rdma: Rdma,
    listeners: Arc<Listeners>,
    hosts: Hosts,
    reactors: Reactors,
}

struct RunningHttp {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl RunningNode {
    /// Does everything up to the first question to the conductor at `conductor`. Hosts are refused until [`serve`](Self::serve).
    pub async fn start(
        config: &NodeConfig,
        data: &DataFolder,
        conductor: &str,
    ) -> Result<RunningNode, DaemonError> {
        let mut listeners = config.listeners.clone();
        let ports = Ports::take(&mut listeners)?;
        let listeners = Listeners::new(listeners);
        let http_failed = |error| PortError::http(config.http, "--http", error);
        let http = HttpServer::bind(config.http).await.map_err(http_failed)?;
        let http_address = http.address().map_err(http_failed)?;
        let rdma = Rdma::find(config, &listeners).await?;
        let metrics = Metrics::new(config.reactors);
        metrics.add_source(listeners.clone());
        let reactors = start_reactors(config).await?;
        metrics.add_source(Arc::new(ReactorFigures::new(&reactors)));
        let node = Node::new(NodeOptions {
            name: config.node.clone(),
            reactors: config.reactors,
            metrics: Arc::clone(&metrics),
        });
        let pages =
            StatusPages::new(Arc::clone(&node), conductor.to_owned(), Arc::clone(&listeners));
        let http = serve_http(http, http_address, &metrics, &pages);

        let disks = DiskSet::open(config, &reactors, data).await?;
        metrics.add_source(disks.clone());
        pages.set_disks(Arc::clone(&disks));
        pages.enter(Phase::Waiting);

        let news = Arc::new(Notify::new());
        let (control, questions) = control::channel();
        let handles = (0..reactors.len()).map(|index| reactors.handle(index)).collect();
        let cluster = Cluster::new(handles, control, afs_volume::Params::default(), news.clone());
        let cluster =
            cluster.map_err(|error| DaemonError::Reactors(std::io::Error::other(error)))?;
        metrics.add_source(cluster.clone());
        rdma.lead_to_peers(&cluster);
        node.open_to_peers(&cluster)
            .map_err(|error| DaemonError::Reactors(std::io::Error::other(error)))?;

        let identity = Identity {
            name: config.node.clone(),
            listeners: listeners.clone(),
            http: http_address,
            rack: config.rack.clone(),
        };
        let volumes =
            Volumes::new(identity, disks.clone(), node.clone(), cluster.clone(), metrics.clone());
        let membership = Membership::start(
            config,
            membership::Identity {
                name: config.node.clone(),
                place: place(data),
                http: http_address.to_string(),
            },
            Arc::clone(&listeners),
            Arc::clone(&disks),
        );
        if let Some(membership) = &membership {
            metrics.add_source(membership.source());
        }
        let agent_config = AgentConfig {
            node: config.node.clone(),
            conductor: conductor.to_owned(),
            found: membership.as_ref().map(Membership::conductors),
            data: data.path().to_owned(),
        };
        let agent = Agent::new(agent_config, Arc::clone(&volumes))?;
        pages.set_applied(agent.applied());
        let agent_task = tokio::spawn(Arc::clone(&agent).run());
        let mut control_tasks = JoinSet::new();
        let decisions = Decisions::new(agent.conductor()).map_err(|error| AgentError::Url {
            url: conductor.to_owned(),
            reason: error.to_string(),
        })?;
        let own = cluster.clone();
        control_tasks.spawn(decisions.answer(questions, move || own.id()));
        control_tasks.spawn(cluster.clone().watch());
        let reporter = agent.clone();
        control_tasks.spawn(async move {
            loop {
                news.notified().await;
                reporter.changed();
            }
        });
        Ok(RunningNode {
            metrics,
            node,
            disks,
            cluster,
            control_tasks,
            volumes,
            agent,
            agent_task,
            membership,
            pages,
            http,
            ports,
            rdma,
            listeners,
            hosts: Hosts::default(),
            reactors,
        })
    }

    /// Waits until the tables are loaded, then answers hosts. Returns when the ports are open.
    pub async fn serve(&mut self) -> Result<(), DaemonError> {
        let mut applied = self.agent.applied();
        applied.wait_for(Option::is_some).await.map_err(|_| DaemonError::AgentEnded)?;
        let serving = Serving {
            node: Arc::clone(&self.node),
            cluster: Arc::clone(&self.cluster),
            reactors: (0..self.reactors.len()).map(|index| self.reactors.handle(index)).collect(),
            listeners: Arc::clone(&self.listeners),
        };
        let (ports, rdma) = (std::mem::take(&mut self.ports), std::mem::take(&mut self.rdma));
        self.hosts.listen(ports, rdma, &serving)?;
        self.pages.enter(Phase::Serving);
        let portals = self.listeners.advertised(Door::Hosts);
        let portals: Vec<_> = portals.iter().map(ToString::to_string).collect();
        tracing::info!(portals = portals.join(", "), "hosts may connect");
        Ok(())
    }

    /// Tells the service manager that the node lives, for as long as all reactors answer.
    pub fn beat(&self, manager: &Arc<ServiceManager>) {
        watchdog::start(&self.reactors, Arc::clone(manager));
    }

    /// Waits for something that must not happen: the end of the agent.
    pub async fn failed(&mut self) -> DaemonError {
        // Whether it returned or panicked, the node no longer follows its conductor.
        let _ = (&mut self.agent_task).await;
        DaemonError::AgentEnded
    }

    /// Where the node's HTTP server is.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address
    }

    /// The node's figures.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What a person sees at the start.
    pub fn summary(&self) -> Summary {
        Summary {
            node: self.node.options.name.clone(),
            portals: self.listeners.status(Door::Hosts),
            peers: self.listeners.status(Door::Peers),
            http: self.http.address,
            disks: self.disks.iter().map(|disk| disk.report()).collect(),
            volumes: self.volumes.ready(),
            api: None,
        }
    }

    /// Planned stop: no acknowledged write is lost, hosts take their other paths at once, the next start is quick.
    pub async fn stop(mut self) {
        self.pages.enter(Phase::Stopping);
        self.agent_task.abort();
        if let Some(membership) = self.membership {
            membership.end().await;
        }
        self.hosts.let_go(&self.node, &self.metrics).await;
        self.cluster.leave().await;
        self.node.close_to_peers();
        self.control_tasks.abort_all();
        self.cluster.close().await;
        self.disks.close().await;
        // The HTTP server may have been stopped by its own error; it is then gone already.
        let _ = self.http.stop.send(());
        let _ = self.http.task.await;
        let reactors = self.reactors;
        // Joining threads blocks.
        let _ = tokio::task::spawn_blocking(move || reactors.shutdown()).await;
    }
}

/// Where this node lives: no two processes run on one data folder of one machine.
fn place(data: &DataFolder) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let folder = data.path().canonicalize().unwrap_or_else(|_| data.path().to_owned());
    format!("{host}:{}", folder.display())
}

async fn start_reactors(config: &NodeConfig) -> Result<Reactors, DaemonError> {
    let reactors = ReactorConfig {
        threads: config.reactors,
        buffer_bytes: config.buffer_bytes,
        ring_entries: RING_ENTRIES,
        ..ReactorConfig::default()
    };
    let started = tokio::task::spawn_blocking(move || Reactors::start(reactors)).await;
    started.map_err(std::io::Error::other).flatten().map_err(DaemonError::Reactors)
}

fn serve_http(
    server: HttpServer,
    address: SocketAddr,
    metrics: &Arc<Metrics>,
    pages: &Arc<StatusPages>,
) -> RunningHttp {
    let (stop, stopped) = oneshot::channel();
    let served = server.serve(Arc::clone(metrics), pages.clone(), async {
        // A sender that is gone means stop, too.
        let _ = stopped.await;
    });
    let task = tokio::spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    RunningHttp { address, stop, task }
}
