//! The order in which writes are taken in: that in which they came, however long they wait for a volume that does not serve yet, or
//! for room among the open ones.
//!
//! Invariant: a write that came later gets neither its number nor its place among overlapping ones before one that came earlier. So
//! a write of a path that its host gave up is not carried out after the same write that was sent again on another one
//! (DESIGN 5 rule 10).

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// See the module.
#[derive(Default)]
pub(super) struct Entrance {
    waiting: AtomicUsize,
    turn: Mutex<()>,
}

/// Who has it is the next one to be taken in.
pub(super) struct Turn<'a> {
    _turn: MutexGuard<'a, ()>,
    _waits: Waits<'a>,
}

struct Waits<'a>(&'a Entrance);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Entrance {
    /// Whether nobody waits who came before.
    pub(super) fn is_free(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Waits for those who came before.
    pub(super) async fn turn(&self) -> Turn<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let waits = Waits(self);
        // Fair: a queue.
        Turn { _turn: self.turn.lock().await, _waits: waits }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_came_first_goes_first() {
        let entrance = Entrance::default();
        let first = entrance.turn().now_or_never().unwrap();
        let (mut second, mut third) = (Box::pin(entrance.turn()), Box::pin(entrance.turn()));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        assert!(!entrance.is_free());
        drop(second.now_or_never().unwrap());
        drop(third.now_or_never().unwrap());
        assert!(entrance.is_free());
    }
}
