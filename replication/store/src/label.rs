//! The label of a replica: the few facts about its part in the volume that replication must find
//! again after any crash. The store keeps them and gives them no meaning.

use crate::ids::Generation;

/// What replication wrote on a replica: one value, replaced as a whole, never seen half. A new
/// replica's is all zeroes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// The highest epoch that the replica promised to obey (DESIGN 5 rule 3).
    pub promised: u64,
    /// The process of the leader that it was promised to.
    pub promised_to: u64,
    /// All that was written in this generation, and before it, is known to be committed.
    pub committed: Generation,
    /// What else replication keeps; the store does not look at it.
    pub state: [u8; 32],
}
