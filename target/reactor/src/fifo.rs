//! A queue of futures that wait, first come first served, for something scarce: blocks of a
//! buffer pool, operation slots of a ring. What is granted to a waiter stays with its entry until
//! the waiter takes it, so nothing is lost when a waiting future is dropped.

use std::collections::VecDeque;
use std::task::Waker;

use slab::Slab;

struct Entry<R, G> {
    request: R,
    waker: Waker,
    granted: Option<G>,
}

/// Waiters with a request `R` each, who are granted a `G` each, in order of arrival.
pub(crate) struct WaitQueue<R, G> {
    entries: Slab<Entry<R, G>>,
    order: VecDeque<usize>,
}

impl<R: Copy, G> WaitQueue<R, G> {
    pub(crate) fn new() -> Self {
        WaitQueue { entries: Slab::new(), order: VecDeque::new() }
    }

    /// Is nobody waiting for a grant?
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds a waiter; the key names it from now on.
    pub(crate) fn enqueue(&mut self, request: R, waker: Waker) -> usize {
        let key = self.entries.insert(Entry { request, waker, granted: None });
        self.order.push_back(key);
        key
    }

    /// What the longest waiting one asks for.
    pub(crate) fn front(&self) -> Option<R> {
        self.order.front().map(|&key| self.entries[key].request)
    }

    /// Gives `granted` to the longest waiting one, whom the caller must then wake.
    /// Gives it back when nobody waits.
    pub(crate) fn grant(&mut self, granted: G) -> Result<Waker, G> {
        let Some(key) = self.order.pop_front() else { return Err(granted) };
        let entry = &mut self.entries[key];
        entry.granted = Some(granted);
        Ok(entry.waker.clone())
    }

    /// Takes what the waiter was granted and forgets the waiter, or remembers its new waker.
    pub(crate) fn poll(&mut self, key: usize, waker: &Waker) -> Option<G> {
        let entry = &mut self.entries[key];
        if entry.granted.is_none() {
            entry.waker.clone_from(waker);
            return None;
        }
        self.entries.remove(key).granted
    }

    /// Forgets a waiter that gave up, and hands back what it had been granted meanwhile.
    pub(crate) fn cancel(&mut self, key: usize) -> Option<G> {
        let entry = self.entries.remove(key);
        if entry.granted.is_none() {
            self.order.retain(|&waiting| waiting != key);
        }
        entry.granted
    }
}
