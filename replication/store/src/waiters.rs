//! Who waits for what, on any reactor. The wakers lie in slots that are reused, so waiting
//! allocates nothing in the long run.

use std::task::Waker;

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// `durable` to pass this journal block.
    Durable(u64),
    /// A durable barrier past this journal block.
    Barrier(u64),
    /// Something about this chunk: its busy blocks, its pins, its end.
    Chunk(u32),
    /// Room in the journal.
    JournalRoom,
    /// A free chunk.
    Space,
    /// A checkpoint or the close to end.
    Checkpoint,
}

struct Slot {
    key: Key,
    waker: Option<Waker>,
}

/// The waiting tasks.
#[derive(Default)]
pub(crate) struct Waiters {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

impl Waiters {
    /// Puts a waker in `ticket`'s slot, or in a new one.
    pub(crate) fn register(&mut self, ticket: &mut Option<usize>, key: Key, waker: &Waker) {
        let index = *ticket.get_or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.slots.push(Slot { key, waker: None });
                self.slots.len() - 1
            })
        });
        if let Some(slot) = self.slots.get_mut(index) {
            slot.key = key;
            match &mut slot.waker {
                Some(old) => old.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
    }

    /// What is waited for.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.slots.iter().filter(|slot| slot.waker.is_some()).map(|slot| slot.key).collect()
    }

    /// Gives the slot back.
    pub(crate) fn release(&mut self, ticket: &mut Option<usize>) {
        if let Some(index) = ticket.take() {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.waker = None;
            }
            self.free.push(index);
        }
    }

    /// Wakes everybody whose key fits.
    pub(crate) fn wake(&mut self, fits: impl Fn(Key) -> bool) {
        for slot in &mut self.slots {
            if let Some(waker) = slot.waker.take_if(|_| fits(slot.key)) {
                waker.wake();
            }
        }
    }
}
