//! Reactors and disk files for the tests of this folder.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use afs_reactor::{Buffer, BufferPool, DiskFile, DiskOptions, ReactorConfig, Reactors};
use tempfile::TempDir;

pub const BLOCK: usize = 4096;

pub fn reactors(threads: usize, ring_entries: u32) -> Reactors {
    let config = ReactorConfig {
        cores: Vec::new(),
        threads,
        buffer_bytes: 8 << 20,
        ring_entries,
        poll: Duration::from_micros(20),
    };
    Reactors::start(config).unwrap()
}

/// A new disk file on the file system of the build, not on a tmpfs.
pub fn disk(bytes: u64) -> (TempDir, DiskFile) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = DiskOptions { create_size: Some(bytes), ..DiskOptions::default() };
    let file = DiskFile::open(folder.path().join("disk"), &options).unwrap();
    (folder, file)
}

pub async fn filled(pool: &BufferPool, len: usize, byte: u8) -> Buffer {
    let mut buffer = pool.alloc(len).await;
    buffer.fill(byte);
    buffer.freeze()
}

/// A small generator with a seed, so that a failing run can be repeated.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
