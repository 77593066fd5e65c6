//! A completion queue of one reactor on one device, and the channel through which it wakes a
//! reactor that sleeps. There are two: one for messages that arrive, one for requests that end (see
//! `poll`).
//!
//! Invariants:
//! 1. `reserved <= capacity`: there is room for a completion of every request that the queues in
//!    use can hold, so the queue never overflows.
//! 2. When `armed` is set, the next completion makes an event on the channel, or has made one that
//!    was not read yet. So who sleeps while `armed` is set, having found the queue empty after
//!    it was set, is woken.

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll};

use afs_verbs_sys as sys;

use crate::verbs::context::{SharedContext, Watched, set_nonblocking, watch};
use crate::verbs::error::{check, context as in_context};

/// How many completions are taken out at once.
const BATCH: usize = 32;

/// Completions that were taken out of the queue but not handled yet.
struct Stash {
    entries: [sys::ibv_wc; BATCH],
    filled: usize,
    taken: usize,
}

pub(in crate::verbs) struct Completions {
    watched: Watched,
    raw: NonNull<sys::ibv_cq>,
    channel: NonNull<sys::ibv_comp_channel>,
    context: Arc<SharedContext>,
    stash: RefCell<Stash>,
    armed: Cell<bool>,
    /// Events read but not acknowledged: that takes a lock, so it is done for many at once.
    unacknowledged: Cell<u32>,
    capacity: Cell<u32>,
    reserved: Cell<u32>,
    max: u32,
    pub(super) polls: Cell<u64>,
    pub(super) armings: Cell<u64>,
}

/// Acknowledge at the latest when so many events have been read.
const ACKNOWLEDGE_AT: u32 = 256;

impl Completions {
    /// A queue with room for `reserved` completions, and for `more` if the device has that much.
    pub(super) fn new(
        context: Arc<SharedContext>,
        reserved: u32,
        more: u32,
        max: u32,
    ) -> io::Result<Completions> {
        if reserved > max {
            return Err(too_many(max));
        }
        let verbs = context.verbs().clone();
        // SAFETY: the context is open.
        let channel = NonNull::new(unsafe { verbs.ib().ibv_create_comp_channel(context.raw()) })
            .ok_or_else(io::Error::last_os_error)?;
        let mut made = Unfinished { context: &context, channel: Some(channel) };
        // SAFETY: made above.
        let fd = unsafe { channel.as_ref() }.fd;
        set_nonblocking(fd)?;
        let watched = watch(fd)?;
        let entries = i32::try_from(reserved.saturating_add(more).min(max)).unwrap_or(i32::MAX);
        let none = std::ptr::null_mut();
        // SAFETY: context and channel are live.
        let raw = NonNull::new(unsafe {
            verbs.ib().ibv_create_cq(context.raw(), entries, none, channel.as_ptr(), 0)
        })
        .ok_or_else(|| in_context("RDMA completion queue", &io::Error::last_os_error()))?;
        made.channel = None;
        drop(made);
        // SAFETY: a struct of numbers, for which zero is a value.
        let entries = unsafe { std::mem::zeroed() };
        Ok(Completions {
            watched,
            raw,
            channel,
            context,
            stash: RefCell::new(Stash { entries, filled: 0, taken: 0 }),
            armed: Cell::new(false),
            unacknowledged: Cell::new(0),
            capacity: Cell::new(capacity(raw)),
            reserved: Cell::new(reserved),
            max,
            polls: Cell::new(0),
            armings: Cell::new(0),
        })
    }

    pub(in crate::verbs) fn raw(&self) -> *mut sys::ibv_cq {
        self.raw.as_ptr()
    }

