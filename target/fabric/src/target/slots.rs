//! The futures of the outstanding commands, kept in place: a slot's memory and its waker are allocated when
//! the slot is first used and never again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::close::Signals;
use super::service::Completion;

struct SlotWaker {
    signals: Arc<Signals>,
    slot: u16,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.signals.wake_slot(self.slot);
    }
}

struct Slot<F> {
    future: Pin<Box<Option<F>>>,
    waker: Waker,
    /// The answer of a command that ended before all its data had come (CONFORMANCE T-33).
    held: Option<Completion>,
}

/// Futures by slot.
pub(super) struct Slots<F> {
    slots: Vec<Slot<F>>,
    /// Slots with a command that is not over.
    active: usize,
    signals: Arc<Signals>,
}

impl<F: Future<Output = Completion>> Slots<F> {
    pub(super) fn new(signals: Arc<Signals>) -> Slots<F> {
        Slots { slots: Vec::new(), active: 0, signals }
    }

    /// Puts a command into its slot, which must be idle, and polls it.
    pub(super) fn start(&mut self, slot: u16, future: F) -> Option<Completion> {
        while self.slots.len() <= usize::from(slot) {
            self.add();
        }
        self.slots[usize::from(slot)].future.as_mut().set(Some(future));
        self.active += 1;
        self.poll(slot)
    }

    /// Polls the command of a slot, if it has one; its answer when it is over.
    pub(super) fn poll(&mut self, slot: u16) -> Option<Completion> {
        let slot = self.slots.get_mut(usize::from(slot))?;
        let mut cx = Context::from_waker(&slot.waker);
        let Poll::Ready(completion) = slot.future.as_mut().as_pin_mut()?.poll(&mut cx) else {
            return None;
        };
        slot.future.as_mut().set(None);
        self.active -= 1;
        Some(completion)
    }

    /// Polls what was woken until every command is over; nobody gets the answers.
    ///
    /// A write that is on its way to a disk must not be dropped: the disk could still carry it out after a later one
    /// (CONFORMANCE T-93, M-45).
    pub(super) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.signals.unpark();
            for word in 0..self.words() {
                let mut bits = self.signals.take_word(word);
                while bits != 0 {
                    let slot = slot_of(word, bits.trailing_zeros());
                    bits &= bits - 1;
                    drop(self.poll(slot));
                }
            }
            if self.active == 0 {
                return Poll::Ready(());
            }
            if self.signals.park_for_commands(cx.waker(), self.words()) {
                return Poll::Pending;
            }
        }
    }

    /// Keeps an answer until the data of its command has come.
    pub(super) fn hold(&mut self, slot: u16, completion: Completion) {
        if let Some(slot) = self.slots.get_mut(usize::from(slot)) {
            slot.held = Some(completion);
        }
    }

    /// The answer that was kept.
    pub(super) fn take_held(&mut self, slot: u16) -> Option<Completion> {
        self.slots.get_mut(usize::from(slot))?.held.take()
    }

    /// Words of wake-up bits that this many slots need.
    pub(super) fn words(&self) -> usize {
        self.slots.len().div_ceil(64)
    }

    fn add(&mut self) {
        let slot = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        let waker = Waker::from(Arc::new(SlotWaker { signals: Arc::clone(&self.signals), slot }));
        self.slots.push(Slot { future: Box::pin(None), waker, held: None });
    }
}

/// The slot of a bit of a word of wake-up bits.
pub(super) fn slot_of(word: usize, bit: u32) -> u16 {
    u16::try_from(word * 64 + bit as usize).unwrap_or(u16::MAX)
}
