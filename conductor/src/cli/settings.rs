//! How the daemon is configured: flags, then environment, then the file, then the usual value.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use conductor::api::DEFAULT_LISTEN;
use conductor::names::nearest;
use conductor::server::ConductorConfig;
use serde::Deserialize;

use super::failure::Failure;

const DEFAULT_DATA_DIR: &str = "/var/lib/conductor";

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
    #[arg(long, env = "CONDUCTOR_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the API, without tokens or TLS: keep it on loopback or a trusted network
    /// [default: 127.0.0.1:49180]
    #[arg(long, env = "CONDUCTOR_API_LISTEN", value_name = "IP:PORT")]
    api_listen: Option<SocketAddr>,
    /// A node that did not report for this long is down [default: 10]
    #[arg(long, env = "CONDUCTOR_NODE_TIMEOUT_SECONDS", value_name = "SECONDS")]
    node_timeout_seconds: Option<u16>,
    /// How long a change waits for the nodes to put it into effect [default: 5]
    #[arg(long, env = "CONDUCTOR_APPLY_WAIT_SECONDS", value_name = "SECONDS")]
    apply_wait_seconds: Option<u16>,
    /// What to log, such as `info` or `conductor=debug` [default: info]
    #[arg(long, env = "CONDUCTOR_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How to log [default: text]
    #[arg(long, env = "CONDUCTOR_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

/// The keys, for suggestions; a test holds them against the fields.
const KEYS: [&str; 6] =
    ["data_dir", "api_listen", "node_timeout_seconds", "apply_wait_seconds", "log", "log_format"];

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LogFormat {
    /// For people.
    Text,
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
    /// Reads the file, if there is one, and puts everything together.
    pub(super) fn in_force(self) -> Result<InForce, Failure> {
        let file = match &self.config {
            Some(path) => read(path).map_err(Failure::Usage)?,
            None => Settings::default(),
        };
        self.settings.or(file).in_force().map_err(Failure::Usage)
    }
}

impl Settings {
    fn or(self, file: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(file.data_dir),
            api_listen: self.api_listen.or(file.api_listen),
            node_timeout_seconds: self.node_timeout_seconds.or(file.node_timeout_seconds),
            apply_wait_seconds: self.apply_wait_seconds.or(file.apply_wait_seconds),
            log: self.log.or(file.log),
            log_format: self.log_format.or(file.log_format),
        }
    }

    fn in_force(self) -> Result<InForce, String> {
        let listen = match self.api_listen {
            Some(listen) => listen,
            None => DEFAULT_LISTEN.parse().map_err(|error| format!("{DEFAULT_LISTEN}: {error}"))?,
        };
        let data_dir = self.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let mut conductor = ConductorConfig::new(data_dir, listen);
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
            log_format: self.log_format.unwrap_or(LogFormat::Text),
        })
    }
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
        let text = "data_dir = '/x'\napi_listen = '127.0.0.1:1'\nnode_timeout_seconds = 3\n\
                    apply_wait_seconds = 4\nlog = 'debug'\nlog_format = 'json'";
        assert_eq!(text.lines().count(), KEYS.len());
        let settings = parse(text).unwrap().in_force().unwrap();
        assert_eq!(settings.conductor.data_dir, Path::new("/x"));
        assert_eq!(settings.conductor.node_timeout, Duration::from_secs(3));
        assert_eq!(settings.conductor.apply_wait, Duration::from_secs(4));
        assert_eq!((settings.log.as_str(), settings.log_format), ("debug", LogFormat::Json));
    }

    #[test]
    fn mistyped_key_is_named_with_the_one_that_was_meant() {
        let error = parse("api_lisen = '127.0.0.1:1'").unwrap_err();
        assert!(error.contains("`api_lisen`") && error.contains("`api_listen`"), "{error}");
        let error = parse("colour = 'red'").unwrap_err();
        assert!(error.contains("data_dir, api_listen"), "{error}");
        assert!(parse("api_listen = 'here'").unwrap_err().contains("api_listen"));
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = parse("data_dir = '/flag'").unwrap();
        let both = flags.or(parse("data_dir = '/file'\nlog = 'warn'").unwrap());
        assert_eq!(both.data_dir.as_deref(), Some(Path::new("/flag")));
        assert_eq!(both.log.as_deref(), Some("warn"));
        assert!(parse("node_timeout_seconds = 0").unwrap().in_force().is_err());
    }
}
