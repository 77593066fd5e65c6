//! What a person can set, from three places: flags win over `AFS_*` environment variables, these over the
//! configuration file, and that over the defaults.
//!
//! [`Settings`] is all of it as written; [`NodeConfig::new`] checks it and makes what `daemon` works with.

mod address;
mod disk_spec;
mod file;
mod list;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use afs_coordination::{ZooKeeperConfig, ZooKeeperSettings};
use conductor::size::parse_size;
use serde::Deserialize;

use crate::portal::Transport;
use crate::queue::Door;

pub use address::{AddressError, Listener};
pub use disk_spec::{DiskSpec, DiskSpecError};
pub use file::FileError;

/// Port of the node's own HTTP server unless set.
pub const DEFAULT_HTTP: &str = "127.0.0.1:49181";
/// Where hosts connect unless set.
pub const DEFAULT_LISTEN: &str = "tcp://127.0.0.1:4420";
/// Memory for data in flight unless set.
const DEFAULT_BUFFERS: &str = "256M";
/// The least that each reactor can work with: a few of the largest transfers at once.
const BUFFER_BYTES_MIN: u64 = 16 << 20;
/// More threads than any machine that we know has cores.
const REACTORS_MAX: usize = 1024;

/// Everything that can be set, as the person wrote it. A key of the file is the flag's name with `_` for `-`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Name of this node in the cluster [default: the host name]
    #[arg(long, env = "AFS_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Folder for what the node itself remembers; one process at a time uses it
    #[arg(long, env = "AFS_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A disk: FILE:SIZE (made if missing), /dev/DEVICE, or null:SIZE, which keeps nothing; may be repeated
    #[arg(long, env = "AFS_DISK", value_name = "DISK", value_delimiter = ',')]
    pub disk: Vec<String>,
    /// Where hosts connect, by TCP (tcp://ADDR:PORT) or RDMA (rdma://ADDR:PORT) [default: tcp://127.0.0.1:4420]; may be
    /// repeated
    #[arg(long, env = "AFS_LISTEN", value_name = "tcp|rdma://ADDR:PORT", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// The address that hosts are told, one for each --listen [default: the same address]
    #[arg(long, env = "AFS_ADVERTISE", value_name = "tcp|rdma://ADDR:PORT", value_delimiter = ',')]
    pub advertise: Vec<String>,
    /// Where other nodes of the cluster connect, by TCP (tcp://ADDR:PORT) or RDMA (rdma://ADDR:PORT); may be repeated. Without
    /// it the node holds no replicas of volumes that have several. Keep it in a network that only nodes can reach
    #[arg(
        long,
        env = "AFS_PEER_LISTEN",
        value_name = "tcp|rdma://ADDR:PORT",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "list::one_or_more")]
    pub peer_listen: Vec<String>,
    /// The rack that the node stands in: replicas of a shard are put in different ones
    #[arg(long, env = "AFS_RACK", value_name = "NAME")]
    pub rack: Option<String>,
    /// Where /metrics, /healthz and /status are served [default: 127.0.0.1:49181]
    #[arg(long, env = "AFS_HTTP", value_name = "ADDR:PORT")]
    pub http: Option<String>,
    /// The conductor, or several with commas between them (only `serve`; standalone brings its own)
    /// [default: http://127.0.0.1:49180, or those that ZooKeeper knows]
    #[arg(long, env = "AFS_CONDUCTOR", value_name = "URL,...")]
    pub conductor: Option<String>,
    /// Servers of ZooKeeper, HOST:PORT,HOST:PORT/PATH, where the node registers and finds the active conductor
    #[arg(long, env = "AFS_ZOOKEEPER", value_name = "HOST:PORT,...")]
    pub zookeeper: Option<String>,
    /// Name of the cluster in ZooKeeper, the same for all its conductors and nodes
    #[arg(long, env = "AFS_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,
    /// File with the secret that keeps others out of the cluster's entries in ZooKeeper
    #[arg(long, env = "AFS_ZOOKEEPER_SECRET_FILE", value_name = "FILE")]
    pub zookeeper_secret_file: Option<PathBuf>,
    /// After how long without a sign of life this node is taken for dead [default: 3000]
    #[arg(long, env = "AFS_ZOOKEEPER_SESSION_TIMEOUT_MS", value_name = "MS")]
    pub zookeeper_session_timeout_ms: Option<u64>,
    /// Threads that serve I/O [default: one per core]
    #[arg(long, env = "AFS_REACTORS", value_name = "N")]
    pub reactors: Option<usize>,
    /// Memory for data in flight, of all reactors together [default: 256M]
    #[arg(long, env = "AFS_BUFFERS", value_name = "SIZE")]
    pub buffers: Option<String>,
    /// Believe that disks write 4 KiB whole although they report smaller sectors (a power-safe cache does);
    /// without it overwrites on such disks are written twice
    #[arg(
        long,
        env = "AFS_ASSUME_WHOLE_BLOCKS",
        value_name = "true|false",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub assume_whole_blocks: Option<bool>,
    /// What is logged, such as `info` or `afs=debug` [default: info]
    #[arg(long, env = "AFS_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How it is logged [default: human]
    #[arg(long, env = "AFS_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person at a terminal.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Checked settings of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name: 1 to 63 characters out of `a-z 0-9 . _ -`, the first a letter or digit.
    pub node: String,
    /// The data folder.
    pub data: PathBuf,
    /// The disks, in the order given.
    pub disks: Vec<DiskSpec>,
    /// Where hosts connect, and other nodes.
    pub listeners: Vec<Listener>,
    /// The rack.
    pub rack: Option<String>,
    /// Where `/metrics` is.
    pub http: SocketAddr,
    /// Number of reactors, at least 1.
    pub reactors: usize,
    /// Buffer memory of each reactor in bytes.
    pub buffer_bytes: usize,
    /// Whether disks are believed to write 4 KiB whole.
    pub assume_whole_blocks: bool,
    /// Where the node registers.
    pub zookeeper: Option<ZooKeeperConfig>,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A disk.
    #[error(transparent)]
    Disk(#[from] DiskSpecError),
    /// A listener.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// ZooKeeper.
    #[error(transparent)]
    ZooKeeper(#[from] afs_coordination::ConfigError),
    /// A required setting is missing.
    #[error("`{key}` is not set: give --{flag}, {variable}, or `{key}` in the configuration file")]
    Missing {
        /// The key in the file.
        key: &'static str,
        /// The flag without dashes.
        flag: &'static str,
        /// The environment variable.
        variable: &'static str,
    },
    /// A value is outside of its range.
    #[error("`{key} = {value}`: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

fn bad(key: &'static str, value: impl ToString, problem: impl ToString) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), problem: problem.to_string() }
}

impl Settings {
    /// These settings, completed by those of the file at `path` where there is one.
    pub fn with_file(self, path: Option<&std::path::Path>) -> Result<Settings, ConfigError> {
        match path {
            Some(path) => Ok(self.or(file::read(path)?)),
            None => Ok(self),
        }
    }

    fn or(self, file: Settings) -> Settings {
        let list = |own: Vec<String>, other| if own.is_empty() { other } else { own };
        Settings {
            node: self.node.or(file.node),
            data: self.data.or(file.data),
            disk: list(self.disk, file.disk),
            listen: list(self.listen, file.listen),
            advertise: list(self.advertise, file.advertise),
            peer_listen: list(self.peer_listen, file.peer_listen),
            rack: self.rack.or(file.rack),
            http: self.http.or(file.http),
            conductor: self.conductor.or(file.conductor),
            zookeeper: self.zookeeper.or(file.zookeeper),
            cluster: self.cluster.or(file.cluster),
            zookeeper_secret_file: self.zookeeper_secret_file.or(file.zookeeper_secret_file),
            zookeeper_session_timeout_ms: self
                .zookeeper_session_timeout_ms
                .or(file.zookeeper_session_timeout_ms),
            reactors: self.reactors.or(file.reactors),
            buffers: self.buffers.or(file.buffers),
            assume_whole_blocks: self.assume_whole_blocks.or(file.assume_whole_blocks),
            log: self.log.or(file.log),
            log_format: self.log_format.or(file.log_format),
        }
    }
}

impl NodeConfig {
    /// Checks `settings`.
    pub fn new(settings: &Settings) -> Result<NodeConfig, ConfigError> {
        let reactors = reactors(settings.reactors)?;
        let mut listeners = address::listeners(&settings.listen, &settings.advertise)?;
        address::add_peers(&mut listeners, &settings.peer_listen)?;
        Ok(NodeConfig {
            node: node_name(settings.node.as_deref())?,
            data: settings.data.clone().ok_or(ConfigError::Missing {
                key: "data",
                flag: "data",
                variable: "AFS_DATA",
            })?,
            disks: disk_spec::parse_all(&settings.disk)?,
            listeners,
            rack: settings.rack.clone(),
            http: http_address(settings.http.as_deref())?,
            reactors,
            buffer_bytes: buffer_bytes(settings.buffers.as_deref(), reactors)?,
            assume_whole_blocks: settings.assume_whole_blocks.unwrap_or(false),
            zookeeper: zookeeper(settings)?,
        })
    }

    /// Whether somebody is to connect by `transport` at this door.
    pub fn listens_by(&self, transport: Transport, door: Door) -> bool {
        let mut listeners = self.listeners.iter();
        listeners.any(|one| one.listen.transport == transport && one.door == door)
    }
}

fn zookeeper(
    settings: &Settings,
) -> Result<Option<ZooKeeperConfig>, afs_coordination::ConfigError> {
    let settings = ZooKeeperSettings {
        zookeeper: settings.zookeeper.as_deref(),
        cluster: settings.cluster.as_deref(),
        zookeeper_secret_file: settings.zookeeper_secret_file.as_deref(),
        zookeeper_session_timeout_ms: settings.zookeeper_session_timeout_ms,
    };
    settings.in_force()
}

/// The rule of the conductor's API for names of nodes.
fn is_node_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first_is_plain = name.bytes().next().is_some_and(plain);
    first_is_plain
        && name.len() <= 63
        && name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
}

fn node_name(given: Option<&str>) -> Result<String, ConfigError> {
    if let Some(name) = given {
        return if is_node_name(name) {
            Ok(name.to_owned())
        } else {
            Err(bad(
                "node",
                name,
                "a node's name is 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit",
            ))
        };
    }
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    Ok(if is_node_name(&host) { host } else { "node".to_owned() })
}

fn http_address(given: Option<&str>) -> Result<SocketAddr, ConfigError> {
    let text = given.unwrap_or(DEFAULT_HTTP);
    text.parse()
        .map_err(|_| bad("http", text, "write an IP address and a port, such as 127.0.0.1:49181"))
}

fn reactors(given: Option<usize>) -> Result<usize, ConfigError> {
    match given {
        Some(count) if (1..=REACTORS_MAX).contains(&count) => Ok(count),
        Some(count) => Err(bad("reactors", count, format!("must be 1 to {REACTORS_MAX}"))),
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
    }
}

fn buffer_bytes(given: Option<&str>, reactors: usize) -> Result<usize, ConfigError> {
    let text = given.unwrap_or(DEFAULT_BUFFERS);
    let total = parse_size(text).map_err(|error| bad("buffers", text, error))?;
    let each = total / reactors as u64;
    if given.is_some() && each < BUFFER_BYTES_MIN {
        let problem = format!(
            "{reactors} reactors need at least {}M",
            (BUFFER_BYTES_MIN >> 20) * reactors as u64
        );
        return Err(bad("buffers", text, problem));
    }
    let each = each.max(BUFFER_BYTES_MIN).next_multiple_of(1 << 20);
    usize::try_from(each).map_err(|_| bad("buffers", text, "is more than this machine can address"))
}
