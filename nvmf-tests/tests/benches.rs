//! Each benchmark runs in its tiny mode, so that it works when somebody wants a figure; those that count instructions run in
//! `instructions.rs`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod tiny;

use nvmf_tests::bench::BENCHES;
use tiny::run;

/// Those of `instructions.rs`.
const ELSEWHERE: [&str; 2] = ["instructions", "instructions-rdma"];

macro_rules! tiny {
    ($($test:ident: $name:literal;)*) => {
        $(#[test]
        fn $test() {
            run($name);
        })*

        #[test]
        fn every_benchmark_is_run() {
            let all = BENCHES.iter().map(|bench| bench.name);
            let names: Vec<&str> = all.filter(|name| !ELSEWHERE.contains(name)).collect();
            assert_eq!(names, [$($name),*]);
            assert_eq!(names.len() + ELSEWHERE.len(), BENCHES.len());
        }
    };
}

tiny! {
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
