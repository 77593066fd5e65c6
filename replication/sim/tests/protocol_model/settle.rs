//! Makes one state of several that differ in nothing that can matter, before it's looked up.
//!
//! - A leader that has every answer to an operation takes note at once: doing so later leaves fewer
//!   ways to go on, and an acknowledgement that comes early only makes more of what hosts see wrong.
//! - The older leader is gone once a replica without which it can neither read nor acknowledge
//!   obeys a newer one. What it could still send, it could have sent before; messages stay.
//! - A replica that nobody counts on, in a world where none returns, is blank.

use crate::rules::{Mutant, World};
use crate::state::{
    CONTINUOUS, DONE, IN_SYNC, LEASE, Leader, MEMBER, NEW, OLD, Promise, Replica, SAME_PROCESS,
    SENT, State, TARGET, Work,
};

impl State {
    pub fn settle(&mut self, world: &World) {
        for leader in [OLD, NEW] {
            for block in 0..world.blocks() {
                if self.leaders[leader].alive && self.finished(leader, block) {
                    self.finish(leader, block);
                }
            }
        }
        if self.leaders[OLD].alive && self.superseded(world) {
            self.bury();
        }
        for replica in &mut self.replicas {
            let followed = match replica.promise {
                Promise::Old => self.leaders[OLD].alive,
                Promise::New => true,
                Promise::Before | Promise::Between => false,
            };
            let same = replica.flags.has(CONTINUOUS) || followed && replica.flags.has(SAME_PROCESS);
            replica.flags.set(SAME_PROCESS, same);
            let counted = |leader: usize| replica.view[leader].has(IN_SYNC);
            if !world.resync && !replica.flags.has(MEMBER) && !counted(OLD) && !counted(NEW) {
                *replica = Replica::default();
            }
        }
        if !world.watermarks {
            self.forget_generations();
        }
    }

    fn superseded(&self, world: &World) -> bool {
        // Without their rule an old leader can do harm for longer.
        let lives_on = [
            Mutant::NoLeaseCheck,
            Mutant::LeaseCheckedFirst,
            Mutant::NoSealing,
            Mutant::PromiseNotDurable,
        ];
        if world.mutant.is_some_and(|mutant| lives_on.contains(&mutant)) {
            return false;
        }
        let lost = |replica: &&Replica| {
            self.counts_for_reads(world, OLD, replica)
                && replica.promise > Promise::Old
                && !replica.view[OLD].has(LEASE)
        };
        let finishes = |block: usize| {
            let answers = |replica: &Replica| {
                let flags = replica.blocks[block].flags;
                !replica.view[OLD].has(IN_SYNC)
                    || flags.has(DONE[OLD])
                    || flags.has(SENT) && replica.promise == Promise::Old
            };
            matches!(self.leaders[OLD].work[block], Work::Write(_))
                && self.replicas.iter().all(answers)
        };
        self.replicas.iter().any(|replica| lost(&replica)) && !(0..world.blocks()).any(finishes)
    }

    fn bury(&mut self) {
        self.forget_read_of(OLD);
        self.leaders[OLD] = Leader::default();
        for replica in &mut self.replicas {
            replica.view[OLD].0 = 0;
            if replica.promise != Promise::New {
                replica.promise = Promise::Before;
            }
            for block in &mut replica.blocks {
                block.flags.set(TARGET[OLD] | DONE[OLD], false);
            }
        }
    }

    fn forget_generations(&mut self) {
        for leader in &mut self.leaders {
            leader.generation = 0;
            leader.work_generation = [0; 2];
        }
        for block in self.replicas.iter_mut().flat_map(|replica| &mut replica.blocks) {
            block.data.generation = 0;
            block.sent.generation = 0;
            block.stale.generation = 0;
        }
    }
}
