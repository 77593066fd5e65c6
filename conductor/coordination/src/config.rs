//! How to reach ZooKeeper, checked before anything is tried.

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// The session time-out that is asked for unless set. ZooKeeper grants at least two of its ticks.
pub const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// Shorter ones would end sessions of processes that are only busy, longer ones make fail-over slow.
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(60);

const DEFAULT_PORT: u16 = 2181;

/// Checked configuration of a connection to ZooKeeper.
#[derive(Clone, PartialEq, Eq)]
pub struct ZooKeeperConfig {
    /// `host:port` of each server.
    pub(crate) servers: Vec<String>,
    /// Absolute path of the cluster's entries.
    pub(crate) root: String,
    /// What is above the entries of Afs; empty or an absolute path.
    pub(crate) chroot: String,
    pub(crate) secret: Option<String>,
    pub(crate) session_timeout: Duration,
    pub(crate) watch_nodes: bool,
}

/// The secret stays out of logs.
impl std::fmt::Debug for ZooKeeperConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZooKeeperConfig")
            .field("servers", &self.servers)
            .field("root", &self.root)
            .field("with_secret", &self.secret.is_some())
            .field("session_timeout", &self.session_timeout)
            .finish_non_exhaustive()
    }
}

/// What is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The connection string.
    #[error(
        "`zookeeper = {text}`: {problem}; write HOST:PORT,HOST:PORT and perhaps /PATH, such as \
         192.0.2.1:2181,192.0.2.2:2181,192.0.2.3:2181"
    )]
    Servers {
        /// As given.
        text: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The name of the cluster.
    #[error(
        "`cluster = {0}`: the name of a cluster is 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit"
    )]
    Cluster(String),
    /// The time-out.
    #[error("the session time-out of ZooKeeper must be 0.5 to 60 seconds, not {}", .0.as_secs_f64())]
    Timeout(Duration),
    /// The secret.
    #[error("the secret for ZooKeeper is empty")]
    Secret,
    /// The file with the secret.
    #[error("`zookeeper_secret_file = {}` cannot be read: {reason}", path.display())]
    SecretFile {
        /// As given.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No name of a cluster.
    #[error(
        "`zookeeper` is set, but `cluster` is not: name the cluster, the same for all its conductors and nodes"
    )]
    NoCluster,
    /// Something that only means something with ZooKeeper.
    #[error("`{0}` is set, but `zookeeper` is not: say where ZooKeeper is, or remove `{0}`")]
    NoZooKeeper(&'static str),
}

/// What a person can set, as written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ZooKeeperSettings<'a> {
    /// `host:port,host:port/chroot`
    pub zookeeper: Option<&'a str>,
    /// Name of the cluster.
    pub cluster: Option<&'a str>,
    /// File with the secret.
    pub zookeeper_secret_file: Option<&'a Path>,
    /// Session time-out in milliseconds.
    pub zookeeper_session_timeout_ms: Option<u64>,
}

impl ZooKeeperSettings<'_> {
    /// Checks them; nothing without `zookeeper`.
    pub fn in_force(self) -> Result<Option<ZooKeeperConfig>, ConfigError> {
        let Some(servers) = self.zookeeper else {
            return match self.without_purpose() {
                Some(key) => Err(ConfigError::NoZooKeeper(key)),
                None => Ok(None),
            };
        };
        let cluster = self.cluster.ok_or(ConfigError::NoCluster)?;
        let mut config = ZooKeeperConfig::new(servers, cluster)?;
        if let Some(path) = self.zookeeper_secret_file {
            let secret = std::fs::read_to_string(path).map_err(|error| {
                ConfigError::SecretFile { path: path.to_owned(), reason: error.to_string() }
            })?;
            config = config.with_secret(&secret)?;
        }
        if let Some(ms) = self.zookeeper_session_timeout_ms {
            config = config.with_session_timeout(Duration::from_millis(ms))?;
        }
        Ok(Some(config))
    }

    /// A key that means nothing without ZooKeeper.
    fn without_purpose(&self) -> Option<&'static str> {
        let keys = [
            ("cluster", self.cluster.is_some()),
            ("zookeeper_secret_file", self.zookeeper_secret_file.is_some()),
            ("zookeeper_session_timeout_ms", self.zookeeper_session_timeout_ms.is_some()),
        ];
        keys.into_iter().find_map(|(key, set)| set.then_some(key))
    }
}