    /// How many completions it holds.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity.get()
    }

    /// Sets room aside for `entries` more completions; `release` gives it back.
    pub(in crate::verbs) fn reserve(&self, entries: u32) -> io::Result<()> {
        let wanted = self.reserved.get().saturating_add(entries);
        if wanted > self.capacity.get() {
            self.grow(wanted)?;
        }
        self.reserved.set(wanted);
        Ok(())
    }

    pub(in crate::verbs) fn release(&self, entries: u32) {
        self.reserved.set(self.reserved.get().saturating_sub(entries));
    }

    /// Is there a completion to handle? Looks at memory only.
    pub(super) fn is_ready(&self) -> bool {
        let mut stash = self.stash.borrow_mut();
        if stash.taken < stash.filled {
            return true;
        }
        stash.taken = 0;
        stash.filled = self.poll(&mut stash.entries);
        stash.filled > 0
    }

    /// The next completion.
    pub(super) fn next(&self) -> Option<sys::ibv_wc> {
        if !self.is_ready() {
            return None;
        }
        let mut stash = self.stash.borrow_mut();
        let entry = stash.entries.get(stash.taken).copied();
        stash.taken += 1;
        entry
    }

    /// Wants to be woken by the next completion. There may be one already: look once more. True when the device had
    /// to be told.
    pub(super) fn arm(&self) -> bool {
        if self.armed.get() {
            return false;
        }
        // SAFETY: a live queue.
        match check(unsafe { sys::ibv_req_notify_cq(self.raw(), 0) }) {
            Ok(()) => {
                self.armed.set(true);
                self.armings.set(self.armings.get() + 1);
            }
            // Only a device that is gone refuses, and that is known from elsewhere.
            Err(error) => tracing::debug!(%error, "an RDMA completion queue cannot be armed"),
        }
        true
    }

    /// Reads the event that woke the reactor, if any; says how many system calls that took. Remembers the
    /// waker for the next. There is one at most, as the queue is armed again only after it was read.
    pub(super) fn poll_woken(&self, cx: &mut Context<'_>) -> io::Result<u64> {
        let mut calls = 0;
        while let Poll::Ready(ready) = self.watched.poll_read_ready(cx) {
            let mut ready = ready?;
            self.read_event()?;
            calls += 1;
            ready.clear_ready();
        }
        Ok(calls)
    }

    fn read_event(&self) -> io::Result<()> {
        let (mut queue, mut user) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: a live channel; both pointers are to locals.
        let code = unsafe {
            self.context.verbs().ib().ibv_get_cq_event(
                self.channel.as_ptr(),
                &raw mut queue,
                &raw mut user,
            )
        };
        if code != 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            };
        }
        self.armed.set(false);
        self.unacknowledged.set(self.unacknowledged.get() + 1);
        if self.unacknowledged.get() >= ACKNOWLEDGE_AT {
            self.acknowledge();
        }
        Ok(())
    }

    fn acknowledge(&self) {
        let count = self.unacknowledged.take();
        if count > 0 {
            // SAFETY: so many events of this queue were read and not acknowledged.
            unsafe { self.context.verbs().ib().ibv_ack_cq_events(self.raw(), count) };
        }
    }

    fn poll(&self, entries: &mut [sys::ibv_wc; BATCH]) -> usize {
        self.polls.set(self.polls.get() + 1);
        let room = i32::try_from(BATCH).unwrap_or(0);
        // SAFETY: a live queue, used by this thread alone, with room for a batch.
        let count = unsafe { sys::ibv_poll_cq(self.raw(), room, entries.as_mut_ptr()) };
        if count < 0 {
            tracing::debug!(count, "an RDMA completion queue cannot be read");
        }
        usize::try_from(count).unwrap_or(0).min(BATCH)
    }

    fn grow(&self, wanted: u32) -> io::Result<()> {
        if wanted > self.max {
            return Err(too_many(self.max));
        }
        let entries = wanted.checked_next_power_of_two().unwrap_or(wanted).min(self.max);
        let entries = i32::try_from(entries).unwrap_or(i32::MAX);
        // SAFETY: a live queue, used by this thread alone.
        let code = unsafe { self.context.verbs().ib().ibv_resize_cq(self.raw(), entries) };
        check(code).map_err(|error| {
            in_context("the RDMA completion queue cannot grow for another connection", &error)
        })?;
        self.capacity.set(capacity(self.raw));
        if self.capacity.get() < wanted {
            return Err(too_many(self.capacity.get()));
        }
        Ok(())
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        self.acknowledge();
        let ib = self.context.verbs().ib();
        // SAFETY: no queue pair uses it any more, all its events are acknowledged, and the channel
        // has no other queue.
        let (queue, channel) = unsafe {
            (
                check(ib.ibv_destroy_cq(self.raw())),
                check(ib.ibv_destroy_comp_channel(self.channel.as_ptr())),
            )
        };
        super::warn_undestroyed("completion queue", queue);
        super::warn_undestroyed("completion channel", channel);
    }
}

/// Destroys the channel when the queue cannot be made.
struct Unfinished<'a> {
    context: &'a SharedContext,
    channel: Option<NonNull<sys::ibv_comp_channel>>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(channel) = self.channel {
            // SAFETY: live, with no queue on it.
            unsafe { self.context.verbs().ib().ibv_destroy_comp_channel(channel.as_ptr()) };
        }
    }
}

fn capacity(queue: NonNull<sys::ibv_cq>) -> u32 {
    // SAFETY: a live queue, which only this thread resizes.
    u32::try_from(unsafe { queue.as_ref() }.cqe).unwrap_or(0)
}

fn too_many(max: u32) -> io::Error {
    let message = format!(
        "the RDMA device's completion queues hold {max} entries, which is not enough for another connection on this reactor"
    );
    io::Error::new(io::ErrorKind::QuotaExceeded, message)
}
