//! Turns queued works into one chain of requests and hands it to the device with one call.

use std::io;

use afs_verbs_sys as sys;

use super::core::PairCore;
use super::work::{Task, Works};
use crate::buffer::BufferMut;
use crate::verbs::RemoteMemory;
use crate::verbs::device::{DeviceInner, HEADER_BYTES, PairName, wr_id};
use crate::verbs::error::{WorkCause, WorkError, check};

/// A request has a message and a payload at most.
const ELEMENTS: usize = 2;

/// Where chains are built. One for all queue pairs of a device; its vectors are as long as the
/// longest chain, so building one allocates nothing.
#[derive(Default)]
pub(in crate::verbs) struct Chain {
    requests: Vec<sys::ibv_send_wr>,
    elements: Vec<[sys::ibv_sge; ELEMENTS]>,
    /// The work of each request.
    works: Vec<u16>,
}

impl Chain {
    /// Makes room for chains of `requests`.
    pub(in crate::verbs) fn reserve(&mut self, requests: usize) {
        self.requests.reserve(requests);
        self.elements.reserve(requests);
        self.works.reserve(requests);
    }

    fn clear(&mut self) {
        self.requests.clear();
        self.elements.clear();
        self.works.clear();
    }

    fn push(&mut self, work: u16, request: sys::ibv_send_wr, elements: [sys::ibv_sge; ELEMENTS]) {
        self.works.push(work);
        self.requests.push(request);
        self.elements.push(elements);
    }

    /// Points the requests to their elements and to each other. Nothing may be pushed afterwards.
    fn link(&mut self) -> *mut sys::ibv_send_wr {
        let (first, elements) = (self.requests.as_mut_ptr(), self.elements.as_mut_ptr());
        let count = self.requests.len();
        for index in 0..count {
            // SAFETY: both vectors have `count` entries.
            unsafe {
                let request = &mut *first.add(index);
                request.sg_list = elements.add(index).cast();
                if index + 1 < count {
                    request.next = first.add(index + 1);
                }
            }
        }
        first
    }

    /// How many requests lie before the one that the device rejected.
    fn position(&self, rejected: *mut sys::ibv_send_wr) -> usize {
        let first = self.requests.as_ptr();
        (0..self.requests.len()).find(|&index| first.wrapping_add(index) == rejected).unwrap_or(0)
    }
}

impl PairCore {
    /// Hands over as much of what is queued as the send queue and the initiator depth allow.
    /// True when it handed over anything.
    pub(in crate::verbs) fn post(&self, device: &DeviceInner) -> io::Result<bool> {
        let result = self.try_post(device);
        if result.is_err() {
            self.carry_out_sentence();
        }
        self.weigh(device);
        result
    }

