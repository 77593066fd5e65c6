//! The clock of everything that measures time on this machine. Called by the reactors for their
//! own bookkeeping and by `afs_env`'s real clock.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot, time spent suspended included: a lease must not outlive a suspend.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
