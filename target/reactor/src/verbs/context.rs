//! What all reactors of the process share about one opened device: its asynchronous events, which
//! any of them may read, and whether it is gone.
//!
//! librdmacm opens a device once per process and keeps it open; when the last user of a removed
//! one is gone, [`SharedContext`] sees to it that it is closed (`removed`).

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use afs_verbs_sys as sys;
use parking_lot::Mutex;

use super::library::Verbs;
use super::removed::Descriptors;

/// The contexts that are in use, by their address.
#[derive(Default)]
pub(super) struct Contexts {
    known: Mutex<HashMap<usize, Weak<SharedContext>>>,
    /// Removed devices that could not be closed yet, though nothing is left on them.
    leftovers: Mutex<Vec<Descriptors>>,
}

impl Contexts {
    /// The shared state of `raw`, made when it is the first user's.
    ///
    /// # Safety
    /// `raw` is a live context of librdmacm that stays open as long as the result is held: the
    /// holder also holds an id that is bound to the device.
    pub(super) unsafe fn get(
        verbs: &Verbs,
        raw: *mut sys::ibv_context,
    ) -> io::Result<Arc<SharedContext>> {
        let mut known = verbs.contexts().known.lock();
        known.retain(|_, context| context.strong_count() > 0);
        if let Some(context) = known.get(&(raw as usize)).and_then(Weak::upgrade) {
            return Ok(context);
        }
        // SAFETY: the context is live.
        let (async_fd, cmd_fd, device) = unsafe { ((*raw).async_fd, (*raw).cmd_fd, (*raw).device) };
        set_nonblocking(async_fd)?;
        let descriptors = Descriptors::of(cmd_fd, async_fd);
        // It was not removed after all.
        verbs.contexts().leftovers.lock().retain(|leftover| *leftover != descriptors);
        // SAFETY: a live context points to its device.
        let is_iwarp = unsafe { (*device).transport_type } == sys::IBV_TRANSPORT_IWARP;
        let context = Arc::new(SharedContext {
            verbs: verbs.clone(),
            raw: ContextPointer(raw),
            is_iwarp,
            descriptors,
            removed: AtomicBool::new(false),
            fates: Mutex::new(HashMap::new()),
        });
        known.insert(raw as usize, Arc::downgrade(&context));
        Ok(context)
    }

    /// Closes removed devices that could not be closed when the last user let go of them.
    pub(super) fn close_leftovers(verbs: &Verbs) {
        let leftovers = std::mem::take(&mut *verbs.contexts().leftovers.lock());
        for leftover in leftovers {
            leave(verbs, leftover);
        }
    }
}

/// Closes a removed device that nobody uses, or notes it for later.
fn leave(verbs: &Verbs, descriptors: Descriptors) {
    if !descriptors.close_removed(verbs) {
        tracing::debug!("a removed RDMA device is still listed; closing it later");
        verbs.contexts().leftovers.lock().push(descriptors);
    }
}

/// The address of a context. Nothing is done with it here that libibverbs does not lock itself.
struct ContextPointer(*mut sys::ibv_context);

// SAFETY: contexts may be used by any thread, says libibverbs; the pointer itself never changes.
unsafe impl Send for ContextPointer {}
// SAFETY: as above.
unsafe impl Sync for ContextPointer {}

/// One opened device.
pub(super) struct SharedContext {
    verbs: Verbs,
    raw: ContextPointer,
    is_iwarp: bool,
    descriptors: Descriptors,
    removed: AtomicBool,
    /// The queue pairs of all reactors, by their number.
    fates: Mutex<HashMap<u32, Arc<Fate>>>,
}

impl SharedContext {
    pub(super) fn verbs(&self) -> &Verbs {
        &self.verbs
    }

    pub(super) fn raw(&self) -> *mut sys::ibv_context {
        self.raw.0
    }

    /// On iWARP the peer's answer to an RDMA READ is a write that needs remote rights.
    pub(super) fn is_iwarp(&self) -> bool {
        self.is_iwarp
    }

    /// The device is being removed.
    pub(super) fn mark_removed(&self) {
        self.removed.store(true, Ordering::Relaxed);
    }

    /// Enters a queue pair that wants to know what happens to it.
    pub(super) fn add_fate(&self, number: u32, fate: Arc<Fate>) {
        self.fates.lock().insert(number, fate);
    }

    /// The queue pair is destroyed. `fate` tells it from another that got the same number since.
    pub(super) fn remove_fate(&self, number: u32, fate: &Arc<Fate>) {
        let mut fates = self.fates.lock();
        if fates.get(&number).is_some_and(|known| Arc::ptr_eq(known, fate)) {
            fates.remove(&number);
        }
    }

