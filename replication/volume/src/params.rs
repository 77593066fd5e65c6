//! Times and bounds of the protocol.

use std::time::Duration;

use crate::message::tick_of;

/// What a cluster's nodes agree on; the same on all of them.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// How long a replica holds a lease for its leader after a message, on its own clock.
    pub lease: Duration,
    /// How much less of it the leader counts on, on its clock: it covers clocks that run at different speeds.
    pub lease_margin: Duration,
    /// Between two heartbeats to a replica.
    pub heartbeat: Duration,
    /// A replica that does not answer for this long is reported.
    pub answer: Duration,
    /// How old a tick in a message may be (DESIGN 5 rule 10).
    pub tick_age: Duration,
    /// How long a new leader waits for a replica to promise before it reports it.
    pub seal: Duration,
    /// The same when every replica that answered had been restarted: the others may still be starting.
    pub restart_grace: Duration,
    /// How long an I/O waits for a volume that cannot serve, until it fails with [`Unavailable`](crate::VolumeError::Unavailable).
    pub patience: Duration,
    /// A generation ends after this time if there were writes...
    pub generation: Duration,
    /// ...or after this many.
    pub generation_writes: u64,
    /// Pause before a learner that failed is tried again; doubles each time up to 64 times this.
    pub learner_pause: Duration,
    /// Writes that may be open at a time; further ones wait. The replicas' lists are bounded by twice this.
    pub window: usize,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            lease: Duration::from_millis(1000),
            lease_margin: Duration::from_millis(50),
            heartbeat: Duration::from_millis(200),
            answer: Duration::from_millis(800),
            tick_age: Duration::from_millis(1000),
            seal: Duration::from_millis(500),
            restart_grace: Duration::from_secs(5),
            patience: Duration::from_secs(20),
            generation: Duration::from_secs(30),
            generation_writes: 65_536,
            learner_pause: Duration::from_millis(1200),
            window: 2048,
        }
    }
}

impl Params {
    /// Whether a message that echoes `tick` of the clock that shows `now` was under way for no longer than it may be
    /// (DESIGN 5 rule 10).
    pub fn is_fresh(&self, now: u64, tick: u32) -> bool {
        let age = tick_of(now).wrapping_sub(tick);
        u128::from(age) <= self.tick_age.as_millis()
    }
}

/// A duration in the nanoseconds of [`afs_env::Clock`].
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
