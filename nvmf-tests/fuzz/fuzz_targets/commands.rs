//! Any bytes as a command of every kind with its data: understood and written again alike, or a status.
//!
//! One minute of it, from the root of the checkout:
//! ```text
//! cargo install cargo-fuzz
//! mkdir -p nvmf-tests/fuzz/corpus/commands
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir nvmf-tests/fuzz --target-dir build/fuzz commands \
//!     nvmf-tests/fuzz/corpus/commands target/nvme/tests/corpus/commands -- -max_total_time=60 -max_len=8192
//! ```
//! What it finds goes to `corpus` and `artifacts` in `nvmf-tests/fuzz`; neither is committed. An input worth keeping
//! goes to `target/nvme/tests/corpus/commands`, which the tests of that crate replay.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| afs_nvme::fuzz::fuzz_commands(data));
