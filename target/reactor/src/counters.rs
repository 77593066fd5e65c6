//! What a reactor counts about itself. Written by its own thread only, with plain loads and stores
//! that cost no more than a `Cell`; read by anybody, for metrics and for watchdogs.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A number with one writer.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }
}

/// The numbers of one reactor.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) socket_calls: Count,
    pub(crate) rounds: Count,
    pub(crate) polls: Count,
    pub(crate) parks: Count,
    pub(crate) ring_enters: Count,
    pub(crate) ring_submissions: Count,
    pub(crate) ring_completions: Count,
    pub(crate) rdma_doorbells: Count,
    pub(crate) rdma_armings: Count,
    pub(crate) rdma_events: Count,
    pub(crate) rdma_completions: Count,
    pub(crate) rdma_registered: Count,
    pub(crate) rdma_queue_pairs: Count,
    pub(crate) rdma_receives: Count,
    pub(crate) rdma_receives_wanted: Count,
    pub(crate) work: Count,
    pub(crate) pool_free: Count,
    pub(crate) pool_total: Count,
    pub(crate) last_ran_ns: Count,
    pub(crate) parked: AtomicBool,
}

/// After so much work without a pause, a reactor looks at what it otherwise sees in its pauses.
const LOOK_AFTER: u64 = 64;

/// The counters of the reactor on whose thread this is; see [`Local::counters`](crate::Local::counters).
#[derive(Clone)]
pub struct Counters {
    shared: Arc<Shared>,
    /// Each number has one writer: the reactor's thread.
    not_send: PhantomData<*const ()>,
}

impl Counters {
    /// The caller is on the thread that will do all the counting.
    pub(crate) fn new(shared: Arc<Shared>) -> Counters {
        Counters { shared, not_send: PhantomData }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Counts `calls` system calls on sockets.
    pub fn count_socket_calls(&self, calls: u64) {
        self.shared.socket_calls.add(calls);
    }

    /// Says that something useful was done, so that the reactor goes on polling for a moment
    /// before it sleeps.
    pub fn note_work(&self) {
        self.shared.work.add(1);
        if self.shared.work.get().is_multiple_of(LOOK_AFTER) {
            crate::idle::while_busy();
        }
    }
}

/// A snapshot of one reactor's counters. All counts run from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReactorStats {
    /// System calls on sockets that were counted.
    pub socket_calls: u64,
    /// Times that the reactor ran out of work and asked the system for more (`epoll_wait`).
    pub rounds: u64,
    /// Those of the rounds that only looked, because work was expected soon.
    pub polls: u64,
    /// Those of the rounds that slept until there was work.
    pub parks: u64,
    /// System calls on the disk ring (`io_uring_enter`).
    pub ring_enters: u64,
    /// Operations handed to the disk ring.
    pub ring_submissions: u64,
    /// Operations that the disk ring completed.
    pub ring_completions: u64,
    /// Calls that handed work requests to RDMA devices. On an adapter they are writes to its memory; soft RDMA makes a
    /// system call of each.
    pub rdma_doorbells: u64,
    /// Times that a reactor asked an RDMA device to wake it, before it slept.
    pub rdma_armings: u64,
    /// System calls that read such a wake-up.
    pub rdma_events: u64,
    /// Completions of RDMA work requests and received messages.
    pub rdma_completions: u64,
    /// Bytes registered with RDMA devices when the reactor last ran out of work, and so the other three.
    pub rdma_registered_bytes: u64,
    /// RDMA queue pairs.
    pub rdma_queue_pairs: u64,
    /// Receives that are ready for messages.
    pub rdma_receives_posted: u64,
    /// Receives that there should be: fewer are posted while the pool is empty.
    pub rdma_receives_wanted: u64,
    /// Bytes free in the buffer pool when the reactor last ran out of work.
    pub pool_free_bytes: u64,
    /// Size of the buffer pool in bytes.
    pub pool_total_bytes: u64,
    /// When the reactor last ran out of work or woke, on the clock of
    /// [`boottime_ns`](crate::clock::boottime_ns).
    pub last_ran_ns: u64,
    /// Is it asleep because there is nothing to do? If not, and `last_ran_ns` is long ago, it is
    /// stuck in a task, stopped or starved.
    pub parked: bool,
}

impl ReactorStats {
    /// System calls in all: sockets, ring, RDMA wake-ups and waiting. What RDMA devices are told takes none on adapters;
    /// see `rdma_doorbells`.
    pub fn syscalls(&self) -> u64 {
        self.socket_calls + self.ring_enters + self.rdma_events + self.rounds
    }

    pub(crate) fn read(shared: &Shared) -> ReactorStats {
        ReactorStats {
            socket_calls: shared.socket_calls.get(),
            rounds: shared.rounds.get(),
            polls: shared.polls.get(),
            parks: shared.parks.get(),
            ring_enters: shared.ring_enters.get(),
            ring_submissions: shared.ring_submissions.get(),
            ring_completions: shared.ring_completions.get(),
            rdma_doorbells: shared.rdma_doorbells.get(),
            rdma_armings: shared.rdma_armings.get(),
            rdma_events: shared.rdma_events.get(),
            rdma_completions: shared.rdma_completions.get(),
            rdma_registered_bytes: shared.rdma_registered.get(),
            rdma_queue_pairs: shared.rdma_queue_pairs.get(),
            rdma_receives_posted: shared.rdma_receives.get(),
            rdma_receives_wanted: shared.rdma_receives_wanted.get(),
            pool_free_bytes: shared.pool_free.get(),
            pool_total_bytes: shared.pool_total.get(),
            last_ran_ns: shared.last_ran_ns.get(),
            parked: shared.parked.load(Ordering::Relaxed),
        }
    }
}
