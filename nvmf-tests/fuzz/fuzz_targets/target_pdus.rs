//! Any bytes as a host's connection to a target: no panic, no standstill, no request for more than the limits.
//!
//! One minute of it, from the root of the checkout:
//! ```text
//! cargo install cargo-fuzz
//! mkdir -p nvmf-tests/fuzz/corpus/target_pdus
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir nvmf-tests/fuzz --target-dir build/fuzz target_pdus \
//!     nvmf-tests/fuzz/corpus/target_pdus target/fabric/tests/corpus/target -- -max_total_time=60
//! ```
//! What it finds goes to `corpus` and `artifacts` in `nvmf-tests/fuzz`; neither is committed. An input worth keeping
//! goes to `target/fabric/tests/corpus/target`, which the tests of that crate replay.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| afs_fabric::fuzz::fuzz_target_codec(data));