    /// Reads and acknowledges all asynchronous events that are there.
    ///
    /// # Errors
    /// When no more will come: the device is gone.
    pub(super) fn drain_events(&self) -> io::Result<()> {
        loop {
            let mut event = std::mem::MaybeUninit::<sys::ibv_async_event>::uninit();
            // SAFETY: the context is open as long as `self` lives; a success fills the event.
            let code =
                unsafe { self.verbs.ib().ibv_get_async_event(self.raw(), event.as_mut_ptr()) };
            if code != 0 {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
                    _ => Err(error),
                };
            }
            // SAFETY: filled, as the call succeeded; acknowledged below, once.
            let mut event = unsafe { event.assume_init() };
            self.note(&event);
            // SAFETY: as above.
            unsafe { self.verbs.ib().ibv_ack_async_event(&raw mut event) };
        }
    }

    /// Passes an event on to the queue pairs that it is about.
    fn note(&self, event: &sys::ibv_async_event) {
        let kind = event.event_type;
        match kind {
            sys::IBV_EVENT_QP_FATAL | sys::IBV_EVENT_QP_REQ_ERR | sys::IBV_EVENT_QP_ACCESS_ERR => {
                self.note_pair(event, FATAL);
            }
            sys::IBV_EVENT_QP_LAST_WQE_REACHED => self.note_pair(event, DRAINED),
            sys::IBV_EVENT_CQ_ERR => {
                // SAFETY: this kind of event names a completion queue.
                let queue = unsafe { event.element.cq } as usize;
                self.note_all(|fate| fate.completions.contains(&queue));
            }
            sys::IBV_EVENT_SRQ_ERR => {
                // SAFETY: this kind of event names a shared receive queue.
                let queue = unsafe { event.element.srq } as usize;
                self.note_all(|fate| fate.receives == queue);
            }
            sys::IBV_EVENT_DEVICE_FATAL => {
                self.mark_removed();
                self.note_all(|_| true);
            }
            _ => tracing::debug!(kind, "event of an RDMA device"),
        }
    }

    fn note_pair(&self, event: &sys::ibv_async_event, flag: u32) {
        // SAFETY: this kind of event names a queue pair, which cannot be destroyed before the event
        // is acknowledged.
        let number = unsafe { (*event.element.qp).qp_num };
        let fate = self.fates.lock().get(&number).cloned();
        if let Some(fate) = fate {
            fate.set(flag);
        }
    }

    fn note_all(&self, concerned: impl Fn(&Fate) -> bool) {
        tracing::warn!("an RDMA device or a queue of it has failed");
        let fates: Vec<Arc<Fate>> =
            self.fates.lock().values().filter(|fate| concerned(fate)).cloned().collect();
        for fate in fates {
            fate.set(FATAL);
        }
    }
}

impl Drop for SharedContext {
    fn drop(&mut self) {
        if *self.removed.get_mut() {
            leave(&self.verbs, self.descriptors);
        }
    }
}

const FATAL: u32 = 1;
const DRAINED: u32 = 2;

/// What asynchronous events said about one queue pair, and whom to wake for it.
pub(super) struct Fate {
    flags: AtomicU32,
    waker: Mutex<Option<Waker>>,
    /// Addresses of the queues that it uses.
    completions: [usize; 2],
    receives: usize,
}

impl Fate {
    pub(super) fn new(
        completions: [*mut sys::ibv_cq; 2],
        receives: *mut sys::ibv_srq,
    ) -> Arc<Fate> {
        Arc::new(Fate {
            flags: AtomicU32::new(0),
            waker: Mutex::new(None),
            completions: completions.map(|queue| queue as usize),
            receives: receives as usize,
        })
    }

    /// Has the queue pair, or something that it needs, broken down?
    pub(super) fn is_fatal(&self) -> bool {
        self.flags.load(Ordering::Acquire) & FATAL != 0
    }

    /// Will it take no more receives from the shared queue?
    pub(super) fn is_drained(&self) -> bool {
        self.flags.load(Ordering::Acquire) & (DRAINED | FATAL) != 0
    }

    /// Whom to wake when one of these becomes true: ask again afterwards.
    pub(super) fn watch(&self, waker: &Waker) {
        let mut known = self.waker.lock();
        match known.as_mut() {
            Some(known) => known.clone_from(waker),
            None => *known = Some(waker.clone()),
        }
    }

    fn set(&self, flag: u32) {
        self.flags.fetch_or(flag, Ordering::AcqRel);
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Makes reading from a descriptor of the libraries return at once when there is nothing.
pub(super) fn set_nonblocking(fd: std::os::fd::RawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as the C object that the caller holds.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// Another descriptor of the same open file, to wait on for readability. One of our own, so that
/// it stays registered and open exactly as long as its owner wants.
pub(super) fn watch(fd: std::os::fd::RawFd) -> io::Result<Watched> {
    // SAFETY: the descriptor is open as long as the C object that the caller holds.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let own = rustix::io::fcntl_dupfd_cloexec(fd, 0)?;
    // SAFETY: the descriptor is owned by the result, which neither closes nor changes it while it
    // is registered.
    let watched = unsafe { Watched::register_with_interest(own, tokio::io::Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// A descriptor that the runtime watches.
pub(super) type Watched = tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>;
