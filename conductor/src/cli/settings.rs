//! How the daemon is configured: flags, then environment, then the file, then the usual value.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use afs_coordination::{ZooKeeperConfig, ZooKeeperSettings};
use clap::{Args, ValueEnum};
use conductor::api::DEFAULT_LISTEN;
use conductor::db::{Place, PostgresUrl};
use conductor::names::nearest;
use conductor::server::ConductorConfig;
use serde::Deserialize;

use super::failure::Failure;

const DEFAULT_DATA: &str = "/var/lib/conductor";

/// Each setting is a flag, an environment variable CONDUCTOR_..., and a key of the file.
#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Configuration file (TOML). Its keys are named like the flags, with `_` for `-`.
    #[arg(long, env = "CONDUCTOR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// What can be set. The field names are the keys of the file.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Folder of the database [default: /var/lib/conductor]
    #[arg(long, env = "CONDUCTOR_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// PostgreSQL database to use instead, such as postgres://afs@db.example/afs; its password may
    /// also be in PGPASSWORD or ~/.pgpass
    #[arg(long, env = "CONDUCTOR_DATABASE", value_name = "URL", hide_env_values = true)]
    database: Option<String>,
    /// Address of the API, without tokens or TLS: keep it on loopback or a trusted network. Its
    /// flag is the `--api` of the whole program.
    #[arg(skip)]
    api: Option<SocketAddr>,
    /// A node that did not report for this long is down [default: 10]
    #[arg(long, env = "CONDUCTOR_NODE_TIMEOUT_SECONDS", value_name = "SECONDS")]
    node_timeout_seconds: Option<u16>,
    /// How long a change waits for the nodes to put it into effect [default: 5]
    #[arg(long, env = "CONDUCTOR_APPLY_WAIT_SECONDS", value_name = "SECONDS")]
    apply_wait_seconds: Option<u16>,
    /// Servers of ZooKeeper, HOST:PORT,HOST:PORT/PATH, through which several conductors elect the
    /// active one [default: this conductor is alone]
    #[arg(long, env = "CONDUCTOR_ZOOKEEPER", value_name = "HOST:PORT,...")]
    zookeeper: Option<String>,
    /// Name of the cluster in ZooKeeper, the same for all its conductors and nodes
    #[arg(long, env = "CONDUCTOR_CLUSTER", value_name = "NAME")]
    cluster: Option<String>,
    /// File with the secret that keeps others out of the cluster's entries in ZooKeeper
    #[arg(long, env = "CONDUCTOR_ZOOKEEPER_SECRET_FILE", value_name = "FILE")]
    zookeeper_secret_file: Option<PathBuf>,
    /// After how long without a sign of life another conductor takes over [default: 3000]
    #[arg(long, env = "CONDUCTOR_ZOOKEEPER_SESSION_TIMEOUT_MS", value_name = "MS")]
    zookeeper_session_timeout_ms: Option<u64>,
    /// Where clients and other conductors find this one's API [default: where it listens]
    #[arg(long, env = "CONDUCTOR_ADVERTISE", value_name = "URL")]
    advertise: Option<String>,
    /// What to log, such as `info` or `conductor=debug` [default: info]
    #[arg(long, env = "CONDUCTOR_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How to log [default: human]
    #[arg(long, env = "CONDUCTOR_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

/// The keys, for suggestions; a test holds them against the fields.
const KEYS: [&str; 12] = [
    "data",
    "database",
    "api",
    "node_timeout_seconds",
    "apply_wait_seconds",
    "zookeeper",
    "cluster",
    "zookeeper_secret_file",
    "zookeeper_session_timeout_ms",
    "advertise",
    "log",
    "log_format",
];

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LogFormat {
    /// For people.
    Human,
    /// One object a line.
    Json,
}

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InForce {
    pub(super) conductor: ConductorConfig,
    pub(super) log: String,
    pub(super) log_format: LogFormat,
}

impl ServeArguments {
    /// Reads the file, if there is one, and puts everything together; `api` is the program's flag.
    pub(super) fn in_force(self, api: Option<&str>) -> Result<InForce, Failure> {
        let api = api.map(listen_address).transpose().map_err(Failure::Usage)?;
        let file = match &self.config {
            Some(path) => read(path).map_err(Failure::Usage)?,
            None => Settings::default(),
        };
        Settings { api, ..self.settings }.or(file).in_force().map_err(Failure::Usage)
    }
}

