//! The shared receive queue: what messages of all queue pairs are received into.
//!
//! Each receive has a slot, which owns its buffer and 64 bytes in the header area. There are as
//! many receives in the queue as the queue pairs together may be sent at once, up to a maximum.
//!
//! **Lost receives.** A queue pair that dies in the middle of a message may take that message's
//! receive with it, without a completion. At most one is lost so with each queue pair, and no
//! call tells which. But a reliable connection finishes one message before it begins the next, and
//! receives are taken from the queue in the order in which they were posted. So a receive is lost
//! when every live queue pair has completed one that was posted later, or was made when one posted
//! later had been completed. Such a receive no longer counts as posted, and another takes its
//! place. Its memory is kept, untouched, until the queue is destroyed: that stays sound should a
//! device take receives in another order, and if it completes one after all, that is a message
//! like any other. When many were lost the device is worn, and the reactor opens a fresh one for
//! new connections.
//!
//! Invariants:
//! 1. The memory of a slot that is not free belongs to the device.
//! 2. `posted` is the number of slots that are posted and not lost.
//! 3. Slots that are not free never outnumber the entries of the queue.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;

use afs_verbs_sys as sys;

use super::memory::{Memory, Region};
use crate::buffer::{BufferMut, BufferPool};
use crate::memory::Arena;
use crate::verbs::context::SharedContext;
use crate::verbs::error::{check, context as in_context};

/// How much of a message goes to the header area.
pub(in crate::verbs) const HEADER_BYTES: usize = 64;

/// How many receives are posted with one call at most.
pub(super) const BATCH: usize = 64;

pub(super) enum Slot {
    Free,
    Posted { buffer: Option<BufferMut>, order: u64, lost: bool },
}

/// What one completed receive brought.
pub(in crate::verbs) struct Message {
    pub(in crate::verbs) header: [u8; HEADER_BYTES],
    pub(in crate::verbs) data: Option<BufferMut>,
    /// When it was posted, in the order of all.
    pub(in crate::verbs) order: u64,
}

pub(super) struct Receives {
    pub(super) raw: NonNull<sys::ibv_srq>,
    pub(super) context: Arc<SharedContext>,
    pub(super) slots: Vec<Slot>,
    pub(super) free: Vec<u32>,
    /// Buffers that came back unused.
    pub(super) spare: Vec<BufferMut>,
    /// The pool is empty; this waits until it is not.
    pub(super) shortage: Option<Pin<Box<dyn Future<Output = BufferMut>>>>,
    /// How many messages the queue pairs may be sent at once.
    pub(super) wanted: u32,
    pub(super) max: u32,
    pub(super) posted: u32,
    pub(super) lost: u32,
    pub(super) last_order: u64,
    /// The latest of those that were completed.
    pub(super) completed_order: u64,
    pub(super) pool: BufferPool,
    pub(super) data_bytes: usize,
    pub(super) requests: Vec<sys::ibv_recv_wr>,
    pub(super) elements: Vec<sys::ibv_sge>,
    pub(super) region: Region,
    pub(super) headers: Arena,
}

impl Receives {
    /// A queue for at most `max` receives and some that are lost, with `data_bytes` of room behind
    /// the header of each message.
    pub(super) fn new(
        context: Arc<SharedContext>,
        memory: &Memory,
        pool: BufferPool,
        max: u32,
        data_bytes: usize,
    ) -> io::Result<Receives> {
        let entries = entries(max);
        let headers = Arena::new((entries as usize * HEADER_BYTES).next_multiple_of(4096))?;
        // SAFETY: the area is mapped as long as the region, which is dropped before it, and only
        // read where a receive has completed.
        let region = unsafe { memory.region(headers.base(), headers.bytes())? };
        let max_sge = if data_bytes == 0 { 1 } else { 2 };
        let mut attributes = sys::ibv_srq_init_attr {
            srq_context: std::ptr::null_mut(),
            attr: sys::ibv_srq_attr { max_wr: entries, max_sge, srq_limit: 0 },
        };
        // SAFETY: the domain is live, the attributes are valid during the call.
        let raw = NonNull::new(unsafe {
            context.verbs().ib().ibv_create_srq(memory.domain(), &raw mut attributes)
        })
        .ok_or_else(|| in_context("RDMA receive queue", &io::Error::last_os_error()))?;
        Ok(Receives {
            raw,
            context,
            slots: (0..entries).map(|_| Slot::Free).collect(),
            free: (0..entries).rev().collect(),
            spare: Vec::with_capacity(BATCH),
            shortage: None,
            wanted: 0,
            max,
            posted: 0,
            lost: 0,
            last_order: 0,
            completed_order: 0,
            pool,
            data_bytes,
            requests: Vec::with_capacity(BATCH),
            elements: Vec::with_capacity(2 * BATCH),
            region,
            headers,
        })
    }

