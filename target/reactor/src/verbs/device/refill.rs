//! Posting receives to the shared receive queue: collecting them, with their buffers, and handing
//! them to the device in batches; waiting while the pool has no buffers.

use std::task::{Context, Poll};

use afs_verbs_sys as sys;

use super::memory::Memory;
use super::receives::{BATCH, HEADER_BYTES, Receives, Slot};
use super::wr_id;
use crate::buffer::BufferMut;
use crate::verbs::error::check;

/// As the device counts.
const HEADER_LENGTH: u32 = 64;

impl Receives {
    /// Posts receives until there are as many as there should be, or no memory is left for them.
    /// Returns whether someone must call [`Receives::poll_shortage`].
    pub(super) fn replenish(&mut self, memory: &Memory) -> bool {
        while self.posted < self.target() && self.fill_batch(memory) && self.post_batch() {}
        self.shortage.is_some()
    }

    /// Goes on when there is memory again.
    pub(super) fn poll_shortage(&mut self, memory: &Memory, cx: &mut Context<'_>) {
        while let Some(shortage) = self.shortage.as_mut() {
            let Poll::Ready(buffer) = shortage.as_mut().poll(cx) else { return };
            self.shortage = None;
            self.spare.push(buffer);
            self.replenish(memory);
        }
    }

    /// Collects receives to post; false when there are none.
    fn fill_batch(&mut self, memory: &Memory) -> bool {
        self.requests.clear();
        self.elements.clear();
        while self.requests.len() < BATCH
            && self.posted + self.collected() < self.target()
            && self.collect(memory)
        {}
        !self.requests.is_empty()
    }

    fn collected(&self) -> u32 {
        u32::try_from(self.requests.len()).unwrap_or(u32::MAX)
    }

    /// Prepares one receive, or says that there is no slot or no memory for it.
    fn collect(&mut self, memory: &Memory) -> bool {
        if self.free.is_empty() {
            return false;
        }
        let mut buffer = None;
        if self.data_bytes > 0 {
            buffer = self.buffer();
            if buffer.is_none() {
                return false;
            }
        }
        let element = buffer.as_mut().map(|buffer| self.element(memory, buffer));
        let Some(slot) = self.free.pop() else { return false };
        let header = self.headers.base().as_ptr().addr() + slot as usize * HEADER_BYTES;
        self.elements.push(sys::ibv_sge {
            addr: header as u64,
            length: HEADER_LENGTH,
            lkey: self.region.local_key(),
        });
        self.elements.extend(element);
        self.requests.push(sys::ibv_recv_wr {
            wr_id: wr_id::receive(slot),
            next: std::ptr::null_mut(),
            sg_list: std::ptr::null_mut(),
            num_sge: if self.data_bytes > 0 { 2 } else { 1 },
        });
        self.last_order += 1;
        self.slots[slot as usize] = Slot::Posted { buffer, order: self.last_order, lost: false };
        true
    }

    fn buffer(&mut self) -> Option<BufferMut> {
        if let Some(buffer) = self.spare.pop().or_else(|| self.pool.try_alloc(self.data_bytes)) {
            return Some(buffer);
        }
        if self.shortage.is_none() {
            let (pool, len) = (self.pool.clone(), self.data_bytes);
            self.shortage = Some(Box::pin(async move { pool.alloc(len).await }));
        }
        None
    }

    fn element(&self, memory: &Memory, buffer: &mut BufferMut) -> sys::ibv_sge {
        buffer.set_len(self.data_bytes);
        let address = buffer.as_mut_ptr();
        // The pool is the reactor's own, which is registered first of all; key 0 would merely fail.
        let lkey = memory.local_key(&self.pool, address).unwrap_or(0);
        let length = u32::try_from(self.data_bytes).unwrap_or(0);
        sys::ibv_sge { addr: address.addr() as u64, length, lkey }
    }

    /// Posts what was collected. What the device does not take becomes free again; then it is tried
    /// again with the next message or connection, and the result is false.
    fn post_batch(&mut self) -> bool {
        let per_request = if self.data_bytes > 0 { 2 } else { 1 };
        let (requests, elements) = (self.requests.as_mut_ptr(), self.elements.as_mut_ptr());
        let count = self.requests.len();
        for index in 0..count {
            // SAFETY: all of these are inside the two vectors, which do not move before the call.
            unsafe {
                let request = &mut *requests.add(index);
                request.sg_list = elements.add(index * per_request);
                if index + 1 < count {
                    request.next = requests.add(index + 1);
                }
            }
        }
        let mut rejected = std::ptr::null_mut();
        // SAFETY: a live queue; the slots own the memory that the requests name until they are
        // completed or the queue is destroyed.
        let code = unsafe { sys::ibv_post_srq_recv(self.raw(), requests, &raw mut rejected) };
        let taken = match check(code) {
            Ok(()) => count,
            Err(error) => {
                tracing::warn!(%error, "an RDMA device does not take receives");
                (0..count).find(|&index| requests.wrapping_add(index) == rejected).unwrap_or(0)
            }
        };
        self.posted += u32::try_from(taken).unwrap_or(0);
        self.take_back(taken);
        taken == count
    }

    fn take_back(&mut self, taken: usize) {
        for request in self.requests.iter().skip(taken) {
            let slot = wr_id::slot(request.wr_id);
            self.slots[slot as usize] = Slot::Free;
            self.free.push(slot);
        }
    }
}