impl Settings {
    fn or(self, file: Self) -> Self {
        Self {
            data: self.data.or(file.data),
            database: self.database.or(file.database),
            api: self.api.or(file.api),
            node_timeout_seconds: self.node_timeout_seconds.or(file.node_timeout_seconds),
            apply_wait_seconds: self.apply_wait_seconds.or(file.apply_wait_seconds),
            zookeeper: self.zookeeper.or(file.zookeeper),
            cluster: self.cluster.or(file.cluster),
            zookeeper_secret_file: self.zookeeper_secret_file.or(file.zookeeper_secret_file),
            zookeeper_session_timeout_ms: self
                .zookeeper_session_timeout_ms
                .or(file.zookeeper_session_timeout_ms),
            advertise: self.advertise.or(file.advertise),
            log: self.log.or(file.log),
            log_format: self.log_format.or(file.log_format),
        }
    }

    fn zookeeper(&self) -> Result<Option<ZooKeeperConfig>, String> {
        let settings = ZooKeeperSettings {
            zookeeper: self.zookeeper.as_deref(),
            cluster: self.cluster.as_deref(),
            zookeeper_secret_file: self.zookeeper_secret_file.as_deref(),
            zookeeper_session_timeout_ms: self.zookeeper_session_timeout_ms,
        };
        settings.in_force().map_err(|error| error.to_string())
    }

    fn in_force(self) -> Result<InForce, String> {
        let zookeeper = self.zookeeper()?;
        let listen = match self.api {
            Some(listen) => listen,
            None => DEFAULT_LISTEN.parse().map_err(|error| format!("{DEFAULT_LISTEN}: {error}"))?,
        };
        let place = match self.database {
            Some(url) => {
                url.parse::<PostgresUrl>().map_err(|error| format!("database: {error}"))?.into()
            }
            None => Place::Folder(self.data.unwrap_or_else(|| DEFAULT_DATA.into())),
        };
        let mut conductor = ConductorConfig::new(place, listen);
        conductor.zookeeper = zookeeper;
        conductor.advertise = self.advertise.as_deref().map(advertised).transpose()?;
        match self.node_timeout_seconds {
            Some(0) => return Err("node_timeout_seconds must be at least 1".to_owned()),
            Some(seconds) => conductor.node_timeout = Duration::from_secs(seconds.into()),
            None => {}
        }
        if let Some(seconds) = self.apply_wait_seconds {
            conductor.apply_wait = Duration::from_secs(seconds.min(60).into());
        }
        Ok(InForce {
            conductor,
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or(LogFormat::Human),
        })
    }
}

/// The address of what may be written as a URL, so that one `--api` serves both ends.
fn listen_address(api: &str) -> Result<SocketAddr, String> {
    let address = api.strip_prefix("http://").unwrap_or(api).trim_end_matches('/');
    address.parse().map_err(|_| {
        format!("`--api {api}` cannot be listened on: write IP:PORT, such as {DEFAULT_LISTEN}")
    })
}

/// A URL that clients can put a path behind.
fn advertised(url: &str) -> Result<String, String> {
    let base = url.trim_end_matches('/');
    let is_base = base.strip_prefix("http://").is_some_and(|rest| {
        !rest.is_empty() && !rest.contains(['?', '#', ' ']) && !rest.starts_with('/')
    });
    if is_base {
        return Ok(base.to_owned());
    }
    Err(format!("`advertise = {url}` is no URL of an API: write http://HOST:PORT"))
}

fn read(path: &Path) -> Result<Settings, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the configuration file {shown}: {error}"))?;
    parse(&text).map_err(|error| format!("in the configuration file {shown}: {error}"))
}

