//! The writes of a reign that are open: numbers, watermark, and waiting until those that were open have ended.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::mutant::{Mutant, planted};

struct Window {
    /// Sequence of the first entry of `open`; everything before has ended.
    first: u64,
    /// Whether each is still open.
    open: VecDeque<bool>,
}

impl Window {
    /// The last number that was given.
    fn last(&self) -> Sequence {
        self.first + self.open.len() as u64 - 1
    }

    /// Gives the next one.
    fn begin(&mut self) -> Sequence {
        self.open.push_back(true);
        self.last()
    }
}

/// Bounded by the window that it was made with.
pub(crate) struct Tracker {
    window: Mutex<Window>,
    most: usize,
    /// The first open one has ended.
    moved: Notify,
}

/// A write's number. It stays open until [`Tracker::end`].
pub(crate) type Sequence = u64;

impl Tracker {
    pub(crate) fn new(most: usize) -> Tracker {
        let window = Window { first: 1, open: VecDeque::with_capacity(most) };
        Tracker { window: Mutex::new(window), most, moved: Notify::new() }
    }

    /// The next number, unless the window is full.
    pub(crate) fn begin(&self) -> Option<Sequence> {
        let mut window = self.window.lock();
        (window.open.len() < self.most).then(|| window.begin())
    }

    /// Waits until the window is not full.
    pub(crate) async fn room(&self) {
        loop {
            let moved = self.moved.notified();
            let mut moved = std::pin::pin!(moved);
            moved.as_mut().enable();
            if self.window.lock().open.len() < self.most {
                return;
            }
            moved.await;
        }
    }

    /// The next number also when the window is full: for copies that make room in it.
    pub(crate) fn begin_copy(&self) -> Sequence {
        self.window.lock().begin()
    }

    pub(crate) fn end(&self, sequence: Sequence) {
        let mut window = self.window.lock();
        let index = usize::try_from(sequence.saturating_sub(window.first)).unwrap_or(usize::MAX);
        if let Some(open) = window.open.get_mut(index) {
            *open = false;
        }
        let mut moved = false;
        while window.open.front() == Some(&false) {
            window.open.pop_front();
            window.first += 1;
            moved = true;
        }
        drop(window);
        if moved {
            self.moved.notify_waiters();
        }
    }

    /// The last number that was given, and the watermark: everything up to it has ended.
    pub(crate) fn state(&self) -> (Sequence, Sequence) {
        let window = self.window.lock();
        let last = window.last();
        if planted(Mutant::WatermarkAhead) {
            return (last, last);
        }
        (last, window.first - 1)
    }

    /// Waits until every write has ended that is open now.
    pub(crate) async fn barrier(&self) {
        let target = self.state().0;
        loop {
            let moved = self.moved.notified();
            let mut moved = std::pin::pin!(moved);
            moved.as_mut().enable();
            if self.window.lock().first > target {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_watermark_stays_below_the_first_open_write() {
        let tracker = Tracker::new(4);
        let numbers: Vec<_> = (0..3).map(|_| tracker.begin().unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3]);
        tracker.end(2);
        assert_eq!(tracker.state(), (3, 0));
        tracker.end(1);
        assert_eq!(tracker.state(), (3, 2));
        tracker.end(3);
        assert_eq!(tracker.state(), (3, 3));
    }

    #[test]
    fn a_full_window_waits_and_a_barrier_waits_for_what_was_open() {
        let tracker = Tracker::new(2);
        let first = tracker.begin().unwrap();
        let _second = tracker.begin().unwrap();
        assert_eq!(tracker.begin(), None);
        let mut room = Box::pin(tracker.room());
        assert!(room.as_mut().now_or_never().is_none());
        tracker.end(first);
        assert!(room.now_or_never().is_some());
        assert_eq!(tracker.begin(), Some(3));
        let mut barrier = Box::pin(tracker.barrier());
        assert!(barrier.as_mut().now_or_never().is_none());
        tracker.end(2);
        assert!(barrier.as_mut().now_or_never().is_none());
        tracker.end(3);
        assert!(barrier.now_or_never().is_some());
    }
}
