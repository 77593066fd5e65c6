//! Virtual time: moves only when every task waits, from one planned event to the next.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use afs_env::Clock;

/// When, and a number that makes it unique.
type Key = (u64, u64);

enum Event {
    Wake(Waker),
    Run(Box<dyn FnOnce()>),
}

#[derive(Default)]
struct Inner {
    now: u64,
    planned: BTreeMap<Key, Event>,
    number: u64,
}

impl Inner {
    fn plan(&mut self, at: u64, event: Event) -> Key {
        self.number += 1;
        let key = (at.max(self.now), self.number);
        self.planned.insert(key, event);
        key
    }
}

/// The world's time, which the executor moves; clones show the same.
#[derive(Clone, Default)]
pub struct SimClock(Rc<RefCell<Inner>>);

impl SimClock {
    /// Moves time to the next planned event and lets it happen. False if there is none.
    pub(crate) fn advance(&self) -> bool {
        let event = {
            let mut inner = self.0.borrow_mut();
            let Some(((at, _), event)) = inner.planned.pop_first() else { return false };
            inner.now = at;
            event
        };
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Run(action) => action(),
        }
        true
    }

    /// Lets `action` happen at a later moment, between the tasks and belonging to none of them.
    pub fn after(&self, delay: Duration, action: impl FnOnce() + 'static) {
        let mut inner = self.0.borrow_mut();
        let at = inner.now.saturating_add(nanoseconds(delay));
        inner.plan(at, Event::Run(Box::new(action)));
    }

    /// Forgets everything that was planned.
    pub(crate) fn clear(&self) {
        let planned = std::mem::take(&mut self.0.borrow_mut().planned);
        drop(planned);
    }

    fn sleep_until(&self, end: u64) -> Sleep<'_> {
        Sleep { clock: self, end, key: None }
    }
}

impl Clock for SimClock {
    fn now(&self) -> u64 {
        self.0.borrow().now
    }

    async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now().saturating_add(nanoseconds(duration))).await;
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Takes its event out of the plan when it is dropped: most timers are deadlines that never come.
struct Sleep<'a> {
    clock: &'a SimClock,
    end: u64,
    key: Option<Key>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.clock.0.borrow_mut();
        if inner.now >= self.end {
            return Poll::Ready(());
        }
        let waker = context.waker();
        match self.key.and_then(|key| inner.planned.get_mut(&key)) {
            Some(Event::Wake(known)) => known.clone_from(waker),
            _ => {
                let key = inner.plan(self.end, Event::Wake(waker.clone()));
                drop(inner);
                self.key = Some(key);
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.clock.0.borrow_mut().planned.remove(&key);
        }
    }
}

/// How a machine's clock differs from the world's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drift {
    /// What it shows when the world's shows 0.
    pub offset: u64,
    /// How much faster it goes (slower if negative), in parts per million.
    pub parts_per_million: i32,
}

/// The clock of one machine: wrong by an offset, and by a drift.
#[derive(Clone)]
pub struct MachineClock {
    world: SimClock,
    drift: Drift,
}

const MILLION: u128 = 1_000_000;

impl MachineClock {
    /// A machine's view of the world's time.
    ///
    /// # Panics
    /// If it would stand still or go back.
    pub fn new(world: &SimClock, drift: Drift) -> Self {
        assert!(drift.parts_per_million > -1_000_000, "a clock that goes back");
        Self { world: world.clone(), drift }
    }

    /// Machine time per million of the world's.
    fn rate(&self) -> u128 {
        let rate = 1_000_000 + i64::from(self.drift.parts_per_million);
        u128::try_from(rate).unwrap_or(1)
    }

    /// The first moment of the world at which this clock shows `local`.
    fn world_at(&self, local: u64) -> u64 {
        let shown = u128::from(local.saturating_sub(self.drift.offset));
        u64::try_from((shown * MILLION).div_ceil(self.rate())).unwrap_or(u64::MAX)
    }
}

impl Clock for MachineClock {
    fn now(&self) -> u64 {
        let shown = u128::from(self.world.now()) * self.rate() / MILLION;
        self.drift.offset.saturating_add(u64::try_from(shown).unwrap_or(u64::MAX))
    }

    async fn sleep(&self, duration: Duration) {
        let end = self.now().saturating_add(nanoseconds(duration));
        self.world.sleep_until(self.world_at(end)).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Sim;

    #[test]
    fn a_machine_s_clock_drifts_and_its_sleeps_take_their_time_on_it() {
        for parts_per_million in [-200_000, -150, 0, 7, 200_000] {
            let sim = Sim::new(1);
            let drift = Drift { offset: 5_000, parts_per_million };
            let clock = MachineClock::new(sim.clock(), drift);
            let handle = clock.clone();
            let slept = sim.run(async move {
                let before = handle.now();
                handle.sleep(Duration::from_secs(10)).await;
                handle.now() - before
            });
            assert!((10_000_000_000..10_000_000_003).contains(&slept.unwrap()));
            let world = u128::from(sim.clock().now());
            let expected = 10_000_000_000 * MILLION / clock.rate();
            assert!(world.abs_diff(expected) < 3, "{parts_per_million}: {world}");
        }
    }

    #[test]
    fn a_sleep_that_is_dropped_leaves_nothing_planned() {
        let sim = Sim::new(1);
        let clock = sim.clock().clone();
        let handle = clock.clone();
        let done = sim.run(async move {
            let mut sleep = Box::pin(handle.sleep(Duration::from_secs(1)));
            std::future::poll_fn(|context| {
                assert!(sleep.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        });
        done.unwrap();
        assert!(clock.0.borrow().planned.is_empty());
    }
}
