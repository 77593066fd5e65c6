//! The worlds that are explored, and the rules that can be taken out of them.

use crate::ghost::WRITES;

/// A write of a world. Its value is its number plus one, or 0 if it frees the block.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub block: usize,
    pub free: bool,
}

pub const fn write(block: usize) -> Write {
    Write { block, free: false }
}

pub const fn free(block: usize) -> Write {
    Write { block, free: true }
}

/// How much may happen. Elections, crashes and pauses of leaders, restarts of replicas, lost and
/// late messages are without limit in each.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub replicas: usize,
    pub min_in_sync: usize,
    pub writes: &'static [Write],
    /// Replicas that left come back.
    pub resync: bool,
    /// A lease may end at any time, and be granted again; without it when a promise waits for its
    /// end. And a promise may be given with the answer lost.
    pub lapse: bool,
    /// A leader may take a fresh epoch and seal again.
    pub renew: bool,
    /// Time passes between fetching data and answering.
    pub slow_reads: bool,
    /// A generation may end within an epoch.
    pub short_generations: bool,
    /// Replicas keep a watermark of generations; without it everything counts as uncommitted.
    pub watermarks: bool,
    /// Blocks are not allocated at first, and writes may free them.
    pub thin: bool,
    /// Only what hosts see is checked.
    pub hosts_only: bool,
    pub mutant: Option<Mutant>,
}

impl World {
    /// Three replicas, one write, and no more than elections and restarts.
    pub const THREE: Self = Self {
        replicas: 3,
        min_in_sync: 2,
        writes: &[write(0)],
        resync: false,
        lapse: false,
        renew: false,
        slow_reads: false,
        short_generations: false,
        watermarks: false,
        thin: false,
        hosts_only: false,
        mutant: None,
    };

    pub fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn blocks(&self) -> usize {
        1 + self.writes.iter().map(|write| write.block).max().unwrap_or(0)
    }

    /// Whether a block with this value is allocated, so that it has a stamp.
    pub fn allocates(&self, value: u8) -> bool {
        !self.thin || value != 0
    }

    pub fn value(&self, n: u8) -> u8 {
        if self.writes[usize::from(n)].free { 0 } else { n + 1 }
    }

    pub fn values(&self) -> [u8; WRITES] {
        [0, 1].map(|n| if usize::from(n) < self.writes.len() { self.value(n) } else { 0 })
    }
}

/// One rule less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Rule 2: the leader goes on without a replica and has it dropped later.
    DropAfterAcknowledging,
    /// Rule 3: a leader that starts again takes up the epoch of the process before it.
    RestartKeepsEpoch,
    /// Rule 3: a new leader serves at once.
    NoSealing,
    /// Rule 3: a promise is gone with the process that gave it.
    PromiseNotDurable,
    /// Rule 4: a promise is given while the lease of another leader runs.
    PromiseDespiteLease,
    /// Rule 4: a replica that restarted thinks that it has granted no lease.
    RestartForgetsLease,
    /// Rule 4: leases are not looked at.
    NoLeaseCheck,
    /// Rule 4: leases are looked at before the data is fetched.
    LeaseCheckedFirst,
    /// Rule 6: the lists are not looked at.
    NoEqualising,
    /// Rule 7: a restart loses the list, and nobody notices.
    RestartUnnoticed,
    /// Rule 7: a replica that lost its list counts as continuous from sealing, not from equalising.
    ContinuousFromSealing,
    /// Rule 8: the stamp may be lost although the data was overwritten.
    StampAfterData,
    /// Rule 8: a generation counts as committed while it is still written.
    OpenGenerationCommitted,
    /// Rule 8: a generation counts as committed while a write of it is under way.
    WritesUnderWayCommitted,
    /// Rule 8: a learner takes over the watermark.
    LearnerTakesWatermark,
    /// Rule 8: live writes are kept from the learner.
    LearnerLacksLiveWrites,
    /// Rule 8: writes that were under way when resync began are not copied.
    LearnerLacksEarlierWrites,
    /// Rule 8: a learner is admitted with blocks still to be copied.
    AdmittedUnfinished,
    /// Rule 8: the next attempt of resync does not fence messages of the one before.
    AttemptsShareFence,
    /// Rule 8: a learner may be given up while MetaDB is being asked to admit it.
    AdmissionForgotten,
    /// Rules 4 and 8: reads need no lease of a replica that MetaDB is being asked to admit.
    AdmissionNeedsNoLease,
    /// Rule 7: too few in-sync replicas are left, and one that is not stands in.
    StandIn,
    /// Rule 5: a write is sent twice, and the first to be done counts.
    SentTwice,
    /// Rule 4: a lease never ends by itself.
    LeaseNeverEnds,
    /// Renewal: what replicas did in the reign before counts.
    AnswersOutliveReign,
    /// A leader reads from a replica that it is still resynchronising.
    ReadsFromLearner,
}
