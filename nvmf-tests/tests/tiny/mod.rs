//! A benchmark in its tiny mode.

use nvmf_tests::bench::{BENCHES, Effort};
use nvmf_tests::scene::may_run;

/// Runs the benchmark of this name, and shows its table.
pub fn run(name: &str) {
    let bench = BENCHES.iter().find(|bench| bench.name == name).unwrap();
    if may_run(bench.name, bench.kernels) {
        let table =
            (bench.run)(Effort::Tiny).map_err(|error| format!("{name}: {error:#}")).unwrap();
        println!("{table}");
    }
}
