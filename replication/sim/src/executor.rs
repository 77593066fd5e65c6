//! A small executor for tests: tasks run until all wait, then one event of the simulated world
//! happens.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::random::SimRandom;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    flag: Arc<Flag>,
}

/// Every task waits, and nothing is left that could happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every task waits and nothing can happen: a deadlock")
    }
}

#[derive(Default)]
struct Inner {
    tasks: Vec<Task>,
    spawned: Vec<Task>,
    disks: Vec<SimDisk>,
    #[allow(clippy::type_complexity, reason = "one callback")]
    observer: Option<Box<dyn FnMut()>>,
}

/// See the module documentation. Clones are handles to the same executor.
#[derive(Clone)]
pub struct Sim {
    inner: Rc<RefCell<Inner>>,
    random: SimRandom,
    clock: SimClock,
}

impl Sim {
    /// An executor whose choices come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { inner: Rc::default(), random: SimRandom::new(seed), clock: SimClock::default() }
    }

    /// The seed's sequence.
    pub fn random(&self) -> &SimRandom {
        &self.random
    }

    /// The clock.
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// Makes a disk's operations happen.
    pub fn add_disk(&self, disk: &SimDisk) {
        self.inner.borrow_mut().disks.push(disk.clone());
    }

    /// Calls `observer` after each event and the tasks that it set going: where a power cut is
    /// tried.
    pub fn observe(&self, observer: impl FnMut() + 'static) {
        self.inner.borrow_mut().observer = Some(Box::new(observer));
    }

    /// Runs a task beside the others.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        self.inner.borrow_mut().spawned.push(Task { future: Box::pin(future), flag });
    }

    /// Runs everything until `future` is done.
    ///
    /// # Errors
    /// [`Stuck`] if it can never be.
    pub fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Result<T, Stuck> {
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        self.spawn(async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        });
        loop {
            self.run_tasks();
            if let Some(value) = result.borrow_mut().take() {
                return Ok(value);
            }
            if !self.happen() {
                return Err(Stuck);
            }
        }
    }

    /// Polls woken tasks until none is.
    fn run_tasks(&self) {
        loop {
            let mut tasks = std::mem::take(&mut self.inner.borrow_mut().tasks);
            tasks.append(&mut self.inner.borrow_mut().spawned);
            let mut progress = false;
            tasks.retain_mut(|task| {
                if !task.flag.0.swap(false, Ordering::AcqRel) {
                    return true;
                }
                progress = true;
                let waker = Waker::from(task.flag.clone());
                task.future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending
            });
            let mut inner = self.inner.borrow_mut();
            tasks.append(&mut inner.tasks);
            inner.tasks = tasks;
            if !progress && inner.spawned.is_empty() {
                break;
            }
        }
        let observer = self.inner.borrow_mut().observer.take();
        if let Some(mut observer) = observer {
            observer();
            self.inner.borrow_mut().observer = Some(observer);
        }
    }

    /// One disk operation ends, or time moves.
    fn happen(&self) -> bool {
        let disks = self.inner.borrow().disks.clone();
        let busy: Vec<_> = disks.iter().filter(|disk| disk.under_way() > 0).collect();
        match busy.get(self.random.below(busy.len())) {
            Some(disk) => {
                disk.step(&self.random);
                true
            }
            None => self.clock.advance(),
        }
    }

    /// Drops every task, as a power cut does.
    pub fn kill(&self) {
        let (tasks, spawned) = {
            let mut inner = self.inner.borrow_mut();
            inner.observer = None;
            (std::mem::take(&mut inner.tasks), std::mem::take(&mut inner.spawned))
        };
        drop(tasks);
        drop(spawned);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use afs_env::Clock;

    use super::*;

    #[test]
    fn time_moves_only_when_all_wait() {
        let sim = Sim::new(1);
        let clock = sim.clock().clone();
        let end = sim.run(async move {
            clock.sleep(Duration::from_secs(3600)).await;
            clock.now()
        });
        assert_eq!(end.unwrap(), 3_600_000_000_000);
    }

    #[test]
    fn a_deadlock_is_reported() {
        let sim = Sim::new(1);
        assert_eq!(sim.run(std::future::pending::<()>()), Err(Stuck));
    }
}