impl ZooKeeperConfig {
    /// Servers as `host:port,host:port/chroot`, and the name of the cluster.
    pub fn new(servers: &str, cluster: &str) -> Result<Self, ConfigError> {
        let bad = |problem| ConfigError::Servers { text: servers.to_owned(), problem };
        let (list, chroot) = match servers.find('/') {
            Some(at) => servers.split_at(at),
            None => (servers, ""),
        };
        let chroot = chroot.trim_end_matches('/');
        if chroot.split('/').skip(1).any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(bad("the path has a part that cannot be"));
        }
        let servers = list.split(',').map(|server| server_of(server.trim()).ok_or(server));
        let servers = servers
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| bad("one of the servers is not HOST:PORT"))?;
        if !is_name(cluster) {
            return Err(ConfigError::Cluster(cluster.to_owned()));
        }
        Ok(Self {
            servers,
            root: format!("{chroot}/afs/{cluster}"),
            chroot: chroot.to_owned(),
            secret: None,
            session_timeout: DEFAULT_SESSION_TIMEOUT,
            watch_nodes: false,
        })
    }

    /// Entries are made for holders of this secret alone; without one they are open to everybody.
    pub fn with_secret(self, secret: &str) -> Result<Self, ConfigError> {
        match secret.trim() {
            "" => Err(ConfigError::Secret),
            secret => Ok(Self { secret: Some(secret.to_owned()), ..self }),
        }
    }

    /// After how long without a sign of life a process is taken for dead.
    pub fn with_session_timeout(self, session_timeout: Duration) -> Result<Self, ConfigError> {
        match SESSION_TIMEOUTS.contains(&session_timeout) {
            true => Ok(Self { session_timeout, ..self }),
            false => Err(ConfigError::Timeout(session_timeout)),
        }
    }

    /// Whether to follow which nodes are registered. Conductors do; a node has no use for it.
    pub fn watching_nodes(self, watch_nodes: bool) -> Self {
        Self { watch_nodes, ..self }
    }

    /// The connection string of the client. It has no path: the path may have to be made first.
    pub(crate) fn connect_string(&self) -> String {
        self.servers.join(",")
    }
}

fn server_of(text: &str) -> Option<String> {
    let is_host = |host: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        !host.is_empty() && host.bytes().all(plain)
    };
    // An IPv6 address has its colons in brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, DEFAULT_PORT),
    };
    (is_host(host) && port != 0).then(|| format!("{host}:{port}"))
}

/// The rule of the conductor's API for names.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 63
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_and_a_path_are_understood() {
        let config = ZooKeeperConfig::new("a:1,b.example, [2001:db8::1]:3/x/y/", "c1").unwrap();
        assert_eq!(config.connect_string(), "a:1,b.example:2181,[2001:db8::1]:3");
        assert_eq!(config.root, "/x/y/afs/c1");
        assert_eq!(ZooKeeperConfig::new("a", "c1").unwrap().root, "/afs/c1");
    }

    #[test]
    fn what_cannot_be_is_refused_with_an_example() {
        for servers in ["", "a:0", "a:b", "a,,b", "a b", "a/../x", "a//x", "tcp://a:1", ":1"] {
            let error = ZooKeeperConfig::new(servers, "c").unwrap_err().to_string();
            assert!(error.contains("192.0.2.1:2181"), "{servers}: {error}");
        }
        for cluster in ["", "A", "a/b", "..", "-a"] {
            let error = ZooKeeperConfig::new("a", cluster).unwrap_err();
            assert_eq!(error, ConfigError::Cluster(cluster.to_owned()));
        }
        let config = || ZooKeeperConfig::new("a", "c").unwrap();
        assert_eq!(config().with_secret(" \n"), Err(ConfigError::Secret));
        assert!(config().with_session_timeout(Duration::from_millis(10)).is_err());
    }

    #[test]
    fn settings_that_mean_nothing_alone_are_named() {
        let none = ZooKeeperSettings::default();
        assert_eq!(none.in_force(), Ok(None));
        let alone = ZooKeeperSettings { cluster: Some("c"), ..none };
        assert_eq!(alone.in_force(), Err(ConfigError::NoZooKeeper("cluster")));
        let nameless = ZooKeeperSettings { zookeeper: Some("a"), ..none };
        assert_eq!(nameless.in_force(), Err(ConfigError::NoCluster));
        let unread = ZooKeeperSettings {
            zookeeper: Some("a"),
            cluster: Some("c"),
            zookeeper_secret_file: Some(Path::new("/nowhere/secret")),
            ..none
        };
        assert!(unread.in_force().unwrap_err().to_string().contains("/nowhere/secret"));
        let whole = ZooKeeperSettings {
            zookeeper_secret_file: None,
            zookeeper_session_timeout_ms: Some(700),
            ..unread
        };
        let config = whole.in_force().unwrap().unwrap();
        assert_eq!(config.session_timeout, Duration::from_millis(700));
    }

    #[test]
    fn the_secret_is_not_shown() {
        let config = ZooKeeperConfig::new("a", "c").unwrap().with_secret("hush\n").unwrap();
        assert_eq!(config.secret.as_deref(), Some("hush"));
        assert!(!format!("{config:?}").contains("hush"));
    }
}
