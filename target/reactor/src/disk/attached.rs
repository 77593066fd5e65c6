//! A disk as one ring knows it: the open file, and its place among the ring's registered files.
//! Every operation under way holds one, so the file stays open until the kernel is done with it.

use std::cell::Cell;
use std::os::fd::AsRawFd;

use io_uring::{squeue, types};

use super::DiskFile;
use crate::ring::Ring;

/// An open file together with the ring that works on it. It keeps the ring alive, so a ring with
/// operations under way is never torn down beneath the kernel.
pub(crate) struct AttachedFile {
    ring: Ring,
    file: DiskFile,
    registered: Option<u32>,
    durable_writes: Cell<u32>,
}

/// One durable write under way, counted until it is dropped.
pub(super) struct DurableWrite<'a>(&'a Cell<u32>);

impl Drop for DurableWrite<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl AttachedFile {
    pub(super) fn new(ring: &Ring, file: &DiskFile) -> AttachedFile {
        let registered = ring.register_file(file.fd().as_raw_fd());
        AttachedFile {
            ring: ring.clone(),
            file: file.clone(),
            registered,
            durable_writes: Cell::new(0),
        }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(super) fn file(&self) -> &DiskFile {
        &self.file
    }

    /// Counts one more durable write of this reactor; how many there are now, with it.
    pub(super) fn begin_durable_write(&self) -> (u32, DurableWrite<'_>) {
        let count = self.durable_writes.get() + 1;
        self.durable_writes.set(count);
        (count, DurableWrite(&self.durable_writes))
    }

    /// How an operation names this file.
    pub(super) fn target(&self) -> (types::Fd, squeue::Flags) {
        match self.registered.and_then(|index| i32::try_from(index).ok()) {
            Some(index) => (types::Fd(index), squeue::Flags::FIXED_FILE),
            None => (types::Fd(self.file.fd().as_raw_fd()), squeue::Flags::empty()),
        }
    }
}

impl Drop for AttachedFile {
    fn drop(&mut self) {
        if let Some(index) = self.registered {
            self.ring.unregister_file(index);
        }
    }
}
