//! One sync for many: everybody who asks while as many syncs run as may shares the next one, on
//! whichever reactor they are. A sync covers the writes that had completed when it began, so nobody
//! may be served by one that was already running.
//!
//! A few run at a time, so that the kernel always has the next one at hand when the disk is done
//! with one. They count in the order in which they began: one that ends early waits for those
//! before it.
//!
//! A failed sync is final: the kernel may have dropped the data and would report success next
//! time, so every later one fails too, those that run already included.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use slab::Slab;

use super::DiskError;

/// Syncs that run at a time, at most. More do not help: the kernel merges them, and each costs a
/// thread of it.
const RUNNING_MAX: u32 = 4;

struct State {
    /// Number of the last sync that began.
    begun: u64,
    /// This sync and all before it have succeeded.
    finished: u64,
    /// Bit n: sync `finished + 1 + n` has succeeded.
    ahead: u64,
    failed: Option<i32>,
    /// Who waits for which sync.
    waiters: Slab<(u64, Waker)>,
}

impl State {
    fn may_begin(&self, goal: u64) -> bool {
        let running = self.begun - self.finished - u64::from(self.ahead.count_ones());
        // The order of numbers leaves gaps for as long as an early one runs; they have to fit.
        let fits = self.begun - self.finished < u64::from(u64::BITS);
        self.begun < goal && running < u64::from(RUNNING_MAX) && fits && self.failed.is_none()
    }

    fn succeeded(&mut self, number: u64) {
        self.ahead |= 1 << (number - self.finished - 1);
        let whole = self.ahead.trailing_ones();
        self.finished += u64::from(whole);
        self.ahead = self.ahead.checked_shr(whole).unwrap_or(0);
    }
}

/// The syncs of one disk.
pub(crate) struct SyncGroup {
    state: Mutex<State>,
}

/// A sync that runs; whoever learns its result must say so.
pub(crate) struct RunningSync {
    group: Arc<SyncGroup>,
    number: u64,
}

/// What one who waits for a sync is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Return this.
    Finished(Result<(), DiskError>),
    /// The sync that is needed has not begun, and may: begin it.
    Begin,
}

impl SyncGroup {
    pub(super) fn new() -> SyncGroup {
        let waiters = Slab::new();
        SyncGroup {
            state: Mutex::new(State { begun: 0, finished: 0, ahead: 0, failed: None, waiters }),
        }
    }

    /// The number of the sync that covers all writes completed by now.
    pub(super) fn goal(&self) -> u64 {
        self.state.lock().begun + 1
    }

    /// Waits until sync `goal` is over or should begin.
    pub(super) fn wait(&self, goal: u64) -> impl Future<Output = Turn> {
        Waiting { group: self, goal, key: None }
    }

    /// The sync `goal`, when the caller must begin it now and see to it that
    /// [`finish`](RunningSync::finish) follows.
    pub(super) fn claim(self: &Arc<Self>, goal: u64) -> Option<RunningSync> {
        let mut state = self.state.lock();
        state.may_begin(goal).then(|| {
            state.begun += 1;
            RunningSync { group: Arc::clone(self), number: state.begun }
        })
    }
}

impl RunningSync {
    /// It ended with the kernel's `result` (negative errno on failure).
    pub(crate) fn finish(self, result: i32) {
        let mut guard = self.group.state.lock();
        let state = &mut *guard;
        if result < 0 {
            state.failed = Some(-result);
        } else {
            state.succeeded(self.number);
        }
        let (finished, begun, failed) = (state.finished, state.begun, state.failed.is_some());
        state.waiters.retain(|_, (goal, waker)| {
            let runs = !failed && *goal > finished && *goal <= begun;
            if !runs {
                waker.wake_by_ref();
            }
            runs
        });
    }
}

struct Waiting<'a> {
    group: &'a SyncGroup,
    goal: u64,
    key: Option<usize>,
}

impl Waiting<'_> {
    fn turn(&self, state: &State) -> Option<Turn> {
        if let Some(errno) = state.failed {
            return Some(Turn::Finished(Err(DiskError::from_errno(errno))));
        }
        if state.finished >= self.goal {
            return Some(Turn::Finished(Ok(())));
        }
        state.may_begin(self.goal).then_some(Turn::Begin)
    }
}

