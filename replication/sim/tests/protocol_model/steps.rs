//! Everything that can happen in a state, and what comes of it.

use crate::rules::{Mutant, World};
use crate::state::{
    ASKED, CONTINUOUS, IN_SYNC, LEARNER, LEASE, LISTED, MEMBER, NEW, OLD, PROMISE_FORGOTTEN,
    Promise, Read, Replica, SAME_PROCESS, SEALED, SENT, STALE, State, Work,
};

/// One thing that happens, whole. Replicas and leaders by their places in the state before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// An election, and a process that claims it. `victim` is the leader that is not heard of again.
    Elect {
        victim: usize,
        dropped: u8,
        stand_in: Option<usize>,
    },
    Reclaim,
    Renew,
    Seal {
        leader: usize,
        replica: usize,
    },
    SealUnheard {
        leader: usize,
        replica: usize,
    },
    Expire {
        replica: usize,
    },
    Extend {
        leader: usize,
        replica: usize,
    },
    Write {
        leader: usize,
        n: u8,
    },
    Resend {
        leader: usize,
        block: usize,
    },
    Arrive {
        replica: usize,
        block: usize,
        stamped: bool,
    },
    SendTwice {
        replica: usize,
        block: usize,
    },
    ArriveStale {
        replica: usize,
        block: usize,
    },
    Equalise {
        leader: usize,
        block: usize,
        from: usize,
    },
    FindEqual {
        leader: usize,
        block: usize,
    },
    Read {
        leader: usize,
        block: usize,
        from: usize,
    },
    Allow {
        leader: usize,
        block: usize,
    },
    Fetch {
        leader: usize,
        block: usize,
        from: usize,
    },
    Answer,
    Restart {
        replica: usize,
    },
    Unlist {
        leader: usize,
        replica: usize,
        block: usize,
    },
    Watermark {
        leader: usize,
        replica: usize,
    },
    Trust {
        leader: usize,
        replica: usize,
    },
    EndGeneration {
        leader: usize,
    },
    Presume {
        replica: usize,
    },
    Drop {
        replica: usize,
    },
    Admit,
    Learn,
    Resync {
        leader: usize,
        replica: usize,
        from: usize,
    },
    Copy {
        leader: usize,
        block: usize,
        from: usize,
    },
    FindCopied {
        leader: usize,
        block: usize,
    },
    Abandon {
        leader: usize,
    },
    Ask,
}

/// Calls `then` with every step that can follow and the state after it.
pub struct Steps<'a> {
    pub world: &'a World,
    pub before: State,
    pub then: &'a mut dyn FnMut(Step, State),
}

