//! When to call the kernel, and when completions need an event: the protocol between a ring and
//! its kernel, without either, so that every interleaving can be tested.
//!
//! The kernel raises a flag when completions wait to be worked off, and makes an event if events are
//! enabled at that moment and none was due before. It queues the work first and raises the flag
//! after, so a reactor that is quicker does the work and is then left with a *stale* flag, until
//! there is other work. Taking that for work would never end; ignoring it is right as long as events
//! are enabled all the while.

use std::cell::Cell;

/// The kernel's side of a ring.
pub(super) trait Kernel {
    /// Are there queued operations, or completions that did not fit?
    fn is_queued(&self) -> bool;
    /// Is the flag for pending completions up?
    fn is_flagged(&self) -> bool;
    /// Are there completions to look at, with no call?
    fn is_completed(&self) -> bool;
    /// Hands over what is queued and works off what is pending; with events disabled meanwhile, if
    /// `quiet`. False when it could not take everything.
    fn enter(&self, quiet: bool) -> bool;
    /// Handles all completions that are there, and counts them.
    fn reap(&self) -> u64;
}

/// What is known about the flag.
#[derive(Default)]
pub(super) struct Turns {
    stale: Cell<bool>,
}

impl Turns {
    /// Is there anything to do?
    pub(super) fn is_ready(&self, kernel: &impl Kernel) -> bool {
        self.needs_call(kernel) || kernel.is_completed()
    }

    /// An event came: the flag means something again.
    pub(super) fn note_event(&self) {
        self.stale.set(false);
    }

    /// Does all that there is to do. False when the kernel could not take everything now.
    pub(super) fn run(&self, kernel: &impl Kernel) -> bool {
        // A quiet call saves the events for what it completes itself. But work that came
        // meanwhile has only the flag to be seen by, so a flag known to mean nothing forbids it.
        let mut quiet = !self.stale.get();
        loop {
            let accepted = !self.needs_call(kernel) || kernel.enter(quiet);
            let reaped = kernel.reap();
            if !accepted || !self.is_ready(kernel) {
                return accepted;
            }
            if !quiet && reaped == 0 {
                // Work from before that call was done in it, and all since has made an event.
                self.stale.set(true);
                return true;
            }
            quiet = false;
        }
    }

    fn needs_call(&self, kernel: &impl Kernel) -> bool {
        let flagged = kernel.is_flagged();
        if !flagged {
            self.stale.set(false);
        }
        kernel.is_queued() || (flagged && !self.stale.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel whose work arrives when the test says so.
    #[derive(Default)]
    struct Fake {
        flag: Cell<bool>,
        pending: Cell<u64>,
        posted: Cell<u64>,
        events: Cell<u64>,
        enters: Cell<u64>,
        queued: Cell<bool>,
        /// Work that arrives in the middle of the next call, after pending work was done.
        arrives_inside: Cell<bool>,
        /// The flag of work that the next call will already have done.
        late_flag: Cell<bool>,
        handled: Cell<u64>,
    }

    impl Fake {
        fn arrive(&self, events_enabled: bool) {
            if self.pending.replace(self.pending.get() + 1) == 0 {
                self.flag.set(true);
                if events_enabled {
                    self.events.set(self.events.get() + 1);
                }
            }
        }
    }

    impl Kernel for Fake {
        fn is_queued(&self) -> bool {
            self.queued.get()
        }
        fn is_flagged(&self) -> bool {
            self.flag.get()
        }
        fn is_completed(&self) -> bool {
            self.posted.get() > 0
        }
        fn enter(&self, quiet: bool) -> bool {
            self.enters.set(self.enters.get() + 1);
            assert!(self.enters.get() < 100, "it calls the kernel without end");
            self.queued.set(false);
            if self.pending.get() > 0 {
                self.posted.set(self.posted.get() + self.pending.replace(0));
                self.flag.set(self.late_flag.replace(false));
            }
            if self.arrives_inside.replace(false) {
                self.arrive(!quiet);
            }
            true
        }
        fn reap(&self) -> u64 {
            let posted = self.posted.replace(0);
            self.handled.set(self.handled.get() + posted);
            posted
        }
    }

    #[test]
    fn a_stale_flag_is_not_taken_for_work() {
        let (turns, kernel) = (Turns::default(), Fake::default());
        kernel.late_flag.set(true);
        kernel.arrive(true);
        assert!(turns.run(&kernel));
        assert!(kernel.flag.get() && kernel.handled.get() == 1);
        assert!(!turns.is_ready(&kernel), "the reactor could not sleep");
    }

    #[test]
    fn work_behind_a_stale_flag_is_done_when_its_event_comes() {
        let (turns, kernel) = (Turns::default(), Fake::default());
        kernel.late_flag.set(true);
        kernel.arrive(true);
        turns.run(&kernel);
        let events = kernel.events.get();
        kernel.arrive(true);
        assert_eq!(kernel.events.get(), events + 1);
        turns.note_event();
        turns.run(&kernel);
        assert_eq!(kernel.handled.get(), 2);
    }

    #[test]
    fn work_that_arrives_during_a_call_is_done_or_makes_an_event() {
        for stale in [false, true] {
            let (turns, kernel) = (Turns::default(), Fake::default());
            if stale {
                kernel.late_flag.set(true);
                kernel.arrive(true);
                turns.run(&kernel);
            }
            let (handled, events) = (kernel.handled.get(), kernel.events.get());
            kernel.queued.set(true);
            kernel.arrives_inside.set(true);
            turns.run(&kernel);
            let done = kernel.handled.get() > handled;
            assert!(done || kernel.events.get() > events, "lost with stale = {stale}");
        }
    }

    #[test]
    fn one_call_does_for_a_round_without_surprises() {
        let (turns, kernel) = (Turns::default(), Fake::default());
        kernel.queued.set(true);
        kernel.arrive(true);
        turns.run(&kernel);
        assert_eq!((kernel.enters.get(), kernel.handled.get()), (1, 1));
        assert!(!turns.is_ready(&kernel));
    }
}
