//! Bugs planted on purpose, so that the simulator and the tests here can prove that they catch
//! them. Only with the feature `mutants`; without it every question is a constant `false`.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// An election gives the new leader the epoch of the old one.
    ElectKeepsEpoch,
    /// An election drops every member believed dead, however few remain.
    ElectDropsBelowMin,
    /// The word of a leader whose epoch or reign is over counts.
    AdmitWithoutLeader,
    /// The last in-sync replicas of a shard can be dropped.
    DropLast,
    /// A leader that starts again goes on in the epoch of its last process.
    ClaimKeepsEpoch,
    /// An accuser is believed however few of its peers it reaches.
    BelieveSuspect,
    /// Forcing a stale replica in sync keeps the others in sync.
    ForceMixes,
    /// A member may be added on a node that holds one already.
    AddOnSameNode,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ElectKeepsEpoch,
        Self::ElectDropsBelowMin,
        Self::AdmitWithoutLeader,
        Self::DropLast,
        Self::ClaimKeepsEpoch,
        Self::BelieveSuspect,
        Self::ForceMixes,
        Self::AddOnSameNode,
    ];
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
