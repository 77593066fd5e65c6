//! A large cluster to measure a conductor with: many nodes in one process, each of which reports,
//! waits for its state, claims what it leads and accuses peers over the conductor's API, as real
//! nodes do.
//!
//! `fleet prepare PLACE NODES VOLUMES EXPORTED` fills an empty MetaDB, without a conductor.
//!
//! `fleet run API NODES SECONDS` brings all nodes up within so many seconds and prints `ready SECONDS CLAIMS LOST`. Each line that
//! it is then given kills a node; it prints what became of that: `led held decided-ms told-ms claimed-ms dropped-ms lost`. What is
//! lost are volumes that were taken from nodes that did not die, so far.
#![allow(clippy::unwrap_used, reason = "a tool for measurements: whatever fails ends it")]

mod node;
mod prepare;
mod run;

use std::time::Duration;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match words.as_slice() {
        ["prepare", place, nodes, volumes, exported] => {
            let [nodes, volumes, exported] =
                [nodes, volumes, exported].map(|word| word.parse::<u32>().unwrap());
            runtime.block_on(prepare::prepare(place, nodes, volumes, exported));
        }
        ["run", api, nodes, seconds] => {
            let spread = Duration::from_secs_f64(seconds.parse().unwrap());
            runtime.block_on(run::run(api, nodes.parse().unwrap(), spread));
        }
        _ => panic!("fleet prepare PLACE NODES VOLUMES EXPORTED | fleet run API NODES SECONDS"),
    }
}
