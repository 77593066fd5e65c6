//! What a leader asks the conductor.

use afs_decisions::{NodeId, VolumeConfig};
use uuid::Uuid;

/// Who asks: only the process that the epoch was given to is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The volume.
    pub volume: Uuid,
    /// The epoch that the asker knows.
    pub epoch: u64,
    /// Its process.
    pub process: u64,
}

/// Why there is no new configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// It was refused; the configuration as it is now is given.
    Denied(Box<VolumeConfig>),
    /// There is no answer. It may have been decided, may still be, or not.
    Unknown,
}

/// The conductor, as leaders see it. Every answer is the newest configuration; any answer may be lost.
pub trait Control: Clone + 'static {
    /// A new epoch and reign for this process, if its node leads the volume. Asked again by the same process in the same reign,
    /// it gives the configuration as it is.
    fn claim(
        &self,
        volume: Uuid,
        process: u64,
    ) -> impl Future<Output = Result<VolumeConfig, ControlError>>;

    /// A new epoch and reign with the same replicas.
    fn renew(&self, asker: Asker) -> impl Future<Output = Result<VolumeConfig, ControlError>>;

    /// A replica failed or is late: take it out of the in-sync set. `unheard` are the nodes that do not answer just now: who hears
    /// nobody is cut off itself, and must not be believed about the first of them (DESIGN 5 rule 2).
    fn accuse(
        &self,
        asker: Asker,
        shard: usize,
        replica: Uuid,
        unheard: Vec<NodeId>,
    ) -> impl Future<Output = Result<VolumeConfig, ControlError>>;

    /// A replica has everything: take it into the in-sync set.
    fn admit(
        &self,
        asker: Asker,
        shard: usize,
        replica: Uuid,
    ) -> impl Future<Output = Result<VolumeConfig, ControlError>>;
}
