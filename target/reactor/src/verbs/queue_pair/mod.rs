//! A connection between this reactor and a peer: messages in and out, RDMA READ and WRITE.
//!
//! Life of one: made by [`QueuePair::accept`] or [`QueuePair::connect`]; used until it fails, the
//! peer disconnects or the owner does; then [`QueuePair::disconnect`], and
//! [`QueuePair::poll_idle`] until the device has let go of all work; then dropped. Dropping it
//! earlier is sound too: the C object is destroyed before any buffer is given back. But receives
//! that were just being filled are then more likely to be lost (see `device::receives`).

mod core;
mod post;
mod setup;
mod work;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::RemoteMemory;
use super::cm::{Access, CmId, CmKey};
use super::device::{HEADER_BYTES, RdmaDevice};
use super::error::{WorkCause, WorkError, check};
use crate::buffer::{Buffer, BufferMut};
pub(super) use core::PairCore;
pub(super) use post::Chain;
pub(super) use setup::depth_for;
use work::{Task, Work};

/// How a queue pair is to be.
#[derive(Debug, Clone, Copy)]
pub struct QueuePairOptions<'a> {
    /// How many commands are outstanding at once, from 1 to
    /// [`DeviceLimits::commands_max`](super::DeviceLimits::commands_max).
    pub depth: u16,
    /// How many RDMA READs there are under way at once at most: what the peer serves. The active
    /// side reads nothing and gives 0.
    pub initiator_depth: u8,
    /// What the peer is told along with the acceptance or the request.
    pub private_data: &'a [u8],
}

/// Something happened on a queue pair.
#[derive(Debug)]
pub enum QueuePairEvent {
    /// A message.
    Received {
        /// Its first 64 bytes, zero behind its end.
        header: [u8; HEADER_BYTES],
        /// Its whole length.
        len: usize,
        /// What lay behind byte 64, in a page-aligned buffer of the reactor's pool.
        data: Option<BufferMut>,
    },
    /// An RDMA READ has filled its buffer.
    ReadDone {
        /// As given.
        tag: u16,
        /// As given.
        buffer: BufferMut,
    },
    /// A message, and the WRITE before it, have arrived.
    Sent {
        /// As given.
        tag: u16,
    },
    /// The queue pair is in error and does nothing any more. Told once; buffers of works that are
    /// under way go back to their pools as they end.
    Failed(WorkError),
}

/// How long a queue pair that was closed waits for the device to say that it takes no more
/// receives. Not all devices say so.
const DRAIN_LIMIT: Duration = Duration::from_millis(200);

