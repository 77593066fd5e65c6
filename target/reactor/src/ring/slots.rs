//! The table of operations under way. A slot owns what the kernel works on (buffer, file) from
//! before the operation is queued until its completion has been seen, whatever becomes of the
//! future that waits for it.
//!
//! ```text
//! Free -> Reserved -> Active -> Done -> Free          the future waits and takes the result
//!                        |-> Abandoned -> Free        the future was dropped meanwhile
//!                        '-> Detached                 no future: a sync that many wait for
//! ```

use std::rc::Rc;
use std::task::Waker;

use crate::buffer::{Buffer, BufferMut};
use crate::disk::AttachedFile;
use crate::disk::RunningSync;
use crate::fifo::WaitQueue;

/// What the kernel works on.
pub(crate) enum Payload {
    /// Nothing in memory, or memory that lives for ever.
    Nothing,
    /// The kernel writes here.
    Read(BufferMut),
    /// The kernel reads here.
    Write(Buffer),
}

enum State {
    Free,
    Reserved,
    Active(Option<Waker>),
    Abandoned,
    Detached(RunningSync),
    Done(i32),
}

struct Slot {
    state: State,
    payload: Payload,
    file: Option<Rc<AttachedFile>>,
}

/// What is to be done about a completion once the table is no longer borrowed.
pub(super) struct Completed {
    pub(super) waker: Option<Waker>,
    pub(super) detached: Option<RunningSync>,
    pub(super) release: bool,
}

/// What a cleared slot held; to be dropped while the table is not borrowed.
pub(super) struct Contents {
    _payload: Payload,
    _file: Option<Rc<AttachedFile>>,
}

pub(super) struct Slots {
    table: Box<[Slot]>,
    free: Vec<u32>,
    waiters: WaitQueue<(), u32>,
    /// Slots that are queued or with the kernel.
    under_way: usize,
}

impl Slots {
    pub(super) fn new(count: u32) -> Slots {
        let empty = || Slot { state: State::Free, payload: Payload::Nothing, file: None };
        Slots {
            table: (0..count).map(|_| empty()).collect(),
            free: (0..count).rev().collect(),
            waiters: WaitQueue::new(),
            under_way: 0,
        }
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    pub(super) fn capacity(&self) -> usize {
        self.table.len()
    }

    /// A free slot, if there is one and nobody was here before.
    pub(super) fn reserve(&mut self) -> Option<u32> {
        if !self.waiters.is_empty() {
            return None;
        }
        let slot = self.free.pop()?;
        self.table[slot as usize].state = State::Reserved;
        Some(slot)
    }

    pub(super) fn wait(&mut self, waker: &Waker) -> usize {
        self.waiters.enqueue((), waker.clone())
    }

    pub(super) fn poll_wait(&mut self, key: usize, waker: &Waker) -> Option<u32> {
        self.waiters.poll(key, waker)
    }

    pub(super) fn cancel_wait(&mut self, key: usize) -> Option<u32> {
        self.waiters.cancel(key)
    }

    /// The operation of a reserved slot begins; a future will ask for its result.
    pub(super) fn begin(&mut self, slot: u32, payload: Payload, file: Rc<AttachedFile>) {
        self.under_way += 1;
        let state = State::Active(None);
        self.table[slot as usize] = Slot { state, payload, file: Some(file) };
    }

    /// The operation of a reserved slot begins; `sync` learns its result.
    pub(super) fn begin_detached(&mut self, slot: u32, sync: RunningSync, file: Rc<AttachedFile>) {
        self.under_way += 1;
        let state = State::Detached(sync);
        self.table[slot as usize] = Slot { state, payload: Payload::Nothing, file: Some(file) };
    }

    /// The result and what the operation worked on, once it is done.
    pub(super) fn poll(&mut self, slot: u32, waker: &Waker) -> Option<(i32, Payload)> {
        let slot = &mut self.table[slot as usize];
        match &mut slot.state {
            State::Done(result) => {
                Some((*result, std::mem::replace(&mut slot.payload, Payload::Nothing)))
            }
            State::Active(Some(known)) => {
                known.clone_from(waker);
                None
            }
            State::Active(unknown) => {
                *unknown = Some(waker.clone());
                None
            }
            _ => None,
        }
    }

    /// The future was dropped. True when its slot can be cleared now.
    pub(super) fn abandon(&mut self, slot: u32) -> bool {
        let state = &mut self.table[slot as usize].state;
        match state {
            State::Active(_) => {
                *state = State::Abandoned;
                false
            }
            State::Done(_) | State::Reserved => true,
            State::Free | State::Abandoned | State::Detached(_) => false,
        }
    }

    /// The kernel is done with the operation.
    pub(super) fn complete(&mut self, slot: u32, result: i32) -> Completed {
        let nothing = Completed { waker: None, detached: None, release: false };
        let Some(slot) = self.table.get_mut(slot as usize) else { return nothing };
        match std::mem::replace(&mut slot.state, State::Done(result)) {
            State::Active(waker) => {
                self.under_way -= 1;
                Completed { waker, ..nothing }
            }
            State::Abandoned => {
                self.under_way -= 1;
                Completed { release: true, ..nothing }
            }
            State::Detached(sync) => {
                self.under_way -= 1;
                Completed { detached: Some(sync), release: true, ..nothing }
            }
            other => {
                slot.state = other;
                nothing
            }
        }
    }

    /// Empties a slot whose operation is over or never began.
    pub(super) fn clear(&mut self, slot: u32) -> Contents {
        let slot = &mut self.table[slot as usize];
        slot.state = State::Free;
        let payload = std::mem::replace(&mut slot.payload, Payload::Nothing);
        Contents { _payload: payload, _file: slot.file.take() }
    }

    /// Gives an empty slot to the longest waiting, whom the caller wakes, or keeps it for later.
    pub(super) fn hand_on(&mut self, slot: u32) -> Option<Waker> {
        match self.waiters.grant(slot) {
            Ok(waker) => {
                self.table[slot as usize].state = State::Reserved;
                Some(waker)
            }
            Err(slot) => {
                self.free.push(slot);
                None
            }
        }
    }
}
