//! Elections and what else MetaDB decides, and the leader that hears of it.

use crate::rules::{Mutant, World};
use crate::state::{
    ASKED, DONE, IN_SYNC, LEARNER, LEASE, Leader, MEMBER, NEW, OLD, Promise, Read, SEALED, State,
    TARGET, Work,
};

impl State {
    pub fn elect(&mut self, world: &World, victim: usize, kept: u8) {
        self.forget_read_of(victim);
        if victim == OLD {
            self.leaders[OLD] = self.leaders[NEW];
            if let Read::Allowed { leader, .. } | Read::Fetched { leader, .. } = &mut self.read {
                *leader = OLD as u8;
            }
        }
        self.leaders[NEW] = Leader { alive: true, generation: self.fresh(), ..Leader::default() };
        let alone = !self.leaders[OLD].alive;
        for (place, replica) in self.replicas.iter_mut().enumerate() {
            replica.flags.set(MEMBER, replica.flags.has(MEMBER) && kept >> place & 1 == 1);
            if victim == OLD {
                replica.view[OLD] = replica.view[NEW];
                for block in &mut replica.blocks {
                    block.flags.set(TARGET[OLD] | DONE[OLD], false);
                    block.flags.swap(TARGET[OLD], TARGET[NEW]);
                    block.flags.swap(DONE[OLD], DONE[NEW]);
                }
            }
            replica.promise = match replica.promise {
                Promise::New if victim == OLD => Promise::Old,
                _ if victim == OLD || alone => Promise::Before,
                Promise::New => Promise::Between,
                older => older,
            };
            replica.view[NEW].0 = 0;
            replica.view[NEW].set(IN_SYNC, replica.flags.has(MEMBER));
            for block in &mut replica.blocks {
                block.flags.set(TARGET[NEW] | DONE[NEW], false);
            }
        }
        if world.has(Mutant::NoSealing) {
            self.leaders[NEW].serving = true;
            for replica in &mut self.replicas {
                let member = replica.flags.has(MEMBER);
                replica.view[NEW].set(SEALED | LEASE, member);
            }
        }
    }

    /// A new process leads, and does not take a new epoch (mutant).
    pub fn reclaim(&mut self) {
        self.forget_read_of(NEW);
        let generation = self.leaders[NEW].generation;
        self.leaders[NEW] = Leader { alive: true, generation, ..Leader::default() };
        for replica in &mut self.replicas {
            replica.view[NEW].0 = 0;
            replica.view[NEW].set(IN_SYNC, replica.flags.has(MEMBER));
            for block in &mut replica.blocks {
                block.flags.set(TARGET[NEW] | DONE[NEW], false);
            }
        }
    }

    /// The leader takes a fresh epoch. What was under way is sent again, to all.
    pub fn renew(&mut self, world: &World) {
        let keep = world.has(Mutant::AnswersOutliveReign);
        let mut work = self.leaders[NEW].work;
        for work in &mut work {
            *work = match *work {
                Work::Write(n) | Work::Waiting(n) => Work::Waiting(n),
                _ => Work::Nothing,
            };
        }
        self.leaders[NEW] =
            Leader { alive: true, generation: self.fresh(), work, ..Leader::default() };
        let alone = !self.leaders[OLD].alive;
        for replica in &mut self.replicas {
            replica.view[NEW].set(SEALED | LEASE | LEARNER | ASKED, false);
            if replica.promise == Promise::New {
                replica.promise = if alone { Promise::Before } else { Promise::Between };
            }
            for (block, work) in replica.blocks.iter_mut().zip(&work) {
                let kept = keep && matches!(work, Work::Waiting(_));
                block.flags.set(TARGET[NEW], false);
                block.flags.set(DONE[NEW], kept && block.flags.has(DONE[NEW]));
            }
        }
    }

    /// The newest leader hears what MetaDB has.
    pub fn learn(&mut self, world: &World) {
        for replica in &mut self.replicas {
            let view = &mut replica.view[NEW];
            let member = replica.flags.has(MEMBER);
            if view.has(IN_SYNC) && !member {
                view.0 = 0;
            }
            if member {
                view.set(IN_SYNC, true);
                view.set(LEARNER, false);
            }
            view.set(ASKED, false);
        }
        self.leaders[NEW].generation = self.fresh();
        self.serve_if_sealed(world, NEW);
    }
}
