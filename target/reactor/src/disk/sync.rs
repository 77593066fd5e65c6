//! One sync for many: everybody who asks while a sync is running shares the next one, on whichever
//! reactor they are. A sync covers the writes that had completed when it began, so nobody may
//! be served by one that was already running.
//!
//! A failed sync is final: the kernel may have dropped the data and would report success next
//! time, so every later one fails too.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use slab::Slab;

use super::DiskError;

struct State {
    /// Number of the last sync that began; they run one at a time.
    begun: u64,
    running: bool,
    failed: Option<i32>,
    waiters: Slab<Waker>,
}

/// The syncs of one disk.
pub(crate) struct SyncGroup {
    state: Mutex<State>,
}

/// What one who waits for a sync is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Return this.
    Finished(Result<(), DiskError>),
    /// The sync that is needed has not begun, and none is running: begin it.
    Begin,
}

impl SyncGroup {
    pub(super) fn new() -> SyncGroup {
        let state = State { begun: 0, running: false, failed: None, waiters: Slab::new() };
        SyncGroup { state: Mutex::new(state) }
    }

    /// The number of the sync that covers all writes completed by now.
    pub(super) fn goal(&self) -> u64 {
        self.state.lock().begun + 1
    }

    /// Waits until sync `goal` is over or should begin.
    pub(super) fn wait(&self, goal: u64) -> impl Future<Output = Turn> {
        Waiting { group: self, goal, key: None }
    }

    /// True when the caller must begin sync `goal` now and see to it that
    /// [`finish`](SyncGroup::finish) follows.
    pub(super) fn claim(&self, goal: u64) -> bool {
        let mut state = self.state.lock();
        let claimed = !state.running && state.begun < goal && state.failed.is_none();
        if claimed {
            state.begun += 1;
            state.running = true;
        }
        claimed
    }

    /// The running sync ended with the kernel's `result` (negative errno on failure).
    pub(crate) fn finish(&self, result: i32) {
        let mut state = self.state.lock();
        state.running = false;
        if result < 0 {
            state.failed = Some(-result);
        }
        for waker in state.waiters.drain() {
            waker.wake();
        }
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
        let finished = if state.running { state.begun - 1 } else { state.begun };
        if finished >= self.goal {
            return Some(Turn::Finished(Ok(())));
        }
        (!state.running).then_some(Turn::Begin)
    }
}

impl Future for Waiting<'_> {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
        let mut state = self.group.state.lock();
        if let Some(turn) = self.turn(&state) {
            return Poll::Ready(turn);
        }
        // Every finish empties the list, and so makes old keys void; a key may by then name
        // another waiter, who is woken in vain once at worst.
        let waker = context.waker();
        match self.key.and_then(|key| state.waiters.get_mut(key)) {
            Some(known) if known.will_wake(waker) => {}
            _ => {
                let key = state.waiters.insert(waker.clone());
                drop(state);
                self.key = Some(key);
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(group: &SyncGroup, goal: u64) -> Poll<Turn> {
        let mut waiting = std::pin::pin!(group.wait(goal));
        waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_asks_during_a_sync_is_served_by_the_next() {
        let group = SyncGroup::new();
        let first = group.goal();
        assert_eq!(turn(&group, first), Poll::Ready(Turn::Begin));
        assert!(group.claim(first));
        let second = group.goal();
        assert!(!group.claim(second));
        assert_eq!(turn(&group, second), Poll::Pending);
        group.finish(0);
        assert_eq!(turn(&group, first), Poll::Ready(Turn::Finished(Ok(()))));
        assert_eq!(turn(&group, second), Poll::Ready(Turn::Begin));
    }

    #[test]
    fn who_asked_together_shares_one_sync() {
        let group = SyncGroup::new();
        let (one, other) = (group.goal(), group.goal());
        assert!(group.claim(one));
        group.finish(0);
        assert!(!group.claim(other));
        assert_eq!(turn(&group, other), Poll::Ready(Turn::Finished(Ok(()))));
    }

    #[test]
    fn after_a_failed_sync_every_later_one_fails() {
        let group = SyncGroup::new();
        assert!(group.claim(group.goal()));
        group.finish(-libc::EIO);
        let failed = Poll::Ready(Turn::Finished(Err(DiskError::Io { errno: libc::EIO })));
        assert_eq!(turn(&group, group.goal()), failed);
        assert!(!group.claim(group.goal()));
    }
}
