//! Bugs planted on purpose, so that the power-cut tests can prove that they catch them. Only with
//! the feature `mutants`; without it every question is a constant `false`.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A write is acknowledged when it was written, with no sync.
    AcknowledgeBeforeSync,
    /// A first write is acknowledged before its record is durable.
    AcknowledgeBeforeJournal,
    /// A freed chunk is free before the freeing record is durable.
    ReuseBeforeDurable,
    /// Replay does not compare data with checksums.
    IgnoreChecksums,
    /// Replay clears what it refused in memory only, not in the journal.
    ForgetRefused,
    /// An overwrite does not wait for a barrier past the block's first write.
    SkipBarrier,
    /// A clear does not wait for overwrites in flight.
    ClearDuringOverwrite,
    /// The journal is cut before the superblock of the checkpoint is durable.
    CutEarly,
    /// A checkpoint writes the copy that is current.
    CheckpointInPlace,
    /// A whole chunk counts as data after the first write into it.
    WholeChunkIsData,
    /// A disk that cannot write 4096 bytes at once is overwritten in place.
    TearOverwrites,
    /// The torn tail stays in the ring.
    KeepTornTail,
    /// An overwrite goes to the disk beside the stamp of its generation, not after it.
    StampBesideOverwrite,
    /// A clear leaves the chunk's stamp as it was.
    ClearWithoutStamp,
    /// A label is acknowledged before its record is durable.
    AcknowledgeLabelEarly,
    /// A checkpoint does not write labels.
    CheckpointWithoutLabels,
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
