//! What the device knows of a queue pair: the C object, its works, and what to do when one of
//! them completes.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Arc;

use afs_verbs_sys as sys;

use super::QueuePairEvent;
use super::work::{Bounds, Work, Works};
use crate::buffer::BufferMut;
use crate::verbs::cm::IdInner;
use crate::verbs::context::Fate;
use crate::verbs::device::{DeviceInner, Message, PairName};
use crate::verbs::error::{WorkCause, WorkError, WorkOperation};

/// One queue pair. In the device's table as long as the C object lives.
pub(in crate::verbs) struct PairCore {
    raw: NonNull<sys::ibv_qp>,
    name: Cell<PairName>,
    pub(super) works: RefCell<Works>,
    /// Counted by the device as one of which somebody waits for the end of a request.
    urgent: Cell<bool>,
    /// Messages up to this length travel inside the request.
    pub(super) inline_bytes: u32,
    /// Messages of works that do not: 64 bytes for each place in the table.
    pub(super) messages: RefCell<Option<BufferMut>>,
    /// The order number of the latest receive that it completed; at first, of anybody.
    received_order: Cell<u64>,
    pub(super) id: Arc<IdInner>,
    pub(in crate::verbs) fate: Arc<Fate>,
}

impl PairCore {
    pub(super) fn new(
        raw: NonNull<sys::ibv_qp>,
        bounds: Bounds,
        inline_bytes: u32,
        id: Arc<IdInner>,
        fate: Arc<Fate>,
    ) -> PairCore {
        PairCore {
            raw,
            name: Cell::new(PairName { slot: 0, generation: 0 }),
            works: RefCell::new(Works::new(bounds)),
            urgent: Cell::new(false),
            inline_bytes,
            messages: RefCell::new(None),
            received_order: Cell::new(0),
            id,
            fate,
        }
    }

    pub(in crate::verbs) fn raw(&self) -> *mut sys::ibv_qp {
        self.raw.as_ptr()
    }

    /// Its number in completions of receives.
    pub(in crate::verbs) fn number(&self) -> u32 {
        // SAFETY: live as long as the core is in the device's table, or being made.
        unsafe { self.raw.as_ref() }.qp_num
    }

    pub(in crate::verbs) fn name(&self) -> PairName {
        self.name.get()
    }

    /// The device has entered it into its table.
    pub(in crate::verbs) fn entered(&self, name: PairName, received_order: u64) {
        self.name.set(name);
        self.received_order.set(received_order);
    }

    pub(in crate::verbs) fn received_order(&self) -> u64 {
        self.received_order.get()
    }

    /// How many completions it can cause.
    pub(in crate::verbs) fn requests_max(&self) -> u32 {
        self.works.borrow().bounds.requests_max
    }

    pub(in crate::verbs) fn depth(&self) -> u32 {
        u32::from(self.works.borrow().bounds.depth)
    }

    /// Gives up all memory that the device may still write to: it was not destroyed.
    pub(in crate::verbs) fn forget_memory(&self) {
        std::mem::forget(std::mem::take(&mut self.works.borrow_mut().table));
        std::mem::forget(self.messages.take());
    }

    /// Finds out whether it is urgent. To be called after whatever changes its works.
    pub(in crate::verbs) fn weigh(&self, device: &DeviceInner) {
        self.set_urgent(device, self.works.borrow().is_urgent());
    }

    /// It leaves the device's table: nobody waits any more.
    pub(in crate::verbs) fn calm(&self, device: &DeviceInner) {
        self.set_urgent(device, false);
    }

    fn set_urgent(&self, device: &DeviceInner, is: bool) {
        device.count_urgent(self.urgent.replace(is), is);
    }

    /// Queues a work. What cannot be is dropped, and the queue pair fails.
    pub(super) fn queue(&self, device: &DeviceInner, work: Work) {
        self.works.borrow_mut().queue(work);
        self.carry_out_sentence();
        self.weigh(device);
    }

    /// Moves a queue pair that failed by our own judgement to its error state.
    pub(super) fn carry_out_sentence(&self) {
        if self.works.borrow_mut().take_condemned()
            && let Err(error) = self.id.fail_pair()
        {
            tracing::debug!(%error, "an RDMA queue pair cannot be moved to its error state");
        }
    }

    /// A message arrived.
    pub(in crate::verbs) fn received(&self, message: Message, len: usize) {
        self.received_order.set(message.order.max(self.received_order.get()));
        let Message { header, data, .. } = message;
        self.works.borrow_mut().receive(QueuePairEvent::Received { header, len, data });
        self.carry_out_sentence();
    }

    /// A receive of this queue pair failed.
    pub(in crate::verbs) fn receive_failed(&self, order: u64, completion: &sys::ibv_wc) {
        self.received_order.set(order.max(self.received_order.get()));
        let cause = cause(completion);
        let error = WorkError { operation: WorkOperation::Receive, cause };
        self.works.borrow_mut().fail(error);
    }

    /// A request completed. Returns whether something waits for the room that it left.
    pub(in crate::verbs) fn completed(
        &self,
        work: u16,
        is_write: bool,
        completion: &sys::ibv_wc,
    ) -> bool {
        let mut works = self.works.borrow_mut();
        let Some(known) = works.table.get(usize::from(work)) else { return false };
        let error = (completion.status != sys::IBV_WC_SUCCESS).then(|| WorkError {
            operation: known.task.operation(is_write),
            cause: cause(completion),
        });
        if is_write {
            // The SEND behind it completes as well, and only then the work has ended.
            if let Some(error) = error {
                works.fail(error);
            }
            return false;
        }
        works.complete(work, error);
        works.has_queued()
    }
}

fn cause(completion: &sys::ibv_wc) -> WorkCause {
    WorkCause::Status { status: completion.status, vendor: completion.vendor_err }
}
