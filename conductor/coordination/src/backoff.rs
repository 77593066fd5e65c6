//! How long to wait before the next attempt: doubling up to a bound, and not the same for everyone.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure; how long to wait after it.
    pub(crate) fn failed(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Version 4 UUIDs are random; their first byte is.
        let [chance, ..] = *uuid::Uuid::new_v4().as_bytes();
        pause / 2 + pause / 2 * u32::from(chance) / 255
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_again() {
        let mut backoff = Backoff::default();
        assert!((FIRST / 2..=FIRST).contains(&backoff.failed()));
        let last = (0..100).map(|_| backoff.failed()).last();
        assert!(last.is_some_and(|pause| (LONGEST / 2..=LONGEST).contains(&pause)));
        backoff.succeeded();
        assert!(backoff.failed() <= FIRST);
    }
}
