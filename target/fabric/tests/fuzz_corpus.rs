//! Replays the corpora of the fuzz entry points: streams that once reached something of interest.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use afs_fabric::fuzz::{fuzz_host_codec, fuzz_target_codec};

fn replay(folder: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        // Every piece size and every switch of the entry point, not only the one in the file.
        for control in 0..=255 {
            let mut input = bytes.clone();
            if let Some(first) = input.first_mut() {
                *first = control;
            }
            run(&input);
        }
        count += 1;
    }
    assert!(count >= 3, "{} holds {count} inputs", folder.display());
}

#[test]
fn target_codec_survives_its_corpus() {
    replay("target", fuzz_target_codec);
}

#[test]
fn host_codec_survives_its_corpus() {
    replay("host", fuzz_host_codec);
}
