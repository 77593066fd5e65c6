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
    /// System calls in all: sockets, ring and waiting.
    pub fn syscalls(&self) -> u64 {
        self.socket_calls + self.ring_enters + self.rounds
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
            pool_free_bytes: shared.pool_free.get(),
            pool_total_bytes: shared.pool_total.get(),
            last_ran_ns: shared.last_ran_ns.get(),
            parked: shared.parked.load(Ordering::Relaxed),
        }
    }
}
