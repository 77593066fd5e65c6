//! How long to wait after failures: doubling, with chance in it, so that many nodes do not come back at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Failures in a row.
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { failures: 0 }
    }

    /// Counts a failure; returns the pause, and whether it is the first in a row.
    pub(super) fn failed(&mut self) -> (Duration, bool) {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let mut chance = [0; 1];
        // Without randomness the pause is only less spread.
        let _ = getrandom::fill(&mut chance);
        let [chance] = chance;
        (pause / 2 + pause / 2 * u32::from(chance) / 255, self.failures == 1)
    }

    /// Ends a row of failures; returns whether there was one.
    pub(super) fn succeeded(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new();
        assert!(!backoff.succeeded());
        let (first, is_first) = backoff.failed();
        assert!(is_first && first >= FIRST / 2 && first <= FIRST, "{first:?}");
        let last = (0..100).map(|_| backoff.failed()).last();
        assert!(
            last.is_some_and(|(pause, first)| !first && pause >= LONGEST / 2 && pause <= LONGEST)
        );
        assert!(backoff.succeeded());
        assert!(backoff.failed().0 <= FIRST);
    }
}
