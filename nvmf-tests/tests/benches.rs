//! Each benchmark runs in its tiny mode, so that it works when somebody wants a figure.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use nvmf_tests::bench::{BENCHES, Effort};
use nvmf_tests::scene::may_run;

fn run(name: &str) {
    let bench = BENCHES.iter().find(|bench| bench.name == name).unwrap();
    if may_run(bench.name, bench.kernels) {
        let table =
            (bench.run)(Effort::Tiny).map_err(|error| format!("{name}: {error:#}")).unwrap();
        println!("{table}");
    }
}

macro_rules! tiny {
    ($($test:ident: $name:literal;)*) => {
        $(#[test]
        fn $test() {
            run($name);
        })*

        #[test]
        fn every_benchmark_is_run() {
            let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

tiny! {
    instructions_runs: "instructions";
    instructions_rdma_runs: "instructions-rdma";
    loopback_runs: "loopback";
    store_runs: "store";
    start_runs: "start";
    replicated_runs: "replicated";
    failover_runs: "failover";
    freezes_run: "freezes";
    resync_runs: "resync";
    conductor_runs: "conductor";
    idle_runs: "idle";
}