fn parse(text: &str) -> Result<Settings, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(match nearest(unknown, KEYS) {
            Some(near) => format!("there is no key `{unknown}`; did you mean `{near}`?"),
            None => format!("there is no key `{unknown}`; the keys are {}", KEYS.join(", ")),
        });
    }
    toml::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_key_can_be_set_and_all_are_known() {
        let text = "data = '/x'\napi = '127.0.0.1:1'\nnode_timeout_seconds = 3\n\
                    apply_wait_seconds = 4\nzookeeper = 'a:1,b:2/x'\ncluster = 'c'\n\
                    zookeeper_secret_file = '/dev/stdin'\nzookeeper_session_timeout_ms = 900\n\
                    advertise = 'http://x:1/'\nlog = 'debug'\nlog_format = 'json'";
        // `database` takes the place of `data` and has a test of its own.
        assert_eq!(text.lines().count() + 1, KEYS.len());
        let written = parse(text).unwrap();
        let nowhere =
            Settings { zookeeper_secret_file: Some("/nowhere".into()), ..written.clone() };
        assert!(nowhere.in_force().unwrap_err().contains("/nowhere"));
        let settings = Settings { zookeeper_secret_file: None, ..written }.in_force().unwrap();
        let zookeeper = ZooKeeperConfig::new("a:1,b:2/x", "c").unwrap();
        let zookeeper = zookeeper.with_session_timeout(Duration::from_millis(900)).unwrap();
        assert_eq!(settings.conductor.zookeeper, Some(zookeeper));
        assert_eq!(settings.conductor.advertise.as_deref(), Some("http://x:1"));
        assert_eq!(settings.conductor.database, Path::new("/x").into());
        assert_eq!(settings.conductor.node_timeout, Duration::from_secs(3));
        assert_eq!(settings.conductor.apply_wait, Duration::from_secs(4));
        assert_eq!((settings.log.as_str(), settings.log_format), ("debug", LogFormat::Json));
    }

    #[test]
    fn the_readme_explains_every_key_and_shows_the_unit() {
        let readme = include_str!("../../../README.md");
        let (_, conductor) = readme.split_once("**A conductor** (`conductor.toml`):").unwrap();
        let (conductor, _) = conductor.split_once("## A cluster").unwrap();
        for key in KEYS {
            let named = format!("`{key}`");
            let first = |line: &str| line.split(" | ").next().unwrap_or("").contains(&named);
            assert!(conductor.lines().any(first), "`{key}` is not in the README");
        }
        let unit = include_str!("../../conductor.service");
        assert!(readme.contains(unit), "conductor.service is not in the README");
    }

    #[test]
    fn database_is_postgresql_and_its_password_is_not_shown() {
        let text = "data = '/x'\ndatabase = 'postgres://afs:secret@db.example/afs'";
        let place = parse(text).unwrap().in_force().unwrap().conductor.database;
        assert_eq!(place.to_string(), "postgres://afs@db.example:5432/afs");
        assert!(!format!("{place:?}").contains("secret"));
        for (url, part) in [
            ("mysql://db.example/afs", "postgres://"),
            ("db.example", "postgres://"),
            ("postgres://afs:secret@db.example", "names no database"),
            ("postgres://afs:secret@db.example:port/afs", "port"),
        ] {
            let text = format!("database = '{url}'");
            let error = parse(&text).unwrap().in_force().unwrap_err();
            assert!(error.contains(part) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn mistyped_key_is_named_with_the_one_that_was_meant() {
        let error = parse("appi = '127.0.0.1:1'").unwrap_err();
        assert!(error.contains("`appi`") && error.contains("`api`"), "{error}");
        let error = parse("colour = 'red'").unwrap_err();
        assert!(error.contains("data, database, api"), "{error}");
        assert!(parse("api = 'here'").unwrap_err().contains("api"));
    }

    #[test]
    fn the_api_is_listened_on_where_clients_look_for_it() {
        for api in ["127.0.0.1:7", "http://127.0.0.1:7", "http://127.0.0.1:7/"] {
            assert_eq!(listen_address(api), Ok(SocketAddr::from(([127, 0, 0, 1], 7))), "{api}");
        }
        for api in ["http://conductor.example:7", "127.0.0.1", "https://127.0.0.1:7", ""] {
            assert!(listen_address(api).unwrap_err().contains("IP:PORT"), "{api}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = parse("data = '/flag'").unwrap();
        let both = flags.or(parse("data = '/file'\nlog = 'warn'").unwrap());
        assert_eq!(both.data.as_deref(), Some(Path::new("/flag")));
        assert_eq!(both.log.as_deref(), Some("warn"));
        for wrong in ["node_timeout_seconds = 0", "cluster = 'c'", "advertise = 'x:1'"] {
            assert!(parse(wrong).unwrap().in_force().is_err(), "{wrong}");
        }
    }
}
