//! The executor: tasks run until all wait, then one event of the simulated world happens.

mod process;
mod tasks;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::random::SimRandom;

pub use process::{Process, ProcessId};
use process::{Processes, WORLD};
use tasks::{TaskHandle, Tasks};

/// Polls between two events after which the tasks are taken to wake each other for ever.
const POLLS_MAX: u64 = 10_000_000;

/// Every task waits, and nothing is left that could happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every task waits and nothing can happen: a deadlock")
    }
}

/// Which of the woken tasks runs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one that was woken first.
    Woken,
    /// Any, by the seed.
    Seeded,
}

struct Inner {
    tasks: Tasks,
    processes: Processes,
    order: Cell<Order>,
    polls: Cell<u64>,
    disks: RefCell<Vec<SimDisk>>,
    #[allow(clippy::type_complexity, reason = "one callback")]
    observer: RefCell<Option<Box<dyn FnMut()>>>,
}

/// See the module documentation. Clones are handles to the same executor.
#[derive(Clone)]
pub struct Sim {
    inner: Rc<Inner>,
    random: SimRandom,
    clock: SimClock,
}

impl Sim {
    /// An executor whose choices come from `seed`.
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            tasks: Tasks::default(),
            processes: Processes::default(),
            order: Cell::new(Order::Woken),
            polls: Cell::new(0),
            disks: RefCell::default(),
            observer: RefCell::default(),
        };
        let (random, clock) = (SimRandom::new(seed), SimClock::default());
        Self { inner: Rc::new(inner), random, clock }
    }

    /// The seed's sequence.
    pub fn random(&self) -> &SimRandom {
        &self.random
    }

    /// The clock.
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// Chooses how woken tasks are ordered; at first they run as they were woken.
    pub fn set_order(&self, order: Order) {
        self.inner.order.set(order);
    }

    /// How often a task has been polled: what a run costs.
    pub fn polls(&self) -> u64 {
        self.inner.polls.get()
    }

    /// Makes a disk's operations happen one by one, by the seed, whenever all tasks wait. They take
    /// no time; [`SimDisk::take_time`] is the other way.
    pub fn add_disk(&self, disk: &SimDisk) {
        self.inner.disks.borrow_mut().push(disk.clone());
    }

    /// Calls `observer` after each event and the tasks that it set going: where a power cut is
    /// tried.
    pub fn observe(&self, observer: impl FnMut() + 'static) {
        *self.inner.observer.borrow_mut() = Some(Box::new(observer));
    }

    /// A new process: tasks that can be stopped and killed together.
    pub fn process(&self) -> Process {
        Process::new(self.clone(), self.inner.processes.add())
    }

    /// Runs a task beside the others, in no process: it ends only by itself.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.inner.tasks.add(WORLD, Box::pin(future));
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
    ///
    /// # Panics
    /// If they wake each other without end.
    fn run_tasks(&self) {
        let end = self.inner.polls.get() + POLLS_MAX;
        let next = || match self.inner.order.get() {
            Order::Woken => self.inner.tasks.next(),
            Order::Seeded => self.inner.tasks.choose(|count| self.random.below(count)),
        };
        while let Some(task) = next() {
            assert!(self.inner.polls.get() < end, "tasks wake each other and time stands still");
            self.poll(&task);
        }
        let observer = self.inner.observer.borrow_mut().take();
        if let Some(mut observer) = observer {
            observer();
            self.inner.observer.borrow_mut().get_or_insert(observer);
        }
    }

    fn poll(&self, task: &TaskHandle) {
        if self.inner.processes.holds_back(task) {
            return;
        }
        let Some(mut future) = self.inner.tasks.take(task) else { return };
        self.inner.polls.set(self.inner.polls.get() + 1);
        let waker = Waker::from(task.clone());
        if future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending {
            self.inner.tasks.put_back(task, future);
        } else {
            self.inner.tasks.end(task);
        }
    }

    /// One disk operation ends, or time moves.
    fn happen(&self) -> bool {
        let disk = {
            let disks = self.inner.disks.borrow();
            let busy = || disks.iter().filter(|disk| disk.under_way() > 0);
            let count = busy().count();
            if count == 0 { None } else { busy().nth(self.random.below(count)).cloned() }
        };
        match disk {
            Some(disk) => {
                disk.step(&self.random);
                true
            }
            None => self.clock.advance(),
        }
    }

    /// Drops every task and every planned event, as a power cut of the whole world does.
    pub fn kill(&self) {
        let observer = self.inner.observer.borrow_mut().take();
        drop(observer);
        self.inner.tasks.drop_where(|_| true);
        self.clock.clear();
    }
}

#[cfg(test)]
mod tests;
