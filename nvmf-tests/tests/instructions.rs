//! The benchmarks that count instructions, in their tiny mode. Their guests have a clock of their own, so they run beside the other
//! tests.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod tiny;

use tiny::run;

#[test]
fn instructions_over_tcp_are_counted() {
    run("instructions");
}

#[test]
fn instructions_over_rdma_are_counted() {
    run("instructions-rdma");
}
