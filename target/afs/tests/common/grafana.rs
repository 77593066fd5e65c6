//! The files of `grafana/`: which metrics they use.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where they are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../grafana")
}

/// All metrics of dashboards and alerts, histograms by their own names.
pub fn metrics_in_use() -> BTreeSet<String> {
    let files = ["dashboards/afs-node.json", "dashboards/afs-cluster.json", "rules.yml"];
    let text: String = files.map(|file| fs::read_to_string(folder().join(file)).unwrap()).concat();
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let ours = words.filter(|word| word.starts_with("afs_") || word.starts_with("conductor_"));
    let whole = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        let part = parts.iter().find_map(|part| word.strip_suffix(part));
        part.unwrap_or(word).to_owned()
    };
    ours.map(whole).collect()
}
