//! Making a ring: which features the kernel offers, what it lets us register, and what to tell a
//! person when it does not.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Once;

use io_uring::IoUring;
use rustix::event::EventfdFlags;

use super::slots::Slots;
use super::turn::Turns;
use super::{FILES, Inner, Ring};
use crate::buffer::BufferPool;
use crate::counters::Counters;

const MAX_ENTRIES: u32 = 4096;

impl Ring {
    /// Makes the ring of the calling thread, which alone may use it, for up to `entries`
    /// operations at once, and registers `pool` and a table of files with it if allowed.
    ///
    /// # Errors
    /// When this kernel or container offers no io_uring; the message says what to change.
    pub(crate) fn new(entries: u32, pool: &BufferPool, counters: Counters) -> io::Result<Ring> {
        let entries = entries.clamp(1, MAX_ENTRIES).next_power_of_two();
        let uring = build(entries).map_err(explain)?;
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        uring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        let buffers_registered = register_buffers(&uring, pool);
        // Without the table, operations name their file by descriptor, which works as well.
        let files = match uring.submitter().register_files_sparse(FILES) {
            Ok(()) => (0..FILES).rev().collect(),
            Err(_) => Vec::new(),
        };
        let inner = Inner {
            uring: RefCell::new(uring),
            slots: RefCell::new(Slots::new(entries)),
            eventfd,
            pool: pool.clone(),
            buffers_registered,
            files: RefCell::new(files),
            driver: RefCell::new(None),
            turns: Turns::default(),
            driver_woken: Cell::new(false),
            counters,
        };
        Ok(Ring { inner: Rc::new(inner) })
    }
}

/// Completions are worked off when we ask for them (kernel 6.1), else at the next system call
/// (5.19), else whenever they come.
fn build(entries: u32) -> io::Result<IoUring> {
    let mut deferred = IoUring::builder();
    deferred.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
    let mut cooperative = IoUring::builder();
    cooperative.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    let mut result = Err(io::Error::from_raw_os_error(libc::EINVAL));
    for mut builder in [deferred, cooperative, IoUring::builder()] {
        result = builder.dontfork().build(entries);
        match &result {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            _ => break,
        }
    }
    result
}

fn explain(error: io::Error) -> io::Error {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "io_uring is forbidden here: set the sysctl kernel.io_uring_disabled to 0, and in a container allow the io_uring system calls"
        }
        Some(libc::ENOSYS) => "this kernel has no io_uring: Linux 5.15 or later is needed",
        Some(libc::ENOMEM) => {
            "not enough locked memory for a ring: raise RLIMIT_MEMLOCK (ulimit -l, or LimitMEMLOCK= of the systemd unit)"
        }
        Some(libc::EMFILE | libc::ENFILE) => "too many open files: raise RLIMIT_NOFILE (ulimit -n)",
        _ => "no io_uring could be made",
    };
    io::Error::new(error.kind(), format!("{advice} ({error})"))
}

fn register_buffers(uring: &IoUring, pool: &BufferPool) -> bool {
    let pieces: Vec<libc::iovec> = pool
        .pieces()
        .map(|(base, bytes)| libc::iovec { iov_base: base.as_ptr().cast(), iov_len: bytes })
        .collect();
    // SAFETY: the pieces are the pool's arena, which the ring keeps mapped by holding the pool for
    // longer than the kernel's ring exists (fields of `Inner` drop in order, `uring` first).
    match unsafe { uring.submitter().register_buffers(&pieces) } {
        Ok(()) => true,
        Err(error) => {
            warn_unregistered(&error, pool.total_bytes());
            false
        }
    }
}

fn warn_unregistered(error: &io::Error, bytes: usize) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            %error,
            "buffers are not registered with the disk ring, which costs some CPU per operation: \
             raise RLIMIT_MEMLOCK (ulimit -l, or LimitMEMLOCK= of the systemd unit) to at least \
             {} KiB for each reactor",
            bytes / 1024
        );
    });
}
