//! Replays the corpus of the fuzz entry point: one command of each kind, each also with single bytes changed.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use afs_nvme::fuzz::fuzz_commands;

#[test]
fn parsers_survive_their_corpus_and_every_changed_byte_of_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/commands");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let input = std::fs::read(entry.unwrap().path()).unwrap();
        fuzz_commands(&input);
        for length in 0..input.len() {
            fuzz_commands(&input[..length]);
        }
        for position in 0..input.len().min(160) {
            let mut changed = input.clone();
            for value in 0..=u8::MAX {
                changed[position] = value;
                fuzz_commands(&changed);
            }
        }
        count += 1;
    }
    assert!(count >= 8, "{} holds {count} inputs", folder.display());
}