/// One end of a reliable connection, on one reactor.
pub struct QueuePair {
    device: RdmaDevice,
    pub(super) core: Rc<PairCore>,
    /// Runs once the queue pair is closed and has no work.
    drain: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl QueuePair {
    /// Passive side: makes the queue pair, posts its receives and accepts the peer. Messages of the
    /// peer may arrive before the connection counts as established. The peer gets no access to our
    /// memory.
    ///
    /// # Errors
    /// When the device has no room for it, or the peer has given up. The peer is rejected then.
    pub fn accept(
        device: &RdmaDevice,
        id: CmId,
        options: &QueuePairOptions<'_>,
    ) -> io::Result<QueuePair> {
        let initiator_depth = options.initiator_depth.min(device.limits().initiator_depth);
        let access = Access { initiator_depth, responder_resources: 0, remote: false };
        let pair = setup::make(device, id, options, access)?;
        pair.core.id.accept(options.private_data)?;
        Ok(pair)
    }

    /// Active side: makes the queue pair, posts its receives and asks the peer, who may then read
    /// and write memory that it was given [remote keys](super::RdmaDevice::remote_key) for. To be
    /// used after [`Established`](super::CmEventKind::Established).
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn connect(
        device: &RdmaDevice,
        id: CmId,
        options: &QueuePairOptions<'_>,
    ) -> io::Result<QueuePair> {
        device.inner.memory_for_peers()?;
        let responder_resources = device.limits().responder_resources;
        let access = Access { initiator_depth: 0, responder_resources, remote: true };
        let pair = setup::make(device, id, options, access)?;
        pair.core.id.connect(options.private_data)?;
        Ok(pair)
    }

    /// Its name in events of the connection manager.
    pub fn key(&self) -> CmKey {
        self.core.id.key()
    }

    /// The next event. Pending leaves the waker with the queue pair.
    pub fn poll_event(&self, cx: &mut Context<'_>) -> Poll<QueuePairEvent> {
        let mut works = self.core.works.borrow_mut();
        if let Some(event) = works.next_event() {
            return Poll::Ready(event);
        }
        works.remember(cx.waker());
        self.core.fate.watch(cx.waker());
        if self.core.fate.is_fatal() {
            works.fail(WorkError::connection(WorkCause::Device));
        }
        let event = works.next_event();
        drop(works);
        self.core.weigh(&self.device.inner);
        event.map_or(Poll::Pending, Poll::Ready)
    }

    /// Queues an RDMA READ of remote memory into the whole of `into`. More than the initiator
    /// depth wait their turn. On a queue pair that has ended it is dropped.
    pub fn read(&self, tag: u16, into: BufferMut, remote: RemoteMemory) {
        self.core.queue(&self.device.inner, Work { tag, task: Task::Read { into, remote } });
    }

    /// Queues a SEND of `message` (its first 64 bytes) and behind it `payload`, after an RDMA
    /// WRITE if one is given; with `invalidate`, the peer's key is invalidated as the message
    /// arrives. One `Sent` tells that all of it has completed. On a queue pair that has ended it
    /// is dropped.
    pub fn send(
        &self,
        tag: u16,
        message: &[u8],
        payload: Option<Buffer>,
        write: Option<(Buffer, RemoteMemory)>,
        invalidate: Option<u32>,
    ) {
        let mut bytes = [0; HEADER_BYTES];
        let len = message.len().min(HEADER_BYTES);
        bytes[..len].copy_from_slice(&message[..len]);
        let len = u8::try_from(len).unwrap_or(0);
        // A WRITE of nothing needs no request.
        let write = write.filter(|(data, _)| !data.is_empty());
        let payload = payload.filter(|data| !data.is_empty());
        let task = Task::Send { message: bytes, len, payload, write, invalidate };
        self.core.queue(&self.device.inner, Work { tag, task });
    }

    /// Hands everything queued to the device with one call; makes none when nothing is queued. True
    /// when there was something.
    ///
    /// # Errors
    /// When the device does not take it. Then the queue pair has failed, which the next event
    /// says too.
    pub fn flush(&self) -> io::Result<bool> {
        self.core.post(&self.device.inner)
    }

    /// Tells the peer that the connection ends, and ends all work. Does nothing the second time.
    pub fn disconnect(&self) {
        {
            let mut works = self.core.works.borrow_mut();
            if works.is_closing() {
                return;
            }
            works.close();
        }
        self.core.weigh(&self.device.inner);
        if let Err(error) = self.core.id.fail_pair() {
            tracing::debug!(%error, "an RDMA queue pair cannot be moved to its error state");
        }
        // Not connected yet, or not any more: then there is nobody to tell.
        let _ = self.core.id.disconnect();
    }

    /// Ready when no work is queued or with the device. After [`disconnect`](Self::disconnect) it
    /// also waits, for a fifth of a second at most, until the device takes no more receives.
    pub fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        let is_closing = {
            let mut works = self.core.works.borrow_mut();
            if works.outstanding() > 0 {
                works.remember_idle(cx.waker());
                drop(works);
                self.core.weigh(&self.device.inner);
                return Poll::Pending;
            }
            works.is_closing()
        };
        if !is_closing {
            return Poll::Ready(());
        }
        self.core.fate.watch(cx.waker());
        if self.core.fate.is_drained() {
            return Poll::Ready(());
        }
        let mut drain = self.drain.borrow_mut();
        let limit = drain.get_or_insert_with(|| Box::pin(tokio::time::sleep(DRAIN_LIMIT)));
        limit.as_mut().poll(cx)
    }

    /// How many works are queued or with the device. Those whose end nobody was woken for are
    /// looked for first, so that none seems to be under way that ended long ago.
    pub fn outstanding(&self) -> usize {
        if self.core.works.borrow().outstanding() > 0 {
            self.device.inner.reap_all();
        }
        self.core.works.borrow().outstanding()
    }

    /// How many works have ended so far. One that stands still while there are outstanding ones
    /// is stalled.
    pub fn work_ended(&self) -> u64 {
        self.core.works.borrow().ended
    }

    fn enter(device: &RdmaDevice, core: Rc<PairCore>) -> io::Result<QueuePair> {
        let entered = device.inner.enter(&core);
        let pair = QueuePair { device: device.clone(), core, drain: RefCell::new(None) };
        entered.map(|()| pair)
    }

    fn attach(&self, access: Access) -> io::Result<()> {
        // SAFETY: live, on the id's device, and retired before it is destroyed, below.
        unsafe { self.core.id.attach(self.core.raw(), access) }
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        self.disconnect();
        let device = &self.device.inner;
        // What has completed by now gives its memory back in the regular way.
        device.reap_all();
        let number = self.core.number();
        let mut destroyed = Ok(());
        self.core.id.pair.retire(|| {
            // SAFETY: no other thread can reach it any more, and this is its owner's end.
            destroyed = check(unsafe { device.verbs().ib().ibv_destroy_qp(self.core.raw()) });
        });
        let is_alive = super::device::warn_undestroyed("queue pair", destroyed);
        device.reap_all();
        device.leave(&self.core, number, is_alive);
    }
}
