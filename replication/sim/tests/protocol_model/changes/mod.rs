//! What each step changes.

mod configuration;
mod leader;
mod replica;
mod resync;

use crate::rules::{Mutant, World};
use crate::state::{
    ASKED, CONTINUOUS, IN_SYNC, LEARNER, LEASE, MEMBER, NEW, REPLICAS, Read, Replica, State,
};

impl State {
    /// Everything is new and nobody leads.
    pub fn first(world: &World) -> Self {
        let mut state = Self::default();
        for replica in &mut state.replicas[..world.replicas] {
            replica.flags.set(MEMBER | CONTINUOUS, true);
            // All the same, and known to be: stamps of generation 0.
            replica.committed = u8::from(world.watermarks);
        }
        state
    }

    /// In sync, as MetaDB has it, by bit.
    pub fn members(&self) -> u8 {
        self.mask(|replica| replica.flags.has(MEMBER))
    }

    /// Whether the newest leader knows what MetaDB has, so that its compare-and-swap succeeds.
    pub fn current(&self) -> bool {
        self.members() == self.mask(|replica| replica.view[NEW].has(IN_SYNC))
    }

    pub fn mask(&self, wanted: impl Fn(&Replica) -> bool) -> u8 {
        let bit = |(place, replica)| if wanted(replica) { 1_u8 << place } else { 0 };
        (0..REPLICAS).zip(&self.replicas).map(bit).sum()
    }

    /// Rule 4: a lease of every replica that may be in sync by what the leader knows.
    pub fn leased(&self, world: &World, leader: usize) -> bool {
        let leased = |replica: &Replica| {
            replica.view[leader].has(LEASE) || !self.counts_for_reads(world, leader, replica)
        };
        world.has(Mutant::NoLeaseCheck) || self.replicas.iter().all(leased)
    }

    pub fn counts_for_reads(&self, world: &World, leader: usize, replica: &Replica) -> bool {
        let view = replica.view[leader];
        let asked = view.has(ASKED) && view.has(LEARNER);
        view.has(IN_SYNC) || asked && !world.has(Mutant::AdmissionNeedsNoLease)
    }

    pub fn forget_read_of(&mut self, victim: usize) {
        if let Read::Allowed { leader, block } | Read::Fetched { leader, block, .. } = self.read
            && usize::from(leader) == victim
        {
            self.read = Read::Nothing;
            self.ghosts[usize::from(block)].forget_read();
        }
    }

    /// Blocks stamped at or above the lowest watermark on any of these replicas, or allocated on
    /// some and not on others; by bit.
    pub fn unlike_by_stamp(&self, world: &World, members: u8) -> u8 {
        let members = || {
            let member = move |(place, _): &(usize, &Replica)| members >> place & 1 == 1;
            self.replicas.iter().enumerate().filter(member).map(|(_, replica)| replica)
        };
        let lowest = members().map(|replica| replica.committed).min().unwrap_or(0);
        let differ = |block: usize| {
            let data = || members().map(|replica| replica.blocks[block].data);
            let allocated = data().filter(|data| world.allocates(data.value)).count();
            allocated != 0 && allocated != members().count()
                || data().any(|data| world.allocates(data.value) && data.generation >= lowest)
        };
        (0..world.blocks()).map(|block| u8::from(differ(block)) << block).sum()
    }
}
