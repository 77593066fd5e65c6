//! Handling completions, and the hooks by which a reactor looks for them between two rounds.
//!
//! Messages arrive in one queue, the ends of our own requests in another. A message always wakes a
//! reactor that sleeps. The end of a request mostly concerns nobody, above all that a response has
//! left: it is handled when the reactor looks the next time for whatever reason.
//!
//! Invariant: whoever waits for the end of a request makes the device urgent before the reactor
//! sleeps, and the ends of an urgent device's requests wake it. So no wait is forgotten. Urgent are
//! queue pairs with what `Works::is_urgent` lists, and all of them while somebody waits for memory,
//! which requests hold until they have ended.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use afs_verbs_sys as sys;

use super::wr_id::{self, Completed, PairName};
use super::{DeviceFigures, DeviceInner, DeviceOptions};
use crate::counters::Shared;
use crate::verbs::context::SharedContext;
use crate::verbs::queue_pair::PairCore;

/// How many completions are handled before other tasks get their turn.
const BUDGET: u32 = 256;

impl DeviceInner {
    /// Handles completions. Returns false when some were left for the next turn.
    pub(in crate::verbs) fn reap(&self) -> bool {
        let mut handled = 0;
        // Endings first: they make room for what arrives.
        while handled < BUDGET
            && let Some(completion) = self.endings.next().or_else(|| self.arrivals.next())
        {
            handled += 1;
            self.handle(&completion);
        }
        if handled > 0 {
            self.completed.set(self.completed.get() + u64::from(handled));
            self.counters.shared().rdma_completions.add(u64::from(handled));
            self.counters.note_work();
            // Before any task can answer what was received: the peer's next message needs one.
            self.replenish();
            self.unblock();
        }
        handled < BUDGET
    }

    /// Handles all completions that there are now.
    pub(in crate::verbs) fn reap_all(&self) {
        let rounds = (self.arrivals.capacity() + self.endings.capacity()) / BUDGET;
        for _ in 0..=rounds {
            if self.reap() {
                return;
            }
        }
    }

    fn handle(&self, completion: &sys::ibv_wc) {
        match wr_id::parse(completion.wr_id) {
            Completed::Receive { slot } => self.received(slot, completion),
            Completed::Work { pair, work, is_write } => {
                let Some(known) = self.pair(pair) else { return };
                if known.completed(work, is_write, completion) {
                    self.note_blocked(pair);
                }
                known.weigh(self);
            }
            Completed::Unknown => tracing::warn!("an RDMA completion of nothing that is known"),
        }
    }

    fn received(&self, slot: u32, completion: &sys::ibv_wc) {
        let is_good = completion.status == sys::IBV_WC_SUCCESS;
        let len = if is_good { completion.byte_len as usize } else { 0 };
        let Some(message) = self.receives.borrow_mut().complete(slot, len) else { return };
        // Messages of a queue pair that is gone end here.
        let Some(pair) = self.pair_by_number(completion.qp_num) else { return };
        match is_good {
            true => pair.received(message, len),
            false => pair.receive_failed(message.order, completion),
        }
        pair.weigh(self);
    }

    fn pair(&self, name: PairName) -> Option<Rc<PairCore>> {
        let pairs = self.pairs.borrow();
        pairs.get(usize::from(name.slot)).filter(|pair| pair.name() == name).cloned()
    }

    fn pair_by_number(&self, number: u32) -> Option<Rc<PairCore>> {
        let slot = *self.numbers.borrow().get(&number)?;
        self.pairs.borrow().get(slot).cloned()
    }

    fn note_blocked(&self, name: PairName) {
        let mut blocked = self.blocked.borrow_mut();
        if !blocked.contains(&name) {
            blocked.push(name);
        }
    }

    /// Goes on with queue pairs that waited for what has completed.
    fn unblock(&self) {
        loop {
            let Some(name) = self.blocked.borrow_mut().pop() else { return };
            if let Some(pair) = self.pair(name)
                && let Err(error) = pair.post(self)
            {
                // The queue pair has been told.
                tracing::debug!(%error, "an RDMA device does not take requests");
            }
        }
    }
}

/// The devices of one reactor.
#[derive(Default)]
pub(crate) struct Devices {
    list: RefCell<Vec<Weak<DeviceInner>>>,
}

impl Devices {
    /// Is there a completion on any device? Looks at memory only. The driver of that device is
    /// woken, so that the reactor does not sleep.
    pub(crate) fn wake_ready(&self) -> bool {
        let list = self.list.borrow();
        let mut any = false;
        for device in list.iter().filter_map(Weak::upgrade) {
            // Both, so that what has ended is handled along with what has arrived.
            let (ended, arrived) = (device.endings.is_ready(), device.arrivals.is_ready());
            if ended || arrived {
                device.wake_driver();
                any = true;
            }
        }
        any
    }

    /// Makes the next completion that anybody waits for wake the reactor, which is about to sleep;
    /// looks once more, for those that came too early for that.
    pub(crate) fn arm(&self) -> bool {
        let list = self.list.borrow();
        if list.is_empty() {
            return false;
        }
        for device in list.iter().filter_map(Weak::upgrade) {
            let mut told = u64::from(device.arrivals.arm());
            if device.is_urgent() {
                told += u64::from(device.endings.arm());
            }
            device.counters.shared().rdma_armings.add(told);
        }
        drop(list);
        self.wake_ready()
    }

    /// Shows what all of them hold. Called before a reactor sleeps.
    pub(crate) fn publish(&self, shared: &Shared) {
        let mut total = DeviceFigures::default();
        for device in self.list.borrow().iter().filter_map(Weak::upgrade) {
            let figures = device.figures();
            total.registered_bytes += figures.registered_bytes;
            total.queue_pairs += figures.queue_pairs;
            total.receives_posted += figures.receives_posted;
            total.receives_wanted += figures.receives_wanted;
        }
        shared.rdma_registered.set(total.registered_bytes);
        shared.rdma_queue_pairs.set(total.queue_pairs as u64);
        shared.rdma_receives.set(u64::from(total.receives_posted));
        shared.rdma_receives_wanted.set(u64::from(total.receives_wanted));
    }

    /// The device that is open for `context`, unless it should not be used for new connections.
    pub(super) fn find(
        &self,
        context: &Arc<SharedContext>,
        options: &DeviceOptions,
    ) -> Option<Rc<DeviceInner>> {
        self.list.borrow().iter().filter_map(Weak::upgrade).find(|device| {
            Arc::ptr_eq(&device.context, context)
                && device.options == *options
                && !device.receives.borrow().is_worn()
        })
    }

    pub(super) fn enter(&self, device: &Rc<DeviceInner>) {
        let mut list = self.list.borrow_mut();
        list.retain(|known| known.strong_count() > 0);
        list.push(Rc::downgrade(device));
    }
}
