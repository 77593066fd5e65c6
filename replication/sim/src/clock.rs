//! Virtual time: moves only when every task waits.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use afs_env::Clock;

#[derive(Default)]
struct Inner {
    now: u64,
    sleepers: Vec<(u64, Waker)>,
}

/// A clock that the executor moves; clones show the same time.
#[derive(Clone, Default)]
pub struct SimClock(Rc<RefCell<Inner>>);

impl SimClock {
    /// Moves time to the next sleeper's end and wakes it. False if nobody sleeps.
    pub(crate) fn advance(&self) -> bool {
        let mut inner = self.0.borrow_mut();
        let Some(next) = inner.sleepers.iter().map(|(at, _)| *at).min() else { return false };
        inner.now = inner.now.max(next);
        let due = inner.sleepers.extract_if(.., |(at, _)| *at <= next).collect::<Vec<_>>();
        drop(inner);
        due.into_iter().for_each(|(_, waker)| waker.wake());
        true
    }
}

impl Clock for SimClock {
    fn now(&self) -> u64 {
        self.0.borrow().now
    }

    async fn sleep(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let end = self.now().saturating_add(nanoseconds);
        poll_fn(|context| {
            let mut inner = self.0.borrow_mut();
            if inner.now >= end {
                return Poll::Ready(());
            }
            inner.sleepers.push((end, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}
