//! The state of a host's queue pair: outstanding commands and what waits to be sent. Shared between the
//! handles, which submit, and the driver, which moves bytes.

use std::task::{Poll, Waker};

use afs_nvme::tcp::{ADMIN_IN_CAPSULE_BYTES, PduType, flags};
use afs_nvme::{Cqe, Sgl, Sqe, Status};
use afs_reactor::{Buffer, BufferMut};

use super::error::HostError;
use super::queue::{HostCounters, HostData};
use crate::codec::encode::{DataPiece, Encoder};
use crate::codec::{HostCodec, HostEvent, SLOT_MASK};
use crate::transmit::Transmit;

/// Reads from this size on are worth a short read ahead, so that their data needs no copy.
const LARGE_READ_BYTES: u32 = 32 << 10;

/// What a command gave back.
pub(super) type Outcome = Result<(Cqe, Option<BufferMut>), HostError>;

#[derive(Default)]
struct Slot {
    /// Command id of the current or last use; the generation is in its upper bits.
    cid: u16,
    busy: bool,
    /// The submitter is gone; the outcome is dropped.
    abandoned: bool,
    damaged: bool,
    input: Option<BufferMut>,
    filled: usize,
    output: Option<Buffer>,
    /// Where in the stream the data asked for by R2T ends.
    output_end: u64,
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

/// See the module.
pub(super) struct Core {
    pub(super) codec: HostCodec,
    pub(super) transmit: Transmit,
    pub(super) encoder: Encoder,
    pub(super) max_h2c_data: u32,
    pub(super) in_capsule_bytes: u32,
    pub(super) counters: HostCounters,
    pub(super) closed: Option<HostError>,
    pub(super) admin: bool,
    slots: Vec<Slot>,
    free: Vec<u16>,
    large_reads: usize,
    released: usize,
}

impl Core {
    pub(super) fn new(codec: HostCodec, encoder: Encoder, in_capsule_bytes: u32) -> Core {
        Core {
            codec,
            transmit: Transmit::default(),
            encoder,
            max_h2c_data: 4096,
            in_capsule_bytes,
            counters: HostCounters::default(),
            closed: None,
            admin: true,
            slots: Vec::new(),
            free: Vec::new(),
            large_reads: 0,
            released: 0,
        }
    }

    /// Whether much data is expected, so that little should be read ahead of it.
    pub(super) fn expects_large_data(&self) -> bool {
        self.large_reads > 0
    }

    /// Queues a command; its slot.
    pub(super) fn begin(&mut self, mut sqe: Sqe, data: HostData) -> Result<u16, HostError> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        let too_long = HostError::Argument("data of a command is limited to 4 GiB");
        let length = u32::try_from(data.len()).map_err(|_| too_long)?;
        let slot = self.free.pop().unwrap_or_else(|| self.add());
        let state = &mut self.slots[usize::from(slot)];
        state.cid = slot | (state.cid & !SLOT_MASK).wrapping_add(SLOT_MASK + 1);
        (state.busy, state.abandoned, state.damaged) = (true, false, false);
        (state.filled, state.output_end) = (0, 0);
        let cid = state.cid;
        sqe.cid.set(cid);
        let limit = if self.admin || sqe.is_fabrics() {
            ADMIN_IN_CAPSULE_BYTES
        } else {
            self.in_capsule_bytes
        };
        let encoder = self.encoder;
        match data {
            HostData::Out(buffer) if length > 0 && length <= limit => {
                sqe.sgl = Sgl::in_capsule(length);
                self.codec.begin(cid, 0, 0);
                self.transmit.headers(|out| encoder.command(out, sqe, length));
                self.transmit.data(buffer.clone());
                self.transmit.headers(|out| encoder.data_digest(out, &buffer));
                state.output_end = self.transmit.queued();
            }
            HostData::Out(buffer) => {
                sqe.sgl = Sgl::transport(length);
                self.codec.begin(cid, 0, length);
                self.transmit.headers(|out| encoder.command(out, sqe, 0));
                state.output = Some(buffer);
            }
            HostData::In(buffer) => {
                sqe.sgl = Sgl::transport(length);
                self.codec.begin(cid, length, 0);
                self.transmit.headers(|out| encoder.command(out, sqe, 0));
                state.input = Some(buffer);
                self.large_reads += usize::from(length >= LARGE_READ_BYTES);
            }
            HostData::None => {
                sqe.sgl = Sgl::transport(0);
                self.codec.begin(cid, 0, 0);
                self.transmit.headers(|out| encoder.command(out, sqe, 0));
            }
        }
        self.counters.commands += 1;
        Ok(slot)
    }

    /// The outcome of a command, if it is over; its slot is free then.
    pub(super) fn poll_outcome(&mut self, slot: u16, waker: &Waker) -> Poll<Outcome> {
        let state = &mut self.slots[usize::from(slot)];
        if let Some(outcome) = state.outcome.take() {
            self.free.push(slot);
            return Poll::Ready(outcome);
        }
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        Poll::Pending
    }

