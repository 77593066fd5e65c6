//! The receiving part of a round: one vectored read, then everything that its bytes mean.

use std::future::Future;
use std::io::IoSliceMut;
use std::ops::Range;
use std::task::{Context, Poll};

use afs_nvme::Sqe;
use afs_reactor::{BufferMut, BufferPool};

use super::super::close::CloseReason;
use super::super::connection::Core;
use super::super::request::TransferError;
use super::super::service::{Completion, Service};
use super::wire::{TcpWire, WaitingCapsule};
use crate::codec::TargetEvent;
use crate::socket;

/// Bytes read ahead of a large transfer: its header and a few more. What comes with it is copied once, so
/// little should.
const AHEAD_OF_DATA_BYTES: usize = 4096;
/// Transfers from this size on are worth a short read ahead.
const LARGE_TRANSFER_BYTES: u64 = 32 << 10;

impl TcpWire {
    /// Receives once and handles what came; false when there was nothing.
    pub(super) fn receive_round<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        cx: &mut Context<'_>,
    ) -> Result<bool, CloseReason> {
        let resumed = self.waiting.is_some();
        match self.poll_waiting(core, cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(result) => result?,
        }
        if resumed {
            self.handle_area(core)?;
            return Ok(true);
        }
        loop {
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(error)) => return Err(CloseReason::from(&error)),
                Poll::Ready(Ok(())) => {}
            }
            if socket::is_closed_by_peer(&self.stream) {
                return Err(self.last_words());
            }
            match self.receive_once(core)? {
                // The read before took exactly what there was. Only the next look leaves our waker with the socket.
                None => {}
                Some(0) => return Err(CloseReason::PeerClosed),
                Some(count) => {
                    self.received(core, count)?;
                    return Ok(true);
                }
            }
        }
    }

    /// One read: the rest of the transfer under way straight into its buffer, what follows into the area.
    fn receive_once<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &Core<S, F>,
    ) -> Result<Option<usize>, CloseReason> {
        let large = self.codec.commands().open_bytes() >= LARGE_TRANSFER_BYTES;
        let limit = if large { AHEAD_OF_DATA_BYTES } else { usize::MAX };
        let direct: &mut [u8] = match self.codec.payload_remaining() {
            Some((slot, remaining)) => {
                let rest = self.incoming.rest(slot);
                let len = rest.len().min(remaining);
                &mut rest[..len]
            }
            None => &mut [],
        };
        let result = socket::receive_split(&self.stream, direct, self.area.spare(limit));
        core.local.counters().count_socket_calls(1);
        let count = result.map_err(|error| CloseReason::from(&error))?;
        core.queue.count(|counters| {
            counters.receive_calls += 1;
            counters.bytes_received += count.unwrap_or(0) as u64;
        });
        Ok(count)
    }

    /// Splits `count` received bytes between the transfer under way and the area.
    fn received<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        count: usize,
    ) -> Result<(), CloseReason> {
        let mut for_area = count;
        if let Some((slot, remaining)) = self.codec.payload_remaining() {
            let direct = count.min(remaining);
            for_area = count - direct;
            let rest = self.incoming.rest(slot);
            let taken = rest.len().min(direct);
            let event = self.codec.payload_received(&rest[..taken]);
            self.incoming.filled(slot, taken);
            if event == (TargetEvent::TransferEnd { slot }) {
                self.transfer_end(core, slot);
            }
        }
        self.area.received(for_area);
        self.handle_area(core)
    }

    /// Handles all whole PDUs in the area.
    fn handle_area<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
    ) -> Result<(), CloseReason> {
        while self.waiting.is_none() {
            let (consumed, event) = self.codec.next(self.area.unread())?;
            match event {
                TargetEvent::Need(bytes) => {
                    self.area.make_room(bytes);
                    return Ok(());
                }
                TargetEvent::Initialize(request) => {
                    self.responses.initialize(request, core.limits.wire.max_h2c_data);
                    core.queue.set_digests(request.digests);
                    self.area.grow(core.limits.receive_bytes);
                }
                TargetEvent::Command { slot, sqe, in_capsule, fault } => {
                    core.queue.count(|counters| counters.commands += 1);
                    if let Some(status) = fault {
                        core.refuse(self, slot, &sqe, status);
                    } else if let Some(range) = in_capsule {
                        self.in_capsule(core, (slot, sqe), range, consumed);
                        continue;
                    } else {
                        core.start(self, slot, sqe, None);
                    }
                }
                TargetEvent::Data { slot, range } => {
                    self.incoming.append(slot, &self.area.unread()[range]);
                }
                TargetEvent::TransferEnd { slot } => self.transfer_end(core, slot),
                TargetEvent::Continue => {}
                TargetEvent::Terminated { fes, fei } => {
                    return Err(CloseReason::TerminatedByHost { fes, fei });
                }
            }
            self.area.consume(consumed);
        }
        Ok(())
    }

    /// Copies in-capsule data into a buffer that disks can take. One copy of at most 16 KiB is cheaper than
    /// a second receive call per command. Data of admin queues never waits behind I/O: the reserve serves it.
    fn in_capsule<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        (slot, sqe): (u16, Sqe),
        range: Range<usize>,
        total: usize,
    ) {
        let (start, len) = (range.start, range.len());
        if let Some(mut buffer) = self.capsule_buffer(core.queue.pool(), len) {
            buffer.copy_from_slice(&self.area.unread()[range]);
            self.area.consume(total);
            core.start(self, slot, sqe, Some(buffer.freeze()));
            return;
        }
        core.queue.count(|counters| counters.pool_waits += 1);
        core.queue.set_deaf(true);
        let buffer = Box::pin(wait_for_buffer(self.reserve.clone(), len));
        self.waiting = Some(WaitingCapsule { slot, sqe, start, len, total, buffer });
    }

    /// The pool of the queue first, then the reserve. Buffers of the reserve only ever wait for disks, never
    /// for a socket, so this connection goes on being read and the transfers that it waits for can end.
    fn capsule_buffer(&self, pool: &BufferPool, len: usize) -> Option<BufferMut> {
        pool.try_alloc(len).or_else(|| self.reserve.try_alloc(len))
    }

    /// All bytes of an R2T have come.
    fn transfer_end<S: Service, F: Future<Output = Completion>>(
        &mut self,
        core: &mut Core<S, F>,
        slot: u16,
    ) {
        let damaged = self.codec.commands().transfer(slot).is_some_and(|transfer| transfer.damaged);
        let Some(buffer) = self.incoming.close(slot) else { return };
        if damaged {
            core.queue.count(|counters| counters.digest_errors += 1);
        }
        let result = if damaged { Err(TransferError::DIGEST) } else { Ok(buffer.freeze()) };
        core.data_arrived(self, slot, result);
    }

    /// The host has closed: what it sent before is not started any more (CONFORMANCE M-45), but a TermReq is
    /// worth a line in the log (CONFORMANCE T-87).
    fn last_words(&mut self) -> CloseReason {
        if self.codec.in_payload() {
            return CloseReason::PeerClosed;
        }
        let spare = self.area.spare(AHEAD_OF_DATA_BYTES);
        let wanted = spare.len();
        let Ok(Some(count)) = socket::receive(&self.stream, &mut [IoSliceMut::new(spare)], wanted)
        else {
            return CloseReason::PeerClosed;
        };
        self.area.received(count);
        match self.codec.next(self.area.unread()) {
            Ok((_, TargetEvent::Terminated { fes, fei })) => {
                CloseReason::TerminatedByHost { fes, fei }
            }
            _ => CloseReason::PeerClosed,
        }
    }
}

async fn wait_for_buffer(pool: BufferPool, len: usize) -> BufferMut {
    pool.alloc(len).await
}
