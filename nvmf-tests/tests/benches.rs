//! Each benchmark runs in its tiny mode, so that it works when somebody wants a figure.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use nvmf_tests::bench::{BENCHES, Effort};
use nvmf_tests::scene::may_run;

#[test]
fn every_benchmark_runs_in_its_tiny_mode() {
    for bench in BENCHES {
        if may_run(bench.name, bench.kernels) {
            let table = (bench.run)(Effort::Tiny)
                .map_err(|error| format!("{}: {error:#}", bench.name))
                .unwrap();
            println!("{table}");
        }
    }
}
