//! Whether a reactor that ran out of work looks again or sleeps. Sleeping and being woken costs
//! several microseconds, so under load it pays to look a little longer; when nothing comes, it
//! only burns a core. Pure: `idle` feeds it times and does what it says.
//!
//! Looking costs a call to the kernel, so the pauses between looks grow with the time already waited: a window holds a
//! handful of them, and nothing waits much longer for being looked at late than it waited anyway.
//!
//! Rule: a sleep that would have been shorter than the limit makes the polling window grow, a
//! longer one makes it shrink, down to zero. So a busy reactor polls, and an idle one never does.

/// What to do now that there is no work.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Pace {
    /// Look for work again at this time; until then only at what needs no call.
    PollAt(u64),
    /// Sleep until there is some.
    Park,
}

/// The shortest pause between two looks, in nanoseconds: about what one costs.
const PAUSE_MIN_NS: u64 = 2_000;

/// All times in nanoseconds.
pub(crate) struct Pacer {
    limit: u64,
    window: u64,
    idle_since: Option<u64>,
    seen_work: u64,
}

impl Pacer {
    /// Polls for at most `limit` after the last work; zero means never.
    pub(crate) fn new(limit: u64) -> Pacer {
        Pacer { limit, window: 0, idle_since: None, seen_work: 0 }
    }

    /// There is no work at `now`; `work` is a count of what was done so far.
    pub(crate) fn ran_out(&mut self, now: u64, work: u64) -> Pace {
        if work != self.seen_work {
            self.seen_work = work;
            self.idle_since = None;
        }
        let idle_since = *self.idle_since.get_or_insert(now);
        let waited = now.saturating_sub(idle_since);
        if waited >= self.window {
            return Pace::Park;
        }
        let end = idle_since.saturating_add(self.window);
        Pace::PollAt(now.saturating_add(waited.max(PAUSE_MIN_NS)).min(end))
    }

    /// A sleep ended at `now`.
    pub(crate) fn woke(&mut self, now: u64) {
        let Some(idle_since) = self.idle_since.take() else { return };
        if now.saturating_sub(idle_since) <= self.limit {
            self.window = (self.window * 2).max(self.limit / 4).min(self.limit);
        } else {
            let smaller = self.window / 2;
            self.window = if smaller < self.limit / 8 { 0 } else { smaller };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Work arrives every `gap`; returns how many of the last 100 gaps were met while polling.
    fn met_while_polling(pacer: &mut Pacer, gap: u64) -> u32 {
        let mut now = 0;
        let mut hits = 0;
        for round in 0..200_u64 {
            let next = now + gap;
            while now < next {
                match pacer.ran_out(now, round + 1) {
                    Pace::PollAt(look) => now = look.max(now + 500),
                    Pace::Park => break,
                }
            }
            if now < next {
                pacer.woke(next);
            } else if round >= 100 {
                hits += 1;
            }
            now = now.max(next);
        }
        hits
    }

    #[test]
    fn frequent_work_is_met_while_polling() {
        assert_eq!(met_while_polling(&mut Pacer::new(50_000), 10_000), 100);
        assert_eq!(met_while_polling(&mut Pacer::new(50_000), 40_000), 100);
    }

    #[test]
    fn rare_work_is_slept_for_without_any_polling() {
        let mut pacer = Pacer::new(50_000);
        met_while_polling(&mut pacer, 10_000);
        assert_eq!(met_while_polling(&mut pacer, 1_000_000), 0);
        assert_eq!(pacer.ran_out(u64::MAX / 2, u64::MAX), Pace::Park);
    }

    #[test]
    fn a_window_holds_a_handful_of_looks() {
        let mut pacer = Pacer::new(50_000);
        met_while_polling(&mut pacer, 10_000);
        let (mut now, mut looks) = (1 << 40, 0);
        while let Pace::PollAt(look) = pacer.ran_out(now, u64::MAX) {
            assert!(look > now);
            now = look;
            looks += 1;
        }
        assert!((1..=7).contains(&looks), "{looks} looks in a window of 50 microseconds");
    }

    #[test]
    fn a_limit_of_zero_never_polls() {
        assert_eq!(met_while_polling(&mut Pacer::new(0), 1_000), 0);
    }
}
