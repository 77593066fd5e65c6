//! The disk ring of one reactor: an io_uring, and a bounded table of operations under way.
//!
//! A future asks for a slot (in order of arrival while all are taken), queues its operation and
//! waits. The driver task, woken by the first operation of a scheduling round, hands all of that
//! round to the kernel in one call and wakes those whose operations have completed. The kernel
//! wakes the reactor through an eventfd.
//!
//! Why dropping a future is sound: buffer and file of an operation belong to its slot, and a
//! slot is only cleared when its completion has been seen. See `slots`.

mod driver;
mod operation;
mod setup;
mod slots;
mod turn;

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::task::Waker;
use std::time::{Duration, Instant};

use io_uring::{IoUring, squeue};

use crate::buffer::{BufferPool, REGISTRATION_BYTES};
use crate::counters::Counters;
use slots::Slots;
use turn::{Kernel, Turns};

pub(crate) use driver::drive;
pub(crate) use slots::Payload;

/// How many files are registered with one ring; further ones are used unregistered.
const FILES: u32 = 64;

/// How long a reactor that ends waits for the kernel to finish its operations.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

struct Inner {
    uring: RefCell<IoUring>,
    slots: RefCell<Slots>,
    eventfd: OwnedFd,
    /// The pool that is registered; held because the kernel knows its addresses.
    pool: BufferPool,
    buffers_registered: bool,
    /// Free places in the table of registered files.
    files: RefCell<Vec<u32>>,
    driver: RefCell<Option<Waker>>,
    turns: Turns,
    /// Something was queued since the driver last ran, and the driver knows.
    driver_woken: Cell<bool>,
    counters: Counters,
}

/// The disk ring of one reactor. Clones are handles to the same ring. Used through
/// [`RingDisk`](crate::RingDisk).
#[derive(Clone)]
pub struct Ring {
    inner: Rc<Inner>,
}

impl Ring {
    /// How many operations are queued or with the kernel.
    pub fn under_way(&self) -> usize {
        self.inner.slots.borrow().under_way()
    }

    /// How many operations there can be at once.
    pub fn capacity(&self) -> usize {
        self.inner.slots.borrow().capacity()
    }

    /// Is the buffer pool registered with the kernel?
    pub fn has_registered_buffers(&self) -> bool {
        self.inner.buffers_registered
    }

    /// Is there anything that the driver should do? Looks at memory only.
    pub(crate) fn is_ready(&self) -> bool {
        self.inner.turns.is_ready(self)
    }

    /// The registered buffer that these bytes lie in.
    pub(crate) fn registered_buffer(&self, pool: &BufferPool, address: *const u8) -> Option<u16> {
        if !self.inner.buffers_registered || !pool.same_as(&self.inner.pool) {
            return None;
        }
        let (base, _) = self.inner.pool.pieces().next()?;
        u16::try_from((address as usize - base.as_ptr() as usize) / REGISTRATION_BYTES).ok()
    }

    /// Registers an open file, which makes operations on it cheaper; `None` when there is no place.
    pub(crate) fn register_file(&self, file: RawFd) -> Option<u32> {
        let index = self.inner.files.borrow_mut().pop()?;
        let uring = self.inner.uring.borrow();
        match uring.submitter().register_files_update(index, &[file]) {
            Ok(_) => Some(index),
            Err(_) => {
                self.inner.files.borrow_mut().push(index);
                None
            }
        }
    }

    /// Takes a registered file out again; none of its operations is under way.
    pub(crate) fn unregister_file(&self, index: u32) {
        let uring = self.inner.uring.borrow();
        if uring.submitter().register_files_update(index, &[-1]).is_ok() {
            self.inner.files.borrow_mut().push(index);
        }
    }

