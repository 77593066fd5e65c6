//! Bugs planted on purpose, so that the simulator can prove that it catches them. Only with the feature `mutants`; without it
//! every question is a constant `false`.

/// A planted bug; each breaks one rule of DESIGN 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Rule 1: a write is acknowledged when one replica has it.
    AcknowledgeAfterOne,
    /// Rule 2: a write that a replica lacks is acknowledged before that replica is dropped.
    AcknowledgeBeforeDrop,
    /// Rule 3: a leader serves when one replica of each shard has promised.
    ServeAfterOnePromise,
    /// Rule 3: a replica takes messages of epochs below its promise.
    AcceptOldEpoch,
    /// Rule 3: a promise is given before it is durable.
    PromiseInMemory,
    /// Rule 4: a replica promises to another leader under a lease.
    PromiseUnderLease,
    /// Rule 4: reads ask for no lease.
    ReadWithoutLease,
    /// Rule 4: the holder counts a lease from the answer on.
    LeaseFromAnswer,
    /// Rule 4: the lease is looked at before the data is read, not after.
    LeaseBeforeRead,
    /// Rule 5: a read does not look whether a write came while it read.
    ReadOverlap,
    /// Rule 5: overlapping writes do not wait for each other.
    WriteOverlap,
    /// Rule 6: nothing is made equal after sealing.
    SkipEqualise,
    /// Rule 6: a write that failed to the host is forgotten.
    ForgetFailed,
    /// Rule 6: the watermark counts writes that are still open.
    WatermarkAhead,
    /// Rule 7: a restarted replica claims that its list is whole.
    RestartKeepsList,
    /// Rule 7: the chunks of the last generations are not looked at.
    SkipGenerations,
    /// Rule 7: a replica whose record was lost and made anew counts as one that has everything.
    BlankCounts,
    /// Rule 8: a generation is called committed while writes of it are open.
    CommitEarly,
    /// Rule 8: only the leader's side says what may differ.
    OneSidedResync,
    /// Rule 8: chunks are copied without the range lock.
    CopyUnlocked,
    /// Rule 8: a learner gets no live writes.
    NoLiveWrites,
    /// Rule 8: a learner is admitted although it missed a write.
    AdmitFailed,
    /// Rule 10: a write whose tick is too old is carried out.
    IgnoreTick,
    /// Rule 10: a leader that was replaced and comes back goes on with what it had begun.
    TenureForgotten,
    /// Sealing does not wait for the writes of older epochs that are at the disk.
    SealWithoutDrain,
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Plants a bug in everything that this thread runs; `None` takes it out.
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.set(mutant);
    }

    pub(crate) fn planted(mutant: Mutant) -> bool {
        PLANTED.get() == Some(mutant)
    }
}

#[cfg(not(feature = "mutants"))]
mod switch {
    pub(crate) const fn planted(_: super::Mutant) -> bool {
        false
    }
}

#[cfg(feature = "mutants")]
pub use switch::plant;
pub(crate) use switch::planted;
