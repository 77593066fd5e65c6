//! At a replica: restarts, promises, messages that arrive.

use crate::rules::{Mutant, World};
use crate::state::{
    CONTINUOUS, DONE, LEASE, LEASE_FORGOTTEN, LISTED, NEW, OLD, PROMISE_FORGOTTEN, Promise,
    Replica, SAME_PROCESS, SENT, STALE, State, TARGET, stamped,
};

impl Replica {
    /// Whether it would promise to a leader while another holds a lease (mutants).
    pub fn disregards_leases(&self, world: &World) -> bool {
        self.flags.has(LEASE_FORGOTTEN) || world.has(Mutant::PromiseDespiteLease)
    }
}

impl State {
    pub fn restart(&mut self, world: &World, replica: usize) {
        let replica = &mut self.replicas[replica];
        replica.flags.set(CONTINUOUS, world.has(Mutant::RestartUnnoticed));
        replica.flags.set(SAME_PROCESS, false);
        replica.flags.set(LEASE_FORGOTTEN, world.has(Mutant::RestartForgetsLease));
        if world.has(Mutant::PromiseNotDurable) {
            replica.promise = Promise::Before;
            replica.flags.set(PROMISE_FORGOTTEN, true);
        }
        for block in &mut replica.blocks {
            block.flags.set(LISTED, false);
        }
    }

    /// A replica obeys `leader` from now on, and no message that was sent before.
    pub fn promise(&mut self, world: &World, leader: usize, replica: usize) {
        let replica = &mut self.replicas[replica];
        if !world.lapse && !replica.disregards_leases(world) {
            // It waited until then.
            replica.view[1 - leader].set(LEASE, false);
        }
        if replica.promise != Promise::to(leader) {
            replica.promise = Promise::to(leader);
            for block in &mut replica.blocks {
                if world.has(Mutant::PromiseNotDurable) && block.flags.has(SENT) {
                    block.flags.set(STALE, true);
                    block.stale = block.sent;
                } else if !world.has(Mutant::PromiseNotDurable) {
                    block.flags.set(STALE, false);
                    block.stale = stamped(0, 0);
                }
                block.flags.set(SENT, false);
                block.sent = stamped(0, 0);
            }
        }
        replica.flags.set(SAME_PROCESS, true);
        replica.flags.set(LEASE_FORGOTTEN | PROMISE_FORGOTTEN, false);
    }

    pub fn arrive(&mut self, place: usize, block: usize, with_stamp: bool) {
        let promise = self.replicas[place].promise;
        let target = &mut self.replicas[place].blocks[block];
        let mut data = target.sent;
        if !with_stamp {
            data.generation = target.data.generation;
        }
        target.data = data;
        target.sent = stamped(0, 0);
        target.flags.set(SENT, false);
        target.flags.set(LISTED, true);
        for leader in [OLD, NEW] {
            if promise == Promise::to(leader) && target.flags.has(TARGET[leader]) {
                target.flags.set(DONE[leader], true);
            }
        }
    }

    /// A message that ought to have been fenced; whoever sent it has stopped waiting.
    pub fn arrive_stale(&mut self, place: usize, block: usize) {
        let target = &mut self.replicas[place].blocks[block];
        target.data = target.stale;
        target.stale = stamped(0, 0);
        target.flags.set(STALE, false);
        target.flags.set(LISTED, true);
    }
}