impl Future for Waiting<'_> {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
        let mut state = self.group.state.lock();
        if let Some(turn) = self.turn(&state) {
            return Poll::Ready(turn);
        }
        // A wake voids the key. It may by then name another waiter: that of another task is left
        // alone, that of our own task for the same sync does for both.
        let waker = context.waker();
        let goal = self.goal;
        match self.key.and_then(|key| state.waiters.get(key)) {
            Some((known, theirs)) if *known == goal && theirs.will_wake(waker) => {}
            _ => {
                let key = state.waiters.insert((goal, waker.clone()));
                drop(state);
                self.key = Some(key);
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn turn(group: &SyncGroup, goal: u64) -> Poll<Turn> {
        let mut waiting = std::pin::pin!(group.wait(goal));
        waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A group in which as many syncs run as may.
    fn busy() -> (Arc<SyncGroup>, Vec<RunningSync>) {
        let group = Arc::new(SyncGroup::new());
        let running = (0..RUNNING_MAX).map(|_| group.claim(group.goal()).unwrap()).collect();
        (group, running)
    }

    const DONE: Poll<Turn> = Poll::Ready(Turn::Finished(Ok(())));

    #[test]
    fn who_asks_during_a_sync_is_served_by_the_next() {
        let group = Arc::new(SyncGroup::new());
        let first = group.goal();
        assert_eq!(turn(&group, first), Poll::Ready(Turn::Begin));
        let running = group.claim(first).unwrap();
        let second = group.goal();
        assert_eq!(turn(&group, first), Poll::Pending);
        running.finish(0);
        assert_eq!(turn(&group, first), DONE);
        assert_eq!(turn(&group, second), Poll::Ready(Turn::Begin));
    }

    #[test]
    fn who_asks_while_many_syncs_run_waits_and_shares_one() {
        let (group, mut running) = busy();
        let (one, other) = (group.goal(), group.goal());
        assert_eq!(one, other);
        assert_eq!(turn(&group, one), Poll::Pending);
        assert!(group.claim(one).is_none());
        running.remove(0).finish(0);
        assert_eq!(turn(&group, one), Poll::Ready(Turn::Begin));
        running.push(group.claim(one).unwrap());
        assert!(group.claim(other).is_none());
        for sync in running {
            assert_eq!(turn(&group, other), Poll::Pending);
            sync.finish(0);
        }
        assert_eq!(turn(&group, one), DONE);
        assert_eq!(turn(&group, other), DONE);
    }

    #[test]
    fn a_sync_counts_when_those_before_it_have_ended() {
        let (group, mut running) = busy();
        running.remove(1).finish(0);
        assert_eq!(turn(&group, 2), Poll::Pending);
        running.remove(0).finish(0);
        assert_eq!(turn(&group, 2), DONE);
        assert_eq!(turn(&group, 3), Poll::Pending);
    }

    #[test]
    fn a_sync_that_never_ends_holds_up_a_bounded_number_of_others() {
        let group = Arc::new(SyncGroup::new());
        let stuck = group.claim(group.goal()).unwrap();
        let mut others = 0;
        while let Some(sync) = group.claim(group.goal()) {
            sync.finish(0);
            others += 1;
        }
        assert_eq!(others, u64::BITS - 1);
        let last = group.goal() - 1;
        assert_eq!(turn(&group, last), Poll::Pending);
        stuck.finish(0);
        assert_eq!(turn(&group, last), DONE);
        assert!(group.claim(group.goal()).is_some());
    }

    #[test]
    fn after_a_failed_sync_every_later_one_fails() {
        let (group, mut running) = busy();
        running.remove(1).finish(0);
        running.remove(0).finish(-libc::EIO);
        for goal in 1..=group.goal() {
            let failed = Poll::Ready(Turn::Finished(Err(DiskError::Io { errno: libc::EIO })));
            assert_eq!(turn(&group, goal), failed);
        }
        assert!(group.claim(group.goal()).is_none());
        for sync in running {
            sync.finish(0);
        }
        assert!(matches!(turn(&group, 3), Poll::Ready(Turn::Finished(Err(_)))));
    }
}
