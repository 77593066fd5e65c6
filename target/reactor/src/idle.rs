//! What happens between two rounds of a reactor: tokio calls these hooks right before its thread
//! waits and right after. They look at the memory of the ring and of RDMA devices, keep the
//! reactor polling while the pacer says so, and note when it last ran.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::buffer::BufferPool;
use crate::clock::boottime_ns;
use crate::counters::Counters;
use crate::pacer::{Pace, Pacer};
use crate::ring::Ring;
use crate::verbs::Devices;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Idle>>> = const { RefCell::new(None) };
}

/// The state of one reactor's hooks.
pub(crate) struct Idle {
    pub(crate) counters: Counters,
    pub(crate) pool: BufferPool,
    pub(crate) ring: Option<Ring>,
    pub(crate) rdma: Devices,
    pacer: RefCell<Pacer>,
    driver: RefCell<Option<Waker>>,
    parked: Cell<bool>,
    looked_ns: Cell<u64>,
}

impl Idle {
    pub(crate) fn new(
        counters: Counters,
        pool: BufferPool,
        ring: Option<Ring>,
        pacer: Pacer,
    ) -> Rc<Idle> {
        Rc::new(Idle {
            counters,
            pool,
            ring,
            rdma: Devices::default(),
            pacer: RefCell::new(pacer),
            driver: RefCell::new(None),
            parked: Cell::new(false),
            looked_ns: Cell::new(0),
        })
    }

    /// Makes the hooks of this thread use (or, with `None`, forget) a reactor.
    pub(crate) fn install(idle: Option<Rc<Idle>>) {
        CURRENT.with(|current| *current.borrow_mut() = idle);
    }

    /// When the reactor last turned to the system for events, on the clock of [`boottime_ns`]: what it knows is no older.
    pub(crate) fn looked_ns(&self) -> u64 {
        self.looked_ns.get()
    }

    /// The task to wake when the ring has something, or to keep the reactor from sleeping.
    pub(crate) fn set_driver(&self, waker: &Waker) {
        let mut driver = self.driver.borrow_mut();
        match driver.as_mut() {
            Some(known) => known.clone_from(waker),
            None => *driver = Some(waker.clone()),
        }
    }

    fn before_park(&self) {
        let now = boottime_ns();
        let shared = self.counters.shared();
        shared.rounds.add(1);
        self.looked_ns.set(now);
        shared.last_ran_ns.set(now);
        shared.pool_free.set(self.pool.free_bytes() as u64);
        if self.ring.as_ref().is_some_and(Ring::is_ready) {
            return self.wake_driver();
        }
        if self.rdma.wake_ready() {
            return;
        }
        if let Pace::PollAt(look) = self.pacer.borrow_mut().ran_out(now, shared.work.get()) {
            self.spin_until(look);
            shared.polls.add(1);
            return self.wake_driver();
        }
        if self.rdma.arm() {
            return;
        }
        self.rdma.publish(shared);
        shared.parks.add(1);
        shared.parked.store(true, Ordering::Relaxed);
        self.parked.set(true);
    }

    fn after_park(&self) {
        if !self.parked.replace(false) {
            return;
        }
        let now = boottime_ns();
        let shared = self.counters.shared();
        shared.parked.store(false, Ordering::Relaxed);
        shared.last_ran_ns.set(now);
        self.pacer.borrow_mut().woke(now);
    }

    /// Waits for a time, or for completions that show up in the memory of the ring or of an RDMA
    /// device.
    fn spin_until(&self, look: u64) {
        while boottime_ns() < look
            && !self.ring.as_ref().is_some_and(Ring::is_ready)
            && !self.rdma.wake_ready()
        {
            std::hint::spin_loop();
        }
    }

    /// A runnable task turns tokio's wait into a mere look for events.
    fn wake_driver(&self) {
        if let Some(driver) = self.driver.borrow().as_ref() {
            driver.wake_by_ref();
        }
    }
}

/// Tokio's `on_thread_park`.
pub(crate) fn before_park() {
    with_current(Idle::before_park);
}

/// Tokio's `on_thread_unpark`.
pub(crate) fn after_park() {
    with_current(Idle::after_park);
}

/// A reactor that never runs out of work does not come to [`before_park`], but its RDMA devices
/// must have their turn too: called now and then as work is done.
pub(crate) fn while_busy() {
    with_current(|idle| {
        idle.rdma.wake_ready();
    });
}

fn with_current(action: impl FnOnce(&Idle)) {
    CURRENT.with(|current| {
        if let Some(idle) = current.borrow().as_ref() {
            action(idle);
        }
    });
}
