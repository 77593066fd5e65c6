//! One RDMA device as one reactor uses it: a protection domain, the registered pools, two
//! completion queues and a shared receive queue. Opened when the reactor's first connection on it
//! comes, closed with the last.

mod completions;
mod driver;
mod interface;
mod memory;
mod poll;
mod receives;
mod refill;
pub(super) mod wr_id;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use afs_verbs_sys as sys;
use slab::Slab;

use super::cm::{CmId, IdInner};
use super::context::{SharedContext, Watched, watch};
use super::error::{check, context as in_context};
use super::library::Verbs;
use super::queue_pair::{Chain, PairCore, depth_for};
use crate::buffer::BufferPool;
use crate::counters::Counters;
use crate::reactor::Local;
use completions::Completions;
pub use interface::{DeviceFigures, DeviceLimits, DeviceOptions, RdmaDevice, RemoteAccess};
use memory::Memory;
pub(crate) use poll::Devices;
use receives::Receives;
pub(super) use receives::{HEADER_BYTES, Message};
pub(super) use wr_id::PairName;

/// The device itself. Its fields are dropped in the order in which their objects may be
/// destroyed; queue pairs hold the device, so none is left then.
pub(super) struct DeviceInner {
    pairs: RefCell<Slab<Rc<PairCore>>>,
    /// Where they are in the table, by their number in completions.
    numbers: RefCell<HashMap<u32, usize>>,
    receives: RefCell<Receives>,
    /// Completions of receives.
    pub(super) arrivals: Completions,
    /// Completions of our own requests.
    pub(super) endings: Completions,
    /// Queue pairs of which somebody waits for the end of a request.
    urgent: Cell<usize>,
    pub(super) memory: Memory,
    /// Until the device is gone.
    events: RefCell<Option<Watched>>,
    pub(super) context: Arc<SharedContext>,
    /// Keeps librdmacm from closing the context.
    _anchor: Arc<IdInner>,
    pub(super) chain: RefCell<Chain>,
    /// Queue pairs that wait for room, found while completions are handled.
    blocked: RefCell<Vec<PairName>>,
    options: DeviceOptions,
    attributes: sys::ibv_device_attr,
    generation: Cell<u32>,
    driver: RefCell<Option<Waker>>,
    pool: BufferPool,
    counters: Counters,
    doorbells: Cell<u64>,
    completed: Cell<u64>,
}

/// Ends of requests that there is room for at first, if the device has that much.
const COMPLETIONS: u32 = 4096;

impl DeviceInner {
    fn open(
        local: &Local,
        id: &CmId,
        context: Arc<SharedContext>,
        options: &DeviceOptions,
    ) -> io::Result<DeviceInner> {
        let attributes = query(&context)?;
        let receives_max =
            options.receives_max.max(1).min(receives::max_for(positive(attributes.max_srq_wr)));
        let memory = Memory::new(context.clone())?;
        memory.register([local.pool()])?;
        let max = positive(attributes.max_cqe);
        let arrivals = Completions::new(context.clone(), receives::entries(receives_max), 0, max)?;
        let endings = Completions::new(context.clone(), 0, COMPLETIONS, max)?;
        let data_bytes = options.capsule_data_bytes.min(crate::MAX_BUFFER_BYTES);
        let pool = local.pool().clone();
        let receives =
            Receives::new(context.clone(), &memory, pool.clone(), receives_max, data_bytes)?;
        // SAFETY: the context is open.
        let events = watch(unsafe { (*context.raw()).async_fd })?;
        Ok(DeviceInner {
            pairs: RefCell::default(),
            numbers: RefCell::default(),
            receives: RefCell::new(receives),
            arrivals,
            endings,
            urgent: Cell::new(0),
            memory,
            events: RefCell::new(Some(events)),
            context,
            _anchor: id.inner.clone(),
            chain: RefCell::default(),
            blocked: RefCell::default(),
            options: *options,
            attributes,
            generation: Cell::new(0),
            driver: RefCell::new(None),
            pool,
            counters: local.counters().clone(),
            doorbells: Cell::new(0),
            completed: Cell::new(0),
        })
    }

    fn figures(&self) -> DeviceFigures {
        let receives = self.receives.borrow();
        DeviceFigures {
            registered_bytes: self.memory.registered_bytes(),
            queue_pairs: self.pairs.borrow().len(),
            receives_posted: receives.posted(),
            receives_wanted: receives.target(),
            receives_lost: receives.lost(),
            doorbells: self.doorbells.get(),
            polls: self.arrivals.polls.get() + self.endings.polls.get(),
            completions: self.completed.get(),
            armings: self.arrivals.armings.get() + self.endings.armings.get(),
        }
    }

    pub(super) fn verbs(&self) -> &Verbs {
        self.context.verbs()
    }

    pub(super) fn pool(&self) -> &BufferPool {
        &self.pool
    }

    pub(super) fn receive_queue(&self) -> *mut sys::ibv_srq {
        self.receives.borrow().raw()
    }