    pub(super) fn raw(&self) -> *mut sys::ibv_srq {
        self.raw.as_ptr()
    }

    /// Receives in the queue.
    pub(super) fn posted(&self) -> u32 {
        self.posted
    }

    /// Receives that dying queue pairs took with them.
    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    /// How many there should be.
    pub(super) fn target(&self) -> u32 {
        self.wanted.min(self.max)
    }

    /// When half of the reserve for lost ones is used.
    pub(super) fn is_worn(&self) -> bool {
        self.lost > reserve(self.max) / 2
    }

    /// The order number of the latest receive that was completed.
    pub(super) fn completed_order(&self) -> u64 {
        self.completed_order
    }

    /// A queue pair of this depth came.
    pub(super) fn widen(&mut self, depth: u32) {
        self.wanted = self.wanted.saturating_add(depth);
    }

    /// It went. What is posted beyond the new target is used up before more is posted.
    pub(super) fn narrow(&mut self, depth: u32) {
        self.wanted = self.wanted.saturating_sub(depth);
    }

    /// Takes a completed receive out of its slot. `None` for a slot that was not posted, which
    /// no device completes.
    pub(super) fn complete(&mut self, slot: u32, len: usize) -> Option<Message> {
        let contents = std::mem::replace(self.slots.get_mut(slot as usize)?, Slot::Free);
        let Slot::Posted { buffer, order, lost } = contents else { return None };
        self.free.push(slot);
        match lost {
            true => self.lost -= 1,
            false => self.posted -= 1,
        }
        self.completed_order = self.completed_order.max(order);
        let data = self.cut(buffer, len);
        Some(Message { header: self.header(slot, len), data, order })
    }

    /// Finds receives that were lost. `floor` is the lowest of what the live queue pairs have
    /// completed last, or what had been completed when they were made.
    pub(super) fn find_lost(&mut self, floor: u64) {
        let room = reserve(self.max).saturating_sub(self.lost);
        let mut found = 0;
        for slot in &mut self.slots {
            if let Slot::Posted { order, lost, .. } = slot
                && !*lost
                && *order < floor
                && found < room
            {
                *lost = true;
                found += 1;
            }
        }
        if found > 0 {
            tracing::debug!(found, "RDMA receives were lost with their queue pairs");
        }
        self.posted -= found;
        self.lost += found;
    }

    fn header(&self, slot: u32, len: usize) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let len = len.min(HEADER_BYTES);
        // SAFETY: the slot's part of the area, which belongs to us again.
        unsafe {
            let from = self.headers.base().add(slot as usize * HEADER_BYTES);
            header.as_mut_ptr().copy_from_nonoverlapping(from.as_ptr(), len);
        }
        header
    }

    /// The data behind the header; a buffer without any is kept for the next receive.
    fn cut(&mut self, buffer: Option<BufferMut>, len: usize) -> Option<BufferMut> {
        let mut buffer = buffer?;
        let data = len.saturating_sub(HEADER_BYTES).min(self.data_bytes);
        if data > 0 {
            buffer.set_len(data);
            return Some(buffer);
        }
        if self.spare.len() < BATCH {
            self.spare.push(buffer);
        }
        None
    }
}

impl Drop for Receives {
    fn drop(&mut self) {
        // SAFETY: no queue pair uses it any more.
        let code = unsafe { self.context.verbs().ib().ibv_destroy_srq(self.raw()) };
        if super::warn_undestroyed("receive queue", check(code)) {
            // Memory that the device may still write to must never be used again.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

/// How many lost receives can be replaced: their slots stay taken.
fn reserve(max: u32) -> u32 {
    (max / 8).max(32)
}

/// How many entries the queue needs for so many receives.
pub(super) fn entries(max: u32) -> u32 {
    max.saturating_add(reserve(max))
}

/// The most receives for which a queue of so many entries is enough.
pub(super) fn max_for(entries: u32) -> u32 {
    (entries / 9 * 8).min(entries.saturating_sub(32))
}
