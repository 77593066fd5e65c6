//! The configuration file: TOML, with a word for every mistyped key.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::Settings;

/// All keys, for suggestions.
const KEYS: [&str; 18] = [
    "node",
    "data",
    "disk",
    "listen",
    "advertise",
    "peer_listen",
    "rack",
    "http",
    "conductor",
    "zookeeper",
    "cluster",
    "zookeeper_secret_file",
    "zookeeper_session_timeout_ms",
    "reactors",
    "buffers",
    "assume_whole_blocks",
    "log",
    "log_format",
];

/// How alike a mistyped key must be to a known one to be suggested, 0 to 1.
const LIKENESS_MIN: f64 = 0.7;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("the configuration file {path} cannot be read: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not TOML, or a value of the wrong type.
    #[error("the configuration file {path} is wrong:\n{error}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// A key that does not exist.
    #[error("the configuration file {path} has a key `{key}`, which does not exist; {hint}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What was meant perhaps.
        hint: String,
    },
}

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> Result<Settings, FileError> {
    let text =
        fs::read_to_string(path).map_err(|error| FileError::Read { path: path.into(), error })?;
    parse(&text, path)
}

pub(super) fn parse(text: &str, path: &Path) -> Result<Settings, FileError> {
    let wrong = |error| FileError::Toml { path: path.into(), error: Box::new(error) };
    let table: toml::Table = toml::from_str(text).map_err(wrong)?;
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(FileError::UnknownKey { path: path.into(), key: key.clone(), hint: hint(key) });
    }
    // From the text again, not from the table, so that an error can point at its line.
    toml::from_str(text).map_err(wrong)
}

fn hint(key: &str) -> String {
    let written = key.to_ascii_lowercase().replace('-', "_");
    let likeness = |known: &str| strsim::jaro_winkler(&written, known);
    let best = KEYS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best {
        Some(best) if likeness(best) >= LIKENESS_MIN => format!("did you mean `{best}`?"),
        _ => format!("the keys are {}", KEYS.join(", ")),
    }
}