    /// Queues an operation for the next hand-over to the kernel.
    ///
    /// # Safety
    /// All memory and the file that `entry` names stay valid, and the memory unused by others,
    /// until the completion of `entry` has been seen: its slot holds them.
    unsafe fn push(&self, entry: &squeue::Entry) {
        loop {
            // SAFETY: what this function demands of its caller.
            let pushed = unsafe { self.inner.uring.borrow_mut().submission().push(entry) };
            if pushed.is_ok() {
                break;
            }
            // Not reached: there are as many places in the queue as slots. If it were, the kernel
            // would make room.
            self.turn();
        }
        if !self.inner.driver_woken.replace(true)
            && let Some(driver) = self.inner.driver.borrow().as_ref()
        {
            driver.wake_by_ref();
        }
    }

    /// The kernel announced work.
    fn note_event(&self) {
        self.inner.turns.note_event();
    }

    /// Hands over what is queued and handles what has completed, until neither is left. Returns
    /// false when the kernel could not take everything now.
    fn turn(&self) -> bool {
        self.inner.driver_woken.set(false);
        self.inner.turns.run(self)
    }

    fn count_enter(&self, result: &std::io::Result<usize>) {
        let shared = self.inner.counters.shared();
        shared.ring_enters.add(1);
        if let Ok(taken) = result {
            shared.ring_submissions.add(*taken as u64);
        }
    }

    fn next_completion(&self) -> Option<(u32, i32)> {
        let mut uring = self.inner.uring.borrow_mut();
        let entry = uring.completion().next()?;
        Some((u32::try_from(entry.user_data()).ok()?, entry.result()))
    }

    /// Clears a slot and gives it to the next in line.
    fn release(&self, slot: u32) {
        let contents = self.inner.slots.borrow_mut().clear(slot);
        drop(contents);
        let waker = self.inner.slots.borrow_mut().hand_on(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until the kernel has let go of everything. Called when no task is left.
    pub(crate) fn drain(&self) {
        let deadline = Instant::now() + DRAIN_LIMIT;
        while self.under_way() > 0 {
            self.turn();
            if self.under_way() == 0 {
                break;
            }
            if Instant::now() > deadline {
                tracing::error!("disk operations never completed; their memory is given up");
                // Memory that the kernel may still write to must never be used again.
                std::mem::forget(self.clone());
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn eventfd(&self) -> RawFd {
        self.inner.eventfd.as_raw_fd()
    }
}

impl Kernel for Ring {
    fn is_queued(&self) -> bool {
        let mut uring = self.inner.uring.borrow_mut();
        let queue = uring.submission();
        !queue.is_empty() || queue.cq_overflow()
    }

    fn is_flagged(&self) -> bool {
        self.inner.uring.borrow_mut().submission().taskrun()
    }

    fn is_completed(&self) -> bool {
        !self.inner.uring.borrow_mut().completion().is_empty()
    }

    fn enter(&self, quiet: bool) -> bool {
        let mut uring = self.inner.uring.borrow_mut();
        let queued = uring.submission().len();
        if quiet {
            uring.completion().disable_eventfd();
        }
        let result = uring.submit();
        if quiet {
            uring.completion().enable_eventfd();
            // Either the kernel sees that events are wanted, or we see what it did before.
            fence(Ordering::SeqCst);
        }
        drop(uring);
        self.count_enter(&result);
        match result {
            Ok(taken) => taken >= queued,
            Err(error) => {
                let transient = [libc::EINTR, libc::EAGAIN, libc::EBUSY];
                if !error.raw_os_error().is_some_and(|errno| transient.contains(&errno)) {
                    tracing::error!(%error, "the disk ring does not take operations");
                }
                false
            }
        }
    }

    fn reap(&self) -> u64 {
        let mut reaped = 0;
        while let Some((slot, result)) = self.next_completion() {
            reaped += 1;
            // Two steps, so that neither waking nor dropping happens while the table is borrowed.
            let completed = self.inner.slots.borrow_mut().complete(slot, result);
            if completed.release {
                self.release(slot);
            }
            if let Some(sync) = completed.detached {
                sync.finish(result);
            }
            if let Some(waker) = completed.waker {
                waker.wake();
            }
        }
        if reaped > 0 {
            self.inner.counters.shared().ring_completions.add(reaped);
            self.inner.counters.note_work();
        }
        reaped
    }
}
