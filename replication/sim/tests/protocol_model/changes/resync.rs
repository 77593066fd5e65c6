//! A replica that comes back.

use crate::rules::{Mutant, World};
use crate::state::{
    BLOCKS, DONE, LEARNER, LEASE, LISTED, SEALED, SENT, STALE, Stamped, State, TARGET, Work,
    stamped,
};

impl State {
    /// Begins to resynchronise: what was sent to the replica before, it will refuse.
    pub fn resync(&mut self, world: &World, leader: usize, learner: usize, from: usize) {
        self.promise(world, leader, learner);
        let mut missing = 0;
        let source = self.replicas[from];
        let lead = self.leaders[leader];
        let replica = &mut self.replicas[learner];
        replica.view[leader].set(LEARNER | SEALED | LEASE, true);
        for (place, block) in replica.blocks[..world.blocks()].iter_mut().enumerate() {
            if world.has(Mutant::AttemptsShareFence) && block.flags.has(SENT) {
                block.flags.set(STALE, true);
                block.stale = block.sent;
            }
            block.flags.set(SENT | TARGET[leader] | DONE[leader], false);
            block.sent = stamped(0, 0);
            let (own, theirs) = (block.data, source.blocks[place].data);
            let recent =
                |data: Stamped| world.allocates(data.value) && data.generation >= replica.committed;
            let under_way = matches!(lead.work[place], Work::Write(_) | Work::Equalise);
            let copied = recent(own)
                || recent(theirs)
                || world.allocates(own.value) != world.allocates(theirs.value)
                || block.flags.has(LISTED)
                || under_way && !world.has(Mutant::LearnerLacksEarlierWrites);
            missing |= u8::from(copied) << place;
        }
        self.leaders[leader].missing = missing;
    }

    pub fn abandon(&mut self, leader: usize) {
        for replica in &mut self.replicas {
            if replica.view[leader].has(LEARNER) {
                replica.view[leader].set(LEARNER | SEALED | LEASE, false);
                for block in &mut replica.blocks {
                    block.flags.set(TARGET[leader] | DONE[leader], false);
                }
            }
        }
        self.leaders[leader].missing = 0;
        for block in 0..BLOCKS {
            if self.leaders[leader].work[block] == Work::Copy {
                self.end(leader, block);
            }
        }
    }
}
