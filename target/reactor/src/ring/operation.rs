//! The futures of the ring: waiting for a slot, and waiting for an operation.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::squeue;

use super::{Payload, Ring};
use crate::disk::{AttachedFile, RunningSync};

impl Ring {
    /// A slot for one operation, in order of arrival while all are taken.
    pub(crate) async fn slot(&self) -> SlotToken {
        let reserved = self.inner.slots.borrow_mut().reserve();
        match reserved {
            Some(slot) => SlotToken { ring: self.clone(), slot: Some(slot) },
            None => SlotWait { ring: self, key: None }.await,
        }
    }
}

/// A slot that is reserved but not in use; dropping it gives it on.
pub(crate) struct SlotToken {
    ring: Ring,
    slot: Option<u32>,
}

impl SlotToken {
    /// Queues an operation on what `payload` holds.
    ///
    /// # Safety
    /// `entry` names no file but `file`'s, and no memory but that of `payload` or memory that is
    /// never freed and never written by anybody else meanwhile.
    pub(crate) unsafe fn begin(
        mut self,
        entry: squeue::Entry,
        payload: Payload,
        file: Rc<AttachedFile>,
    ) -> Operation {
        let ring = self.ring.clone();
        let slot = self.slot.take();
        if let Some(slot) = slot {
            ring.inner.slots.borrow_mut().begin(slot, payload, file);
            // SAFETY: the slot now owns what the entry names, until its completion is seen.
            unsafe { ring.push(&entry.user_data(u64::from(slot))) };
        }
        Operation { ring, slot }
    }

    /// Queues an operation that no future waits for; its result goes to `group`.
    ///
    /// # Safety
    /// `entry` names no memory, and no file but `file`'s.
    pub(crate) unsafe fn begin_detached(
        mut self,
        entry: squeue::Entry,
        sync: RunningSync,
        file: Rc<AttachedFile>,
    ) {
        if let Some(slot) = self.slot.take() {
            self.ring.inner.slots.borrow_mut().begin_detached(slot, sync, file);
            // SAFETY: the slot now owns the file, until the completion is seen.
            unsafe { self.ring.push(&entry.user_data(u64::from(slot))) };
        }
    }
}

impl Drop for SlotToken {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.ring.release(slot);
        }
    }
}

/// One turn in the queue for slots.
struct SlotWait<'a> {
    ring: &'a Ring,
    key: Option<usize>,
}

impl Future for SlotWait<'_> {
    type Output = SlotToken;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<SlotToken> {
        let mut slots = self.ring.inner.slots.borrow_mut();
        let Some(key) = self.key else {
            let key = slots.wait(context.waker());
            drop(slots);
            self.key = Some(key);
            return Poll::Pending;
        };
        let Some(slot) = slots.poll_wait(key, context.waker()) else { return Poll::Pending };
        drop(slots);
        self.key = None;
        Poll::Ready(SlotToken { ring: self.ring.clone(), slot: Some(slot) })
    }
}

impl Drop for SlotWait<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let granted = self.ring.inner.slots.borrow_mut().cancel_wait(key);
        if let Some(slot) = granted {
            self.ring.release(slot);
        }
    }
}

/// An operation under way. Yields the kernel's result (negative errno or a count) and gives back
/// what it worked on. Dropped early, the operation goes on and its slot keeps all that it needs.
pub(crate) struct Operation {
    ring: Ring,
    slot: Option<u32>,
}

impl Future for Operation {
    type Output = (i32, Payload);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(i32, Payload)> {
        // Only a future that already gave its result has no slot.
        let Some(slot) = self.slot else { return Poll::Pending };
        let result = self.ring.inner.slots.borrow_mut().poll(slot, context.waker());
        let Some(result) = result else { return Poll::Pending };
        self.slot = None;
        self.ring.release(slot);
        Poll::Ready(result)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let release = self.ring.inner.slots.borrow_mut().abandon(slot);
        if release {
            self.ring.release(slot);
        }
    }
}
