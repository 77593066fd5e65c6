//! The outstanding commands of a host's queue pair, whatever carries it. Shared between the handles, which submit, and
//! the driver, which learns how commands end.

use std::task::{Poll, Waker};

use afs_nvme::Cqe;
use afs_reactor::{Buffer, BufferMut};

use super::error::HostError;
use super::queue::HostCounters;
use crate::codec::SLOT_MASK;

/// What a command gave back.
pub(super) type Outcome = Result<(Cqe, Option<BufferMut>), HostError>;

/// One outstanding command. Its buffers stay here until the controller is done with them.
#[derive(Default)]
pub(super) struct Slot {
    /// Command id of the current or last use; the generation is in its upper bits.
    pub(super) cid: u16,
    busy: bool,
    /// The submitter is gone; the outcome is dropped.
    abandoned: bool,
    pub(super) damaged: bool,
    pub(super) input: Option<BufferMut>,
    pub(super) filled: usize,
    pub(super) output: Option<Buffer>,
    /// Where in a stream the data asked for by R2T ends.
    pub(super) output_end: u64,
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

/// See the module.
pub(super) struct Table {
    pub(super) counters: HostCounters,
    pub(super) closed: Option<HostError>,
    /// Still the rules of an admin queue, or of one before Connect.
    pub(super) admin: bool,
    slots: Vec<Slot>,
    free: Vec<u16>,
    released: usize,
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            counters: HostCounters::default(),
            closed: None,
            admin: true,
            slots: Vec::new(),
            free: Vec::new(),
            released: 0,
        }
    }

    /// Takes a slot for a command; its number and its command id.
    pub(super) fn begin(&mut self) -> Result<(u16, u16), HostError> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        let slot = self.free.pop().unwrap_or_else(|| self.add());
        let state = &mut self.slots[usize::from(slot)];
        state.cid = slot | (state.cid & !SLOT_MASK).wrapping_add(SLOT_MASK + 1);
        (state.busy, state.abandoned, state.damaged) = (true, false, false);
        (state.filled, state.output_end) = (0, 0);
        self.counters.commands += 1;
        Ok((slot, state.cid))
    }

    /// The slot of a command id that the controller named.
    pub(super) fn slot(&mut self, cid: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(cid & SLOT_MASK))
    }

    /// Whether a command with this id is outstanding.
    pub(super) fn is_outstanding(&self, cid: u16) -> bool {
        self.slots
            .get(usize::from(cid & SLOT_MASK))
            .is_some_and(|slot| slot.busy && slot.cid == cid)
    }

    /// Ends a command.
    pub(super) fn complete(&mut self, cid: u16, outcome: Outcome) {
        let Some(slot) = self.slots.get_mut(usize::from(cid & SLOT_MASK)) else { return };
        slot.end(outcome);
        if slot.abandoned {
            slot.outcome = None;
            self.free.push(cid & SLOT_MASK);
            self.released += 1;
        }
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
