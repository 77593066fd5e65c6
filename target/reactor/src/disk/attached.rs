//! A disk as one ring knows it: the open file, and its place among the ring's registered files.
//! Every operation under way holds one, so the file stays open until the kernel is done with it.

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
}

impl AttachedFile {
    pub(super) fn new(ring: &Ring, file: &DiskFile) -> AttachedFile {
        let registered = ring.register_file(file.fd().as_raw_fd());
        AttachedFile { ring: ring.clone(), file: file.clone(), registered }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(super) fn file(&self) -> &DiskFile {
        &self.file
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