impl Steps<'_> {
    pub fn all(&mut self) {
        self.elections();
        for replica in 0..self.world.replicas {
            self.at_replica(replica);
        }
        for leader in [OLD, NEW] {
            if self.before.leaders[leader].alive {
                self.of_leader(leader);
            }
        }
        if self.before.leaders[NEW].alive {
            self.decisions();
        }
        self.answer();
    }

    fn emit(&mut self, step: Step, change: impl FnOnce(&World, &mut State)) {
        let mut after = self.before;
        change(self.world, &mut after);
        if after != self.before {
            (self.then)(step, after);
        }
    }

    fn replica(&self, replica: usize) -> &Replica {
        &self.before.replicas[replica]
    }

    fn elections(&mut self) {
        let members = self.before.members();
        let first = !self.before.leaders[NEW].alive;
        for victim in if first { &[OLD][..] } else { &[OLD, NEW] } {
            let victim = *victim;
            for dropped in 0..1_u8 << self.world.replicas {
                let left = (members & !dropped).count_ones() as usize;
                if dropped & !members != 0 || left < self.world.min_in_sync.max(1) {
                    continue;
                }
                let step = Step::Elect { victim, dropped, stand_in: None };
                self.emit(step, |world, state| state.elect(world, victim, !dropped));
            }
            if self.world.has(Mutant::StandIn) {
                for replica in 0..self.world.replicas {
                    let step = Step::Elect { victim, dropped: members, stand_in: Some(replica) };
                    self.emit(step, |world, state| {
                        state.replicas[replica].flags.set(MEMBER, true);
                        state.elect(world, victim, 1 << replica);
                    });
                }
            }
        }
    }

    fn at_replica(&mut self, replica: usize) {
        self.emit(Step::Restart { replica }, |world, state| state.restart(world, replica));
        for block in 0..self.world.blocks() {
            let flags = self.replica(replica).blocks[block].flags;
            if flags.has(SENT) {
                let step = |stamped| Step::Arrive { replica, block, stamped };
                self.emit(step(true), |_, state| state.arrive(replica, block, true));
                if self.world.has(Mutant::SentTwice) && !flags.has(STALE) {
                    self.emit(Step::SendTwice { replica, block }, |_, state| {
                        let target = &mut state.replicas[replica].blocks[block];
                        target.flags.set(STALE, true);
                        target.stale = target.sent;
                    });
                }
                if self.world.has(Mutant::StampAfterData) {
                    self.emit(step(false), |_, state| state.arrive(replica, block, false));
                }
            }
            let forgotten = self.replica(replica).flags.has(PROMISE_FORGOTTEN);
            if flags.has(STALE) && (forgotten || !self.world.has(Mutant::PromiseNotDurable)) {
                let step = Step::ArriveStale { replica, block };
                self.emit(step, |_, state| state.arrive_stale(replica, block));
            }
        }
    }

    fn of_leader(&mut self, leader: usize) {
        for replica in 0..self.world.replicas {
            self.with_replica(leader, replica);
        }
        let serving = self.before.leaders[leader].serving;
        if serving {
            for block in 0..self.world.blocks() {
                self.with_block(leader, block);
            }
            if self.world.short_generations {
                self.emit(Step::EndGeneration { leader }, |_, state| state.end_generation(leader));
            }
        }
        let view = |flag| self.before.replicas.iter().any(|replica| replica.view[leader].has(flag));
        if view(LEARNER) && (!view(ASKED) || self.world.has(Mutant::AdmissionForgotten)) {
            self.emit(Step::Abandon { leader }, |_, state| state.abandon(leader));
        }
    }

    fn with_replica(&mut self, leader: usize, replica: usize) {
        let Replica { view, promise, .. } = *self.replica(replica);
        let (view, other) = (view[leader], view[1 - leader]);
        let mine = promise == Promise::to(leader);
        let free = !other.has(LEASE)
            || !self.world.lapse
            || self.replica(replica).disregards_leases(self.world);
        let promises = promise <= Promise::to(leader) && free;
        let serving = self.before.leaders[leader].serving;
        if view.has(IN_SYNC) && !view.has(SEALED) && promises {
            let step = Step::Seal { leader, replica };
            self.emit(step, |world, state| state.seal(world, leader, replica));
        }
        if view.has(IN_SYNC) && !view.has(SEALED) && promises && self.world.lapse {
            let step = Step::SealUnheard { leader, replica };
            self.emit(step, |world, state| state.promise(world, leader, replica));
        }
        let ends = self.world.lapse && !self.world.has(Mutant::LeaseNeverEnds);
        if ends && leader == OLD && view.has(LEASE) {
            // Who wants it: without that the end of a lease is only a wait.
            let newer = self.replica(replica).view[NEW];
            if newer.has(IN_SYNC) != newer.has(SEALED) || self.world.resync {
                self.emit(Step::Expire { replica }, |_, state| {
                    state.replicas[replica].view[OLD].set(LEASE, false);
                });
            }
        }
        if mine && view.has(SEALED) && !view.has(LEASE) {
            self.emit(Step::Extend { leader, replica }, |_, state| {
                state.replicas[replica].view[leader].set(LEASE, true);
            });
        }
        if serving && mine {
            self.watermarks(leader, replica);
        }
        let learner = self.before.replicas.iter().any(|replica| replica.view[leader].has(LEARNER));
        let busy = learner || view.has(IN_SYNC) || view.has(ASKED);
        if self.world.resync && serving && !busy && promises {
            for from in self.sources(leader) {
                let step = Step::Resync { leader, replica, from };
                self.emit(step, |world, state| state.resync(world, leader, replica, from));
            }
        }
    }

    fn watermarks(&mut self, leader: usize, replica: usize) {
        let view = self.replica(replica).view[leader];
        let lead = self.before.leaders[leader];
        for block in 0..self.world.blocks() {
            let busy = lead.unequal >> block & 1 == 1 || !idle(lead.work[block]);
            if !busy && (view.has(IN_SYNC) || view.has(LEARNER)) {
                self.emit(Step::Unlist { leader, replica, block }, |_, state| {
                    state.replicas[replica].blocks[block].flags.set(LISTED, false);
                });
            }
        }
        let open = (0..self.world.blocks())
            .any(|block| !idle(lead.work[block]) && lead.work_generation[block] < lead.generation);
        let takes =
            view.has(IN_SYNC) || view.has(LEARNER) && self.world.has(Mutant::LearnerTakesWatermark);
        let open = open && !self.world.has(Mutant::WritesUnderWayCommitted);
        if self.world.watermarks && takes && lead.unequal == 0 && !open {
            self.emit(Step::Watermark { leader, replica }, |world, state| {
                let open = u8::from(world.has(Mutant::OpenGenerationCommitted));
                state.replicas[replica].committed = lead.generation + open;
            });
        }
        let quiet = (0..self.world.blocks()).all(|block| idle(lead.work[block]));
        let same = self.replica(replica).flags.has(SAME_PROCESS);
        if view.has(IN_SYNC) && lead.unequal == 0 && (same || quiet) {
            self.emit(Step::Trust { leader, replica }, |_, state| {
                state.replicas[replica].flags.set(CONTINUOUS, true);
            });
        }
    }

    fn with_block(&mut self, leader: usize, block: usize) {
        let lead = self.before.leaders[leader];
        if lead.unequal >> block & 1 == 1 {
            if idle(lead.work[block]) {
                self.equalise(leader, block);
            }
            return;
        }
        if let Work::Waiting(n) = lead.work[block] {
            let step = Step::Resend { leader, block };
            self.emit(step, |world, state| state.write(world, leader, n));
        }
        if lead.work[block] != Work::Nothing {
            return;
        }
        let n = self.before.issued;
        if self.world.writes.get(usize::from(n)).is_some_and(|write| write.block == block) {
            self.emit(Step::Write { leader, n }, |world, state| {
                state.issued += 1;
                state.ghosts[block].send(n, world.values());
                state.write(world, leader, n);
            });
        }
        self.reads(leader, block);
        if lead.missing >> block & 1 == 1 {
            for from in self.sources(leader) {
                self.copy(leader, block, from);
            }
        }
    }

    fn equalise(&mut self, leader: usize, block: usize) {
        let sources = self.sources(leader);
        let value = |from: &usize| self.before.replicas[*from].blocks[block].data.value;
        let members = self.before.replicas.iter().filter(|r| r.view[leader].has(IN_SYNC)).count();
        if sources.len() == members && sources.windows(2).all(|w| value(&w[0]) == value(&w[1])) {
            self.emit(Step::FindEqual { leader, block }, |_, state| {
                state.leaders[leader].unequal &= !(1 << block);
            });
        }
        for from in sources {
            self.emit(Step::Equalise { leader, block, from }, |world, state| {
                let value = state.replicas[from].blocks[block].data.value;
                state.begin(leader, block, Work::Equalise);
                state.send(world, leader, block, value, false);
            });
        }
    }

    fn copy(&mut self, leader: usize, block: usize, from: usize) {
        let value = self.replica(from).blocks[block].data.value;
        let learner = self.before.replicas.iter().find(|r| r.view[leader].has(LEARNER));
        if learner.is_some_and(|learner| learner.blocks[block].data.value == value) {
            self.emit(Step::FindCopied { leader, block }, |_, state| {
                state.leaders[leader].missing &= !(1 << block);
            });
        }
        self.emit(Step::Copy { leader, block, from }, |world, state| {
            state.begin(leader, block, Work::Copy);
            state.send(world, leader, block, value, true);
        });
    }

    fn reads(&mut self, leader: usize, block: usize) {
        let allowed = self.before.leased(self.world, leader);
        let who = leader as u8;
        let fetching = Read::Allowed { leader: who, block: block as u8 };
        for from in self.sources_of_reads(leader) {
            let value = self.before.replicas[from].blocks[block].data.value;
            if self.world.slow_reads {
                let first = self.world.has(Mutant::LeaseCheckedFirst);
                if self.before.read == if first { fetching } else { Read::Nothing } {
                    self.emit(Step::Fetch { leader, block, from }, |world, state| {
                        if !first {
                            state.ghosts[block].start_read(world.values());
                        }
                        state.read = Read::Fetched { leader: who, block: block as u8, value };
                    });
                }
            } else if allowed {
                self.emit(Step::Read { leader, block, from }, |_, state| {
                    state.ghosts[block].read_now(value);
                });
            }
        }
        let first = self.world.slow_reads && self.world.has(Mutant::LeaseCheckedFirst);
        if first && allowed && self.before.read == Read::Nothing {
            self.emit(Step::Allow { leader, block }, |world, state| {
                state.ghosts[block].start_read(world.values());
                state.read = fetching;
            });
        }
    }

    fn answer(&mut self) {
        if let Read::Fetched { leader, block, value } = self.before.read {
            let leader = usize::from(leader);
            let checked = self.world.has(Mutant::LeaseCheckedFirst);
            let serving = self.before.leaders[leader].serving;
            if checked || serving && self.before.leased(self.world, leader) {
                self.emit(Step::Answer, |_, state| {
                    state.ghosts[usize::from(block)].answer_read(value);
                    state.read = Read::Nothing;
                });
            }
        }
    }

    /// Changes of the configuration: the leader asked for them at any time before.
    fn decisions(&mut self) {
        let current = self.before.current();
        if self.world.has(Mutant::RestartKeepsEpoch) {
            self.emit(Step::Reclaim, |_, state| state.reclaim());
        }
        if !current {
            self.emit(Step::Learn, |world, state| state.learn(world));
        }
        let enough = self.before.members().count_ones() as usize > self.world.min_in_sync.max(1);
        for replica in 0..self.world.replicas {
            let flags = self.replica(replica).flags;
            let presumed = self.world.has(Mutant::DropAfterAcknowledging);
            if (current || presumed) && enough && flags.has(MEMBER) {
                self.emit(Step::Drop { replica }, |world, state| {
                    state.replicas[replica].flags.set(MEMBER, false);
                    state.learn(world);
                });
                if presumed {
                    self.emit(Step::Presume { replica }, |_, state| {
                        state.replicas[replica].view[NEW].set(IN_SYNC, false);
                    });
                }
            }
            let view = self.replica(replica).view[NEW];
            if view.has(ASKED) && current {
                self.emit(Step::Admit, |_, state| {
                    state.replicas[replica].flags.set(MEMBER, true);
                });
            }
            let lead = self.before.leaders[NEW];
            let ready = lead.unequal == 0 && lead.missing == 0
                || self.world.has(Mutant::AdmittedUnfinished);
            if view.has(LEARNER) && !view.has(ASKED) && ready {
                self.emit(Step::Ask, |_, state| state.replicas[replica].view[NEW].set(ASKED, true));
            }
        }
        if self.world.renew && current {
            self.emit(Step::Renew, |world, state| state.renew(world));
        }
    }

    /// Replicas that a leader may take data from: in sync, and they obey it.
    fn sources(&self, leader: usize) -> Vec<usize> {
        let usable = |replica: &usize| {
            let replica = self.replica(*replica);
            replica.view[leader].has(IN_SYNC)
                && (replica.promise == Promise::to(leader) || self.world.has(Mutant::NoSealing))
        };
        (0..self.world.replicas).filter(usable).collect()
    }

    /// For a read it's enough to be in sync: leases are looked at afterwards.
    fn sources_of_reads(&self, leader: usize) -> Vec<usize> {
        let usable = |replica: &usize| {
            let view = self.replica(*replica).view[leader];
            view.has(IN_SYNC) || view.has(LEARNER) && self.world.has(Mutant::ReadsFromLearner)
        };
        (0..self.world.replicas).filter(usable).collect()
    }
}

/// Nothing was sent that may still be under way in this reign.
fn idle(work: Work) -> bool {
    matches!(work, Work::Nothing | Work::Waiting(_))
}
