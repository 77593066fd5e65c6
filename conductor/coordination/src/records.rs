//! What conductors and nodes write about themselves, as JSON. Fields that a reader does not know
//! are ignored, so a newer writer may add some; one that changes a meaning raises `version`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The form of records that this code writes, and the newest that it reads.
const VERSION: u32 = 1;

/// A conductor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConductorRecord {
    /// Where clients find its API, such as `http://192.0.2.1:49180`.
    pub api: String,
    /// The machine that it runs on, for people.
    #[serde(default)]
    pub host: String,
    /// Version of its software.
    #[serde(default)]
    pub software: String,
    /// The token under which it decides; none while it stands by.
    #[serde(default)]
    pub token: Option<i64>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name in the cluster.
    pub name: String,
    /// The machine and the data folder. Who registers under a name from the same place takes over
    /// from its own earlier life; from another place it has to wait.
    #[serde(default)]
    pub place: String,
    /// Where hosts connect, such as `tcp://192.0.2.1:4420`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Where other nodes connect.
    #[serde(default)]
    pub internal: Vec<String>,
    /// Where its metrics and status are.
    #[serde(default)]
    pub http: Option<String>,
    /// Its disks.
    #[serde(default)]
    pub disks: Vec<DiskRecord>,
    /// Bytes on all working disks that keep data.
    #[serde(default)]
    pub capacity_bytes: u64,
    /// Version of its software.
    #[serde(default)]
    pub software: String,
}

/// A disk of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// Identity of the disk.
    pub uuid: Uuid,
    /// Path on the node.
    pub path: String,
    /// Bytes on it.
    pub total_bytes: u64,
    /// Whether it works.
    pub online: bool,
}

#[derive(Serialize)]
struct Written<'a, T> {
    version: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

pub(crate) fn write<T: Serialize>(record: &T) -> Vec<u8> {
    // Records are structs of texts, numbers and lists, which all have a JSON form.
    serde_json::to_vec(&Written { version: VERSION, record }).unwrap_or_default()
}

/// The record, unless it is of a version that is not known here, or damaged.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let Version { version } = serde_json::from_slice(bytes).ok()?;
    (version <= VERSION).then(|| serde_json::from_slice(bytes).ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written() {
        let disk =
            DiskRecord { uuid: Uuid::new_v4(), path: "/x".into(), total_bytes: 7, online: true };
        let node = NodeRecord { name: "n1".into(), disks: vec![disk], ..NodeRecord::default() };
        assert_eq!(read(&write(&node)), Some(node));
        let conductor = ConductorRecord {
            api: "http://127.0.0.1:1".into(),
            host: "h".into(),
            software: "0".into(),
            token: Some(3),
        };
        assert_eq!(read(&write(&conductor)), Some(conductor));
    }

    #[test]
    fn newer_fields_are_ignored_and_newer_versions_are_not_guessed_at() {
        let newer = br#"{"version":1,"api":"http://a","colour":"red"}"#;
        assert_eq!(read::<ConductorRecord>(newer).unwrap().api, "http://a");
        for unreadable in
            [&br#"{"version":2,"api":"http://a"}"#[..], br#"{"api":"http://a"}"#, b"", b"\xff"]
        {
            assert_eq!(read::<ConductorRecord>(unreadable), None);
        }
    }
}
