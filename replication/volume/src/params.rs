//! Times and bounds of the protocol. What one of them asks of another is written down in the tests below.

use std::time::Duration;

use crate::message::tick_of;

/// What a cluster's nodes agree on; the same on all of them.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// How long a replica holds a lease for its leader after a message, on its own clock. Most of a failover is waiting for the end
    /// of it.
    pub lease: Duration,
    /// How much less of it the leader counts on, on its clock: it covers clocks that run at different speeds.
    pub lease_margin: Duration,
    /// Between two heartbeats to a replica.
    pub heartbeat: Duration,
    /// A replica that does not answer for this long is reported.
    pub answer: Duration,
    /// How old a tick in a message may be (DESIGN 5 rule 10).
    pub tick_age: Duration,
    /// How long a message to a replica waits for the first connection to it, and a new leader for the promises of replicas that it
    /// has most likely no connections to yet.
    pub settle: Duration,
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
            lease: Duration::from_millis(700),
            lease_margin: Duration::from_millis(50),
            heartbeat: Duration::from_millis(150),
            answer: Duration::from_millis(700),
            tick_age: Duration::from_millis(900),
            settle: Duration::from_secs(2),
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

    /// After this time, counted from the last message to a receiver, it takes none of them any more, whichever of the two clocks
    /// is the faster one.
    pub fn ghosts_over(&self) -> Duration {
        self.tick_age + self.lease_margin
    }
}

/// A duration in the nanoseconds of [`afs_env::Clock`].
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clocks of two machines are taken to differ in speed by no more than so many parts in a million: a hundred times what NTP
    /// corrects at most.
    const DRIFT_MAX: u32 = 50_000;

    #[test]
    fn the_times_fit_each_other() {
        let params = Params::default();
        let drift = |time: Duration| time * DRIFT_MAX / 1_000_000;
        let held = params.lease - params.lease_margin;
        // The leader stops counting on a lease before the replica gives it to another (DESIGN 5 rule 4).
        assert!(params.lease_margin >= drift(params.lease));
        // Three heartbeats may be late before reads stall, with half of another for their way.
        assert!(held >= params.heartbeat * 4);
        // A leader that lives is heard before another would be promised, and before somebody calls it silent.
        assert!(params.lease >= params.heartbeat * 4);
        // Who is waited for no longer holds up reads for about a heartbeat more than its lease does.
        assert!(params.answer <= held + params.heartbeat);
        // A message that is answered in time is mostly young enough to be taken; one that is not is asked again.
        assert!(params.tick_age >= params.answer + params.heartbeat);
        // What was sent to a learner that failed is too old when it is tried again (rule 8), and so is what was forwarded for a
        // host that is told that it failed (rule 10).
        assert!(params.ghosts_over() >= params.tick_age + drift(params.tick_age));
        assert!(params.learner_pause >= params.ghosts_over());
        // A replica that was restarted refuses for one lease; it is not dropped for that, since it answers. One that is silent is
        // reported before the hosts' patience is over.
        assert!(params.seal >= params.heartbeat * 2);
        assert!(params.restart_grace >= params.lease);
        // Who may just lack connections is given longer, and less than who was restarted.
        assert!(params.settle >= params.seal && params.restart_grace >= params.settle);
        assert!(params.patience >= params.restart_grace + params.answer + params.lease);
        // A connection is worth a longer wait than an answer, and a shorter one than a host's.
        assert!(params.settle >= params.answer && params.patience >= params.settle * 4);
        // Ticks are compared in milliseconds.
        assert!(params.tick_age >= Duration::from_millis(10));
    }
}