    /// Nobody waits for this command any more; its buffers stay until the controller is done with it. True
    /// when that is so already, and the slot is free.
    pub(super) fn abandon(&mut self, slot: u16) -> bool {
        let state = &mut self.slots[usize::from(slot)];
        state.abandoned = state.outcome.take().is_none();
        if !state.abandoned {
            self.free.push(slot);
        }
        !state.abandoned
    }

    /// Slots of abandoned commands that became free since the last call.
    pub(super) fn take_released(&mut self) -> usize {
        std::mem::take(&mut self.released)
    }

    /// Where the next bytes of the data of `cid` go.
    pub(super) fn rest(&mut self, cid: u16) -> &mut [u8] {
        let Some(slot) = self.slots.get_mut(usize::from(cid & SLOT_MASK)) else { return &mut [] };
        let filled = slot.filled;
        slot.input.as_mut().and_then(|buffer| buffer.get_mut(filled..)).unwrap_or_default()
    }

    pub(super) fn filled(&mut self, cid: u16, count: usize) {
        if let Some(slot) = self.slots.get_mut(usize::from(cid & SLOT_MASK)) {
            slot.filled += count;
        }
    }

    /// Counts bytes that were read straight into [`Core::rest`], and handles the end of the data.
    pub(super) fn received(&mut self, cid: u16, count: usize) -> HostEvent {
        let Some(slot) = self.slots.get_mut(usize::from(cid & SLOT_MASK)) else {
            return HostEvent::Continue;
        };
        let rest =
            slot.input.as_deref().and_then(|input| input.get(slot.filled..)).unwrap_or_default();
        let taken = rest.len().min(count);
        let event = self.codec.payload_received(&rest[..taken]);
        slot.filled += taken;
        event
    }

    /// Queues the data that an R2T asked for (CONFORMANCE T-36).
    pub(super) fn send_data(&mut self, cid: u16, ttag: u16, offset: u32, length: u32) {
        let Some(slot) = self.slots.get_mut(usize::from(cid & SLOT_MASK)) else { return };
        let Some(output) = slot.output.clone() else { return };
        let (mut at, end) = (offset as usize, (offset as usize).saturating_add(length as usize));
        let step = self.max_h2c_data as usize;
        while at < end.min(output.len()) {
            let until = end.min(output.len()).min(at + step);
            let piece = output.slice(at..until);
            let header = DataPiece {
                cid,
                ttag,
                offset: u32::try_from(at).unwrap_or(u32::MAX),
                length: u32::try_from(until - at).unwrap_or(u32::MAX),
                flags: if until == end { flags::LAST } else { 0 },
            };
            let encoder = self.encoder;
            self.transmit.headers(|out| encoder.data(out, PduType::H2cData, header));
            self.transmit.data(piece.clone());
            self.transmit.headers(|out| encoder.data_digest(out, &piece));
            at = until;
        }
        slot.output_end = self.transmit.queued();
    }

    /// Notes that the data of `cid` was damaged.
    pub(super) fn damaged(&mut self, cid: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(cid & SLOT_MASK)) {
            slot.damaged = true;
        }
    }

    /// Ends a command with its completion. False when the controller completed a command whose data had not
    /// all been sent (CONFORMANCE T-33). Says also whether nobody waits for the outcome.
    pub(super) fn complete(&mut self, cqe: Cqe) -> bool {
        let cid = cqe.cid();
        let received = self.codec.received(cid);
        self.codec.end(cid);
        let Some(slot) = self.slots.get_mut(usize::from(cid & SLOT_MASK)) else { return true };
        let in_order = slot.output_end <= self.transmit.sent();
        let input = slot.input.take();
        let expected = input.as_ref().map_or(0, |buffer| u32::try_from(buffer.len()).unwrap_or(0));
        self.large_reads -= usize::from(expected >= LARGE_READ_BYTES);
        let outcome = if slot.damaged {
            Err(HostError::DataDigest)
        } else if cqe.status() == Status::SUCCESS && received != expected {
            Err(HostError::ShortData { received, expected })
        } else {
            Ok((cqe, input))
        };
        slot.end(outcome);
        if slot.abandoned {
            slot.outcome = None;
            self.free.push(cid & SLOT_MASK);
            self.released += 1;
        }
        in_order
    }

    /// Ends everything.
    pub(super) fn close(&mut self, error: &HostError) {
        if self.closed.is_none() {
            self.closed = Some(error.clone());
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.busy) {
            slot.input = None;
            slot.end(Err(error.clone()));
        }
    }

    fn add(&mut self) -> u16 {
        self.slots.push(Slot::default());
        u16::try_from(self.slots.len() - 1).unwrap_or(SLOT_MASK)
    }
}

impl Slot {
    fn end(&mut self, outcome: Outcome) {
        self.busy = false;
        self.output = None;
        self.outcome = Some(outcome);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
