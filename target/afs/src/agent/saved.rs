//! What the conductor last said, in the data folder: a restart serves at once, whoever else is away.

use std::path::{Path, PathBuf};
use std::{fs, io};

use conductor::api::NodeState;
use serde::{Deserialize, Serialize};

use crate::data_folder::replace_file;

const FILE: &str = "state.json";
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    state: &'a NodeState,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Deserialize)]
struct Saved {
    state: NodeState,
}

/// Why there is no saved state.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is damaged.
    #[error("{path} is damaged ({error}); it will be replaced at the conductor's next answer")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// Written by a newer program.
    #[error("{path} has version {found}, this program reads version {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// The state that was saved last, if any was.
pub(super) fn load(data: &Path) -> Result<Option<NodeState>, SavedError> {
    let path = data.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SavedError::Io { path, error }),
    };
    let damaged = |error| SavedError::Damaged { path: path.clone(), error };
    let Versioned { version: found } = serde_json::from_slice(&text).map_err(damaged)?;
    if found != VERSION {
        return Err(SavedError::Version { path, found });
    }
    serde_json::from_slice(&text).map(|saved: Saved| Some(saved.state)).map_err(damaged)
}

/// Replaces the saved state; durable when it returns.
pub(super) fn save(data: &Path, state: &NodeState) -> Result<(), SavedError> {
    let path = data.join(FILE);
    let failed = |error| SavedError::Io { path: path.clone(), error };
    let text = serde_json::to_vec(&Written { version: VERSION, state })
        .map_err(|error| failed(error.into()))?;
    replace_file(data, FILE, &text).map_err(failed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::agent::tests::state;

    #[test]
    fn what_was_saved_is_loaded_again() {
        let data = tempfile::tempdir().unwrap();
        assert!(load(data.path()).unwrap().is_none());
        for revision in [3, 4] {
            save(data.path(), &state(revision)).unwrap();
            assert_eq!(load(data.path()).unwrap(), Some(state(revision)));
        }
    }

    #[test]
    fn a_damaged_or_newer_file_is_said_to_be_that() {
        let data = tempfile::tempdir().unwrap();
        save(data.path(), &state(3)).unwrap();
        let whole = fs::read(data.path().join(FILE)).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(data.path().join(FILE), &whole[..cut]).unwrap();
            assert!(matches!(load(data.path()), Err(SavedError::Damaged { .. })), "cut at {cut}");
        }
        fs::write(data.path().join(FILE), br#"{"version":9,"state":{}}"#).unwrap();
        assert!(matches!(load(data.path()), Err(SavedError::Version { found: 9, .. })));
    }
}
