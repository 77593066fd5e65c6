//! One process: a node, and for `afs standalone` also the conductor that it follows, with its database in the data folder.

use std::net::SocketAddr;

use conductor::server::{Conductor, ConductorConfig, Running, StartError};

use crate::config::NodeConfig;
use crate::daemon::{DaemonError, RunningNode, Summary};
use crate::data_folder::DataFolder;
use crate::ports::PortError;

/// Where in the data folder the conductor's database is.
const CONDUCTOR_FOLDER: &str = "conductor";

/// Where the node's conductor is.
#[derive(Clone, Debug)]
pub enum ConductorPlace {
    /// In this process, with its API on this address.
    Here(SocketAddr),
    /// In another one, at this URL.
    At(String),
}

/// Why the process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFailure {
    /// The node.
    #[error(transparent)]
    Node(#[from] DaemonError),
    /// The address of the API.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The conductor.
    #[error(transparent)]
    Conductor(StartError),
}

/// A node, with its conductor or without.
pub struct Process {
    conductor: Option<Running>,
    /// The node.
    pub node: RunningNode,
}

impl Process {
    /// Starts everything. Hosts are refused until the node's [`RunningNode::serve`].
    pub async fn start(
        config: &NodeConfig,
        data: &DataFolder,
        place: ConductorPlace,
    ) -> Result<Process, StartFailure> {
        let (conductor, url) = match place {
            ConductorPlace::At(url) => (None, url),
            ConductorPlace::Here(api) => {
                let conductor = start_conductor(data, api).await?;
                let url = format!("http://{}", conductor.address());
                (Some(conductor), url)
            }
        };
        match RunningNode::start(config, data, &url).await {
            Ok(node) => Ok(Process { conductor, node }),
            Err(error) => {
                stop_conductor(conductor).await;
                Err(error.into())
            }
        }
    }

    /// What a person sees at the start.
    pub fn summary(&self) -> Summary {
        Summary { api: self.conductor.as_ref().map(Running::address), ..self.node.summary() }
    }

    /// Planned stop, the node first: it may still be asked things.
    pub async fn stop(self) {
        self.node.stop().await;
        stop_conductor(self.conductor).await;
    }
}

async fn start_conductor(data: &DataFolder, api: SocketAddr) -> Result<Running, StartFailure> {
    let config = ConductorConfig::new(data.path().join(CONDUCTOR_FOLDER), api);
    Conductor::start(config).await.map_err(|error| match error {
        StartError::Listen { address, source } => PortError::http(address, "--api", source).into(),
        other => StartFailure::Conductor(other),
    })
}

async fn stop_conductor(conductor: Option<Running>) {
    if let Some(conductor) = conductor {
        conductor.stop().await;
    }
}
