//! Time. Leases and deadlines are measured on a clock that goes on while the machine sleeps.

use std::time::Duration;

/// A monotonic clock and its timer.
pub trait Clock: Clone + 'static {
    /// Nanoseconds since some fixed moment; never goes back, counts suspended time.
    fn now(&self) -> u64;

    /// Waits for at least `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
}

/// The machine's clock (`CLOCK_BOOTTIME`) and the timer of the tokio runtime that polls it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        afs_reactor::clock::boottime_ns()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_takes_at_least_its_time_on_the_clock() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let clock = SystemClock;
        let before = clock.now();
        runtime.block_on(clock.sleep(Duration::from_millis(5)));
        assert!(clock.now() - before >= 5_000_000);
    }
}
