//! Any bytes as a target's answers to a host with commands outstanding: no panic, no standstill.
//!
//! One minute of it, from the root of the checkout:
//! ```text
//! cargo install cargo-fuzz
//! mkdir -p nvmf-tests/fuzz/corpus/host_pdus
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir nvmf-tests/fuzz --target-dir build/fuzz host_pdus \
//!     nvmf-tests/fuzz/corpus/host_pdus target/fabric/tests/corpus/host -- -max_total_time=60
//! ```
//! What it finds goes to `corpus` and `artifacts` in `nvmf-tests/fuzz`; neither is committed. An input worth keeping
//! goes to `target/fabric/tests/corpus/host`, which the tests of that crate replay.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| afs_fabric::fuzz::fuzz_host_codec(data));
