//! Whether this reactor stood still: the process was stopped, or its machine frozen (DESIGN 5 rule 10).
//!
//! A host whose path is silent takes another one. What it had sent here before may still lie in our sockets, and must not be
//! carried out once we run again: the host may have sent it elsewhere, and overwritten it since (CONFORMANCE M-45). So a reactor
//! that finds a gap in its own pulse gives up the connections that were there before the gap.
//!
//! Invariant: of what was received over a connection from before a gap nothing begins on a volume that several nodes serve. A command
//! may be under way when the gap comes, waiting for replicas or for another node; so this is asked at its arrival, before a leader here
//! begins with a part of it (whose epoch ends what it sends later), and before it is forwarded.

use std::cell::Cell;
use std::time::Duration;

use afs_env::{Clock, SystemClock};

/// A host finds a path silent after its keep-alive time-out, which is longer.
const GAP: Duration = Duration::from_secs(2);
/// How often an idle reactor feels its pulse.
const BEAT: Duration = Duration::from_millis(250);

thread_local! {
    static PULSE: Pulse = const { Pulse { last: Cell::new(0), gaps: Cell::new(0), beating: Cell::new(false) } };
}

struct Pulse {
    /// When this reactor surely ran, on the clock that counts suspended time.
    last: Cell<u64>,
    gaps: Cell<u64>,
    beating: Cell<bool>,
}

impl Pulse {
    fn feel(&self, now: u64) -> u64 {
        let last = self.last.replace(now);
        if last != 0 && u128::from(now.saturating_sub(last)) > GAP.as_nanos() {
            self.gaps.set(self.gaps.get() + 1);
            let stood_still = Duration::from_nanos(now - last);
            tracing::warn!(
                ?stood_still,
                "this reactor did not run: hosts' connections from before are given up"
            );
        }
        self.gaps.get()
    }
}

/// How often this reactor has stood still so far. The first call on a reactor begins to watch.
pub fn gaps() -> u64 {
    PULSE.with(|pulse| {
        if !pulse.beating.replace(true) {
            tokio::task::spawn_local(async {
                loop {
                    PULSE.with(|pulse| pulse.feel(SystemClock.now()));
                    tokio::time::sleep(BEAT).await;
                }
            });
        }
        pulse.feel(SystemClock.now())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_silence_is_a_gap() {
        let pulse = Pulse { last: Cell::new(0), gaps: Cell::new(0), beating: Cell::new(true) };
        let second = 1_000_000_000;
        assert_eq!(pulse.feel(5 * second), 0, "nothing was felt before");
        assert_eq!(pulse.feel(6 * second), 0);
        assert_eq!(pulse.feel(8 * second), 0, "not longer than the gap");
        assert_eq!(pulse.feel(11 * second), 1);
        assert_eq!(pulse.feel(12 * second), 1);
        assert_eq!(pulse.feel(20 * second), 2);
    }
}
