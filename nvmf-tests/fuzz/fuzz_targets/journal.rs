//! Any bytes as the journal of a disk that is opened after a crash: replay understands them or names the damage.
//!
//! One minute of it, from the root of the checkout:
//! ```text
//! cargo install cargo-fuzz
//! mkdir -p nvmf-tests/fuzz/corpus/journal
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir nvmf-tests/fuzz --target-dir build/fuzz journal \
//!     nvmf-tests/fuzz/corpus/journal replication/store/fuzz/corpus/journal -- -max_total_time=60 -max_len=65536
//! ```
//! What it finds goes to `corpus` and `artifacts` in `nvmf-tests/fuzz`; neither is committed. An input worth keeping
//! goes to `replication/store/fuzz/corpus/journal`, which the tests of that crate replay.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    afs_store::fuzz_journal(data);
});