    fn try_post(&self, device: &DeviceInner) -> io::Result<bool> {
        let works = &mut *self.works.borrow_mut();
        if !works.has_queued() {
            return Ok(false);
        }
        let chain = &mut *device.chain.borrow_mut();
        chain.clear();
        let built = self.build(device, works, chain);
        let any = !chain.requests.is_empty();
        let handed_over = if any { self.ring(works, chain) } else { Ok(()) };
        if any {
            device.count_doorbell();
        }
        match (built, handed_over) {
            (Ok(()), Ok(())) => Ok(any),
            (Err(error), Ok(())) => {
                works.condemn(error);
                Err(io::Error::other(error))
            }
            (_, Err(error)) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                works.condemn(WorkError::connection(WorkCause::Refused(errno)));
                Err(error)
            }
        }
    }

    fn build(
        &self,
        device: &DeviceInner,
        works: &mut Works,
        chain: &mut Chain,
    ) -> Result<(), WorkError> {
        while works.reads_posted < works.bounds.initiator_depth
            && works.requests_posted < works.bounds.requests_max
            && let Some(&index) = works.reads.front()
        {
            self.push_work(device, works, chain, index)?;
            works.reads.pop_front();
            works.reads_posted += 1;
            works.requests_posted += 1;
        }
        while let Some(&index) = works.sends.front() {
            let Some(work) = works.table.get(usize::from(index)) else { break };
            let requests = work.task.requests();
            if works.requests_posted + requests > works.bounds.requests_max {
                break;
            }
            self.push_work(device, works, chain, index)?;
            works.sends.pop_front();
            works.requests_posted += requests;
        }
        Ok(())
    }

    fn push_work(
        &self,
        device: &DeviceInner,
        works: &Works,
        chain: &mut Chain,
        index: u16,
    ) -> Result<(), WorkError> {
        let Some(work) = works.table.get(usize::from(index)) else { return Ok(()) };
        let key = |pool, address, is_write| {
            device.memory.local_key_or_register(pool, address).ok_or_else(|| WorkError {
                operation: work.task.operation(is_write),
                cause: WorkCause::NotRegistered,
            })
        };
        let name = self.name();
        match &work.task {
            Task::Read { into, remote } => {
                let element = element(into, key(into.pool(), into.as_ptr(), false)?);
                let mut request = request(wr_id::work(name, index, false), sys::IBV_WR_RDMA_READ);
                at(&mut request, *remote);
                signal(&mut request, 1);
                chain.push(index, request, [element, NOTHING]);
            }
            Task::Send { message, len, payload, write, invalidate } => {
                // All keys first, so that a work is pushed as a whole or not at all.
                let payload = match payload {
                    Some(data) => Some(element(data, key(data.pool(), data.as_ptr(), false)?)),
                    None => None,
                };
                if let Some((data, remote)) = write {
                    let element = element(data, key(data.pool(), data.as_ptr(), true)?);
                    push_write(chain, name, index, element, *remote);
                }
                self.push_send(device, chain, index, (message, *len), payload, *invalidate)?;
            }
        }
        Ok(())
    }

    fn push_send(
        &self,
        device: &DeviceInner,
        chain: &mut Chain,
        index: u16,
        (message, len): (&[u8; HEADER_BYTES], u8),
        payload: Option<sys::ibv_sge>,
        invalidate: Option<u32>,
    ) -> Result<(), WorkError> {
        let opcode = invalidate.map_or(sys::IBV_WR_SEND, |_| sys::IBV_WR_SEND_WITH_INV);
        let mut request = request(wr_id::work(self.name(), index, false), opcode);
        if let Some(key) = invalidate {
            request.__bindgen_anon_1.invalidate_rkey = key;
        }
        let length = u32::from(len);
        signal(&mut request, 1 + i32::from(payload.is_some()));
        let message = if self.inline_bytes >= length && payload.is_none() {
            request.send_flags |= sys::IBV_SEND_INLINE;
            sys::ibv_sge { addr: message.as_ptr().addr() as u64, length, lkey: 0 }
        } else {
            self.copy_message(device, index, &message[..usize::from(len)])?
        };
        chain.push(index, request, [message, payload.unwrap_or(NOTHING)]);
        Ok(())
    }

    /// Puts a message where the device can read it, until its request has completed.
    fn copy_message(
        &self,
        device: &DeviceInner,
        index: u16,
        message: &[u8],
    ) -> Result<sys::ibv_sge, WorkError> {
        let missing = WorkError::connection(WorkCause::NotRegistered);
        let mut area = self.messages.borrow_mut();
        let area: &mut BufferMut = area.as_mut().ok_or(missing)?;
        let start = usize::from(index) * HEADER_BYTES;
        let place = area.get_mut(start..start + message.len()).ok_or(missing)?;
        place.copy_from_slice(message);
        let address = place.as_ptr();
        let lkey = device.memory.local_key(area.pool(), address).ok_or(missing)?;
        Ok(sys::ibv_sge { addr: address.addr() as u64, length: length(message), lkey })
    }

    /// The doorbell. Works that the device does not take end at once, except one whose WRITE it
    /// has taken: that keeps its buffers until the queue pair is destroyed.
    fn ring(&self, works: &mut Works, chain: &mut Chain) -> io::Result<()> {
        let first = chain.link();
        let mut rejected = std::ptr::null_mut();
        // SAFETY: the queue pair is live as long as `self` is in the device's table. The chain is
        // complete, inline messages lie in the table of works, which nobody touches during the call,
        // and all other memory is owned by a work until its completion is seen.
        let code = unsafe { sys::ibv_post_send(self.raw(), first, &raw mut rejected) };
        let Err(error) = check(code) else { return Ok(()) };
        let taken = chain.position(rejected);
        let (posted, refused) = chain.works.split_at(taken);
        for &index in refused {
            works.requests_posted -= 1;
            if posted.last() == Some(&index) {
                works.stranded += 1;
            } else if let Some(work) = works.table.try_remove(usize::from(index)) {
                works.ended += 1;
                works.reads_posted -= u8::from(matches!(work.task, Task::Read { .. }));
            }
        }
        Err(error)
    }
}

const NOTHING: sys::ibv_sge = sys::ibv_sge { addr: 0, length: 0, lkey: 0 };

fn element(bytes: &[u8], lkey: u32) -> sys::ibv_sge {
    sys::ibv_sge { addr: bytes.as_ptr().addr() as u64, length: length(bytes), lkey }
}

/// Buffers have at most 1 MiB.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn request(wr_id: u64, opcode: sys::ibv_wr_opcode) -> sys::ibv_send_wr {
    // SAFETY: a struct of numbers and pointers, for which zero is a value.
    let empty: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
    sys::ibv_send_wr { wr_id, opcode, num_sge: 1, ..empty }
}

fn at(request: &mut sys::ibv_send_wr, remote: RemoteMemory) {
    request.wr.rdma = sys::ibv_send_wr__bindgen_ty_2__bindgen_ty_1 {
        remote_addr: remote.address,
        rkey: remote.key,
    };
}

fn signal(request: &mut sys::ibv_send_wr, elements: i32) {
    request.send_flags |= sys::IBV_SEND_SIGNALED;
    request.num_sge = elements;
}

/// A WRITE makes no completion of its own when it succeeds: the SEND after it tells.
fn push_write(
    chain: &mut Chain,
    name: PairName,
    index: u16,
    element: sys::ibv_sge,
    remote: RemoteMemory,
) {
    let mut request = request(wr_id::work(name, index, true), sys::IBV_WR_RDMA_WRITE);
    at(&mut request, remote);
    chain.push(index, request, [element, NOTHING]);
}