    /// Entries of a send queue.
    pub(super) fn requests_max(&self) -> u32 {
        positive(self.attributes.max_qp_wr)
    }

    pub(super) fn limits(&self) -> DeviceLimits {
        let depth = |most: i32| u8::try_from(positive(most)).unwrap_or(u8::MAX);
        DeviceLimits {
            commands_max: depth_for(self.requests_max()),
            initiator_depth: depth(self.attributes.max_qp_init_rd_atom),
            responder_resources: depth(self.attributes.max_qp_rd_atom),
        }
    }

    pub(super) fn count_doorbell(&self) {
        self.doorbells.set(self.doorbells.get() + 1);
        self.counters.shared().rdma_doorbells.add(1);
    }

    /// Makes keys for peers of the active side.
    pub(super) fn memory_for_peers(&self) -> io::Result<()> {
        self.memory.open_remote()
    }

    /// Enters a queue pair that was just made.
    pub(super) fn enter(&self, pair: &Rc<PairCore>) -> io::Result<()> {
        let mut pairs = self.pairs.borrow_mut();
        let entry = pairs.vacant_entry();
        let Ok(slot) = u16::try_from(entry.key()) else {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many RDMA queue pairs"));
        };
        let generation = wr_id::next_generation(self.generation.get());
        self.generation.set(generation);
        let mut receives = self.receives.borrow_mut();
        pair.entered(PairName { slot, generation }, receives.completed_order());
        entry.insert(pair.clone());
        self.numbers.borrow_mut().insert(pair.number(), usize::from(slot));
        receives.widen(pair.depth());
        self.context.add_fate(pair.number(), pair.fate.clone());
        self.chain.borrow_mut().reserve(pair.requests_max() as usize);
        self.blocked.borrow_mut().reserve(pairs.len());
        Ok(())
    }

    /// A queue pair is urgent now, or is not any more.
    pub(super) fn count_urgent(&self, was: bool, is: bool) {
        self.urgent.set(self.urgent.get() + usize::from(is) - usize::from(was));
    }

    /// Does anybody wait for the end of a request?
    fn is_urgent(&self) -> bool {
        self.urgent.get() > 0 || self.memory.has_waiters()
    }

    /// Forgets a queue pair that was destroyed, or (`is_alive`) that could not be.
    pub(super) fn leave(&self, pair: &PairCore, number: u32, is_alive: bool) {
        self.context.remove_fate(number, &pair.fate);
        pair.calm(self);
        let slot = usize::from(pair.name().slot);
        let known = self.pairs.borrow().get(slot).is_some_and(|known| known.name() == pair.name());
        if known {
            let pair = self.pairs.borrow_mut().remove(slot);
            self.numbers.borrow_mut().remove(&number);
            self.receives.borrow_mut().narrow(pair.depth());
        }
        if is_alive {
            pair.forget_memory();
        } else {
            self.endings.release(pair.requests_max());
        }
        self.find_lost();
        self.replenish();
    }

    /// Posts the receives that are missing.
    pub(super) fn replenish(&self) {
        if self.receives.borrow_mut().replenish(&self.memory) {
            self.wake_driver();
        }
    }

    fn find_lost(&self) {
        let mut receives = self.receives.borrow_mut();
        let floor = self.pairs.borrow().iter().map(|(_, pair)| pair.received_order()).min();
        let floor = floor.unwrap_or(receives.completed_order());
        receives.find_lost(floor);
    }

    fn set_driver(&self, waker: &Waker) {
        let mut driver = self.driver.borrow_mut();
        match driver.as_mut() {
            Some(known) => known.clone_from(waker),
            None => *driver = Some(waker.clone()),
        }
    }

    fn wake_driver(&self) {
        if let Some(driver) = self.driver.borrow().as_ref() {
            driver.wake_by_ref();
        }
    }
}

impl Drop for DeviceInner {
    fn drop(&mut self) {
        // The driver holds the device weakly, and ends when it finds it gone.
        self.wake_driver();
    }
}

fn query(context: &SharedContext) -> io::Result<sys::ibv_device_attr> {
    let mut attributes = std::mem::MaybeUninit::zeroed();
    // SAFETY: the context is open; a success fills the attributes.
    let code =
        unsafe { context.verbs().ib().ibv_query_device(context.raw(), attributes.as_mut_ptr()) };
    check(code).map_err(|error| in_context("RDMA device", &error))?;
    // SAFETY: a struct of numbers, zeroed and then filled.
    Ok(unsafe { attributes.assume_init() })
}

fn positive(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// Says what could not be destroyed. True when it still exists: then its memory must not be used
/// again. When the device itself is gone, the kernel has destroyed everything on it (`EIO`).
pub(super) fn warn_undestroyed(what: &str, result: io::Result<()>) -> bool {
    match result {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(libc::EIO) => false,
        Err(error) => {
            tracing::error!(%error, "an RDMA {what} cannot be destroyed");
            true
        }
    }
}
