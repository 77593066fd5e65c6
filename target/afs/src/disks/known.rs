//! Which identity a disk had, by how it is written in the settings. A null disk has no other place to keep its identity,
//! and a damaged disk can still be reported under the one that it had.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::DiskFailure;
use crate::data_folder::replace_file;

const FILE: &str = "disks.json";
const VERSION: u32 = 1;

/// The contents of `disks.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KnownDisks {
    version: u32,
    disks: BTreeMap<String, Uuid>,
}

impl KnownDisks {
    pub(super) fn load(data: &Path) -> Result<KnownDisks, DiskFailure> {
        let failed = |error: &dyn std::fmt::Display| {
            DiskFailure::known(
                data.join(FILE),
                error,
                "remove it: null disks then get new identities",
            )
        };
        let text = match fs::read(data.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(KnownDisks { version: VERSION, disks: BTreeMap::new() });
            }
            Err(error) => return Err(failed(&error)),
        };
        let known: KnownDisks = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
        if known.version != VERSION {
            return Err(failed(&format_args!(
                "it has version {}, this program reads {VERSION}",
                known.version
            )));
        }
        Ok(known)
    }

    pub(super) fn save(&self, data: &Path) -> Result<(), DiskFailure> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        text.and_then(|text| replace_file(data, FILE, &text)).map_err(|error| {
            DiskFailure::known(data.join(FILE), &error, "make the data folder writable")
        })
    }

    /// The identity of the disk written as `name`; a new one at first.
    pub(super) fn uuid_of(&mut self, name: &str) -> Uuid {
        *self.disks.entry(name.to_owned()).or_insert_with(Uuid::new_v4)
    }

    /// The identity that the disk written as `name` had.
    pub(super) fn find(&self, name: &str) -> Option<Uuid> {
        self.disks.get(name).copied()
    }

    /// Remembers what was found on a disk.
    pub(super) fn note(&mut self, name: &str, uuid: Uuid) {
        self.disks.insert(name.to_owned(), uuid);
    }
}
