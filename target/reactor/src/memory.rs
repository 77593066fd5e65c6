//! Memory straight from the kernel: the arena under a buffer pool, and a page run that is
//! always zero. Called by `buffer` and `disk`; nothing here knows what a buffer is.

use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// A private anonymous mapping, page-aligned, zero at first, unmapped on drop.
pub(crate) struct Arena {
    base: NonNull<u8>,
    bytes: usize,
}

impl Arena {
    /// Maps `bytes` of readable and writable memory. Pages become resident when first touched
    /// or registered with a ring; huge pages are asked for and used only when there.
    pub(crate) fn new(bytes: usize) -> io::Result<Arena> {
        let base = map(bytes, ProtFlags::READ | ProtFlags::WRITE)?;
        for advice in [Advice::LinuxDontFork, Advice::LinuxHugepage] {
            // SAFETY: the range is the fresh mapping above, and neither advice changes contents.
            // Both are optimisations: a kernel without them serves just as well.
            let _ = unsafe { rustix::mm::madvise(base.as_ptr().cast(), bytes, advice) };
        }
        Ok(Arena { base, bytes })
    }

    /// First byte of the mapping.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length of the mapping in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `base..base + bytes` is exactly our mapping, and every handle into it holds
        // the pool that owns this arena, so none is left.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Length of [`zeros`] in bytes.
pub(crate) const ZEROS_BYTES: usize = 1 << 20;

/// A megabyte of zeros, page-aligned, never written and never unmapped. It costs no memory:
/// every page is the kernel's zero page.
pub(crate) fn zeros() -> io::Result<&'static [u8]> {
    static ZEROS: OnceLock<Option<&'static [u8]>> = OnceLock::new();
    ZEROS
        .get_or_init(|| {
            let base = map(ZEROS_BYTES, ProtFlags::READ).ok()?;
            // SAFETY: the mapping is `ZEROS_BYTES` long, initialised by the kernel, read-only,
            // and lives until the process ends.
            Some(unsafe { std::slice::from_raw_parts(base.as_ptr(), ZEROS_BYTES) })
        })
        .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}

fn map(bytes: usize, protection: ProtFlags) -> io::Result<NonNull<u8>> {
    // SAFETY: a new private mapping at an address of the kernel's choice aliases nothing.
    let base = unsafe {
        rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE)?
    };
    NonNull::new(base.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
}
