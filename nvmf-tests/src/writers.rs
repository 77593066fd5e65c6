//! Stamped writes of a host under failures: how long the longest one took, and whether all that were acknowledged are there.
//!
//! A stall is the time of the longest single write, as the writer in the guest measured it: nothing outside adds to it, and a
//! write that hangs on a lost path counts although others go on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::guest::{Guest, Running, Shell};
use crate::ledger::{self, Stamps};
use crate::process::wait_until;

/// Writers at once, each with a stripe of its own.
const WRITERS: usize = 4;
/// Acknowledgements of each writer that show that it goes on: with the second, a write ended that also began after the look.
const GOES_ON: usize = 3;
/// The longest wait for that. Well beyond all that a test allows, so that what a failure shows is the stall.
const LONGEST: Duration = Duration::from_secs(90);

/// Writers in a guest that end only by an error or by [`end`](Self::end).
#[derive(Debug)]
pub struct Writers {
    running: Running,
    read: String,
    guest: Shell,
}

/// What writers that were ended have written.
#[derive(Debug)]
pub struct Written {
    printed: String,
    read: String,
    guest: Shell,
}

impl Written {
    /// What was acknowledged since `mark`.
    pub fn since(&self, mark: Mark) -> Stamps {
        ledger::acknowledged(since(&self.printed, mark))
    }

    /// Reads the disk and checks that each acknowledged write is there.
    pub fn assert_there(&self) -> Result<()> {
        let found = self.guest.ok(&self.read)?;
        ledger::compare(&ledger::acknowledged(&self.printed), &found)
    }
}

/// A point in what the writers printed.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl Writers {
    /// Starts them on the first `blocks` blocks of a disk; stamps begin after `from`.
    pub fn start(guest: &Guest, disk: &str, blocks: u64, from: u64) -> Result<Self> {
        let tool = format!("{} ledger", guest.folder().join("agent").display());
        let arguments = format!("--device {disk} --blocks {blocks} --threads {WRITERS}");
        let running = guest.spawn(&format!("{tool} write {arguments} --from {from}"))?;
        let read = format!("{tool} read {arguments}");
        let mut writers = Self { running, read, guest: Shell::clone(guest) };
        writers.go_on().context("at the start")?;
        Ok(writers)
    }

    /// The point of now.
    pub fn mark(&mut self) -> Mark {
        Mark(self.running.stdout_bytes())
    }

    /// Waits until each writer has written again, and again: whatever stood still goes on.
    pub fn go_on(&mut self) -> Result<()> {
        let mark = self.mark();
        wait_until("all writers to go on", LONGEST, || {
            let printed = self.printed()?;
            let mut again = [0; WRITERS];
            for (block, _) in ledger::times(since(&printed, mark)) {
                again[usize::try_from(block)? % WRITERS] += 1;
            }
            Ok(again.iter().all(|count| *count >= GOES_ON).then_some(()))
        })
    }

    /// The longest write that ended since `mark`.
    pub fn longest_since(&mut self, mark: Mark) -> Result<Duration> {
        let printed = self.printed()?;
        let times = ledger::times(since(&printed, mark)).map(|(_, took)| took);
        times.max().context("nothing was written")
    }

    /// Ends them and checks that each acknowledged write is there.
    pub fn end(self) -> Result<()> {
        self.stop()?.assert_there()
    }

    /// Ends them; what they wrote can be looked for later, and again.
    pub fn stop(mut self) -> Result<Written> {
        // None ended by itself.
        self.printed()?;
        self.running.kill()?;
        wait_until("the writers to end", LONGEST, || Ok(self.running.ended()))?;
        Ok(Written { printed: self.running.stdout(), read: self.read, guest: self.guest })
    }

    fn printed(&mut self) -> Result<String> {
        let printed = self.running.stdout();
        ensure!(self.running.ended().is_none(), "a writer met an error: {printed}");
        Ok(printed)
    }
}

/// Whole lines since a mark, which may be within one.
fn since(printed: &str, mark: Mark) -> &str {
    let Some((before, rest)) = printed.split_at_checked(mark.0) else { return "" };
    if before.is_empty() || before.ends_with('\n') {
        return rest;
    }
    rest.split_once('\n').map_or("", |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_from_a_mark_on_if_it_began_there() {
        let printed = "1 1 5\n2 2 6\n";
        assert_eq!(since(printed, Mark(0)), printed);
        assert_eq!(since(printed, Mark(6)), "2 2 6\n");
        assert_eq!(since(printed, Mark(3)), "2 2 6\n");
        assert_eq!(since(printed, Mark(8)), "");
    }
}
