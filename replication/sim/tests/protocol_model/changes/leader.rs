//! At a leader: sealing, operations on blocks, generations.

use crate::rules::{Mutant, World};
use crate::state::{
    CONTINUOUS, DONE, IN_SYNC, LEARNER, LEASE, LISTED, Promise, Replica, SEALED, SENT, STALE,
    State, TARGET, Work, stamped,
};

impl State {
    /// A replica promises, and its lists go back with the answer.
    pub fn seal(&mut self, world: &World, leader: usize, replica: usize) {
        self.promise(world, leader, replica);
        let sealed = &mut self.replicas[replica];
        sealed.view[leader].set(SEALED | LEASE, true);
        let lead = &mut self.leaders[leader];
        lead.gap |= !sealed.flags.has(CONTINUOUS);
        for (place, block) in sealed.blocks.iter().enumerate() {
            lead.listed |= u8::from(block.flags.has(LISTED)) << place;
        }
        if world.has(Mutant::ContinuousFromSealing) {
            sealed.flags.set(CONTINUOUS, true);
        }
        self.serve_if_sealed(world, leader);
    }

    /// Rule 3, and with rule 6 and 7 what is to be made equal first.
    pub fn serve_if_sealed(&mut self, world: &World, leader: usize) {
        let sealed = |replica: &Replica| {
            !replica.view[leader].has(IN_SYNC) || replica.view[leader].has(SEALED)
        };
        if self.leaders[leader].serving || !self.replicas.iter().all(sealed) {
            return;
        }
        let members = self.mask(|replica| replica.view[leader].has(IN_SYNC));
        let stamps =
            if self.leaders[leader].gap { self.unlike_by_stamp(world, members) } else { 0 };
        let lead = &mut self.leaders[leader];
        lead.serving = true;
        lead.unequal = if world.has(Mutant::NoEqualising) { 0 } else { lead.listed | stamps };
        lead.listed = 0;
        lead.gap = false;
    }

    pub fn begin(&mut self, leader: usize, block: usize, work: Work) {
        let lead = &mut self.leaders[leader];
        lead.work[block] = work;
        lead.work_generation[block] = lead.generation;
    }

    pub fn write(&mut self, world: &World, leader: usize, n: u8) {
        let block = world.writes[usize::from(n)].block;
        self.begin(leader, block, Work::Write(n));
        self.send(world, leader, block, world.value(n), false);
    }

    /// To every replica in sync and the learner, or to the learner alone.
    pub fn send(&mut self, world: &World, leader: usize, block: usize, value: u8, alone: bool) {
        let sent = stamped(value, self.leaders[leader].generation);
        for place in 0..world.replicas {
            let view = self.replicas[place].view[leader];
            let live = !world.has(Mutant::LearnerLacksLiveWrites);
            let wanted = view.has(LEARNER) && (alone || live) || view.has(IN_SYNC) && !alone;
            let done = self.replicas[place].blocks[block].flags.has(DONE[leader]);
            if !wanted || done {
                continue;
            }
            let weak = world.has(Mutant::NoSealing) || world.has(Mutant::PromiseNotDurable);
            if weak && self.replicas[place].promise < Promise::to(leader) {
                self.promise(world, leader, place);
            }
            let obeys = self.replicas[place].promise == Promise::to(leader);
            let target = &mut self.replicas[place].blocks[block];
            target.flags.set(TARGET[leader], true);
            if obeys {
                if target.flags.has(SENT) {
                    assert!(world.mutant.is_some(), "two messages for one block of a replica");
                    target.flags.set(STALE, true);
                    target.stale = target.sent;
                }
                target.flags.set(SENT, true);
                target.sent = sent;
            }
        }
    }

    /// Rule 1: whether all have done what the leader's operation on a block asks for.
    pub fn finished(&self, leader: usize, block: usize) -> bool {
        let work = self.leaders[leader].work[block];
        let done = |replica: &Replica| {
            let (view, flags) = (replica.view[leader], replica.blocks[block].flags);
            let needed = view.has(IN_SYNC) && work != Work::Copy
                || view.has(LEARNER) && flags.has(TARGET[leader]);
            !needed || flags.has(DONE[leader])
        };
        !matches!(work, Work::Nothing | Work::Waiting(_)) && self.replicas.iter().all(done)
    }

    pub fn finish(&mut self, leader: usize, block: usize) {
        let lead = &mut self.leaders[leader];
        match lead.work[block] {
            Work::Write(n) => self.ghosts[block].acknowledge(n),
            Work::Equalise => lead.unequal &= !(1 << block),
            Work::Copy => lead.missing &= !(1 << block),
            Work::Nothing | Work::Waiting(_) => {}
        }
        self.end(leader, block);
    }

    pub fn end(&mut self, leader: usize, block: usize) {
        self.leaders[leader].work[block] = Work::Nothing;
        self.leaders[leader].work_generation[block] = 0;
        for replica in &mut self.replicas {
            replica.blocks[block].flags.set(TARGET[leader] | DONE[leader], false);
        }
    }

    /// The next generation of the leader's epoch: above all of that epoch, below any newer leader's.
    pub fn end_generation(&mut self, leader: usize) {
        let current = self.leaders[leader].generation;
        self.each_generation(|generation| *generation += u8::from(*generation > current));
        self.leaders[leader].generation = current + 1;
    }
}
