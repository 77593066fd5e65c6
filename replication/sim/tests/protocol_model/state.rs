//! A state of the model, as small as it gets: what can't matter any more is not in it.
//!
//! Numbers are kept only as far as somebody may still compare them:
//!
//! - Epochs. Two leaders are alive at most, `leaders[1]` is the newest and the one MetaDB names;
//!   a replica's promise is one of four [`Promise`]s, seen from these two.
//! - Generations. Stamps are compared with the replicas' watermarks and with nothing else, so only
//!   their order among these is kept, see [`State::renumber`].
//! - Messages. A replica obeys only the promise that it gave last, and a leader has one operation
//!   at a time on a block; so at most one message per block and replica can still have an effect.
//!
//! Replicas are all alike: a state and the same state with replicas swapped are one.

use std::cmp::Reverse;
use std::hash::{Hash, Hasher};

use crate::ghost::Ghost;
use crate::rules::World;

pub const REPLICAS: usize = 3;
pub const BLOCKS: usize = 2;
pub const OLD: usize = 0;
pub const NEW: usize = 1;

/// Whom a replica obeys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Promise {
    /// Nobody, or a leader that is gone and was older than both.
    #[default]
    Before,
    /// The older one of the leaders.
    Old,
    /// A leader that is gone, or a reign that is over, newer than the old leader.
    Between,
    /// The newest leader in its present reign.
    New,
}

impl Promise {
    pub fn to(leader: usize) -> Self {
        if leader == OLD { Self::Old } else { Self::New }
    }
}

/// A set of flags in a byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    pub fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
    pub fn set(&mut self, flag: u8, on: bool) {
        self.0 = if on { self.0 | flag } else { self.0 & !flag };
    }
    pub fn swap(&mut self, one: u8, other: u8) {
        let (a, b) = (self.has(one), self.has(other));
        self.set(one, b);
        self.set(other, a);
    }
}

/// On the replica's list of writes that may be uncommitted. Volatile.
pub const LISTED: u8 = 1;
/// A message of the leader that the replica promised is under way.
pub const SENT: u8 = 2;
/// One that should have been fenced is under way too (mutants only).
pub const STALE: u8 = 4;
/// The leader's operation on the block concerns this replica ...
pub const TARGET: [u8; 2] = [8, 16];
/// ... which has carried it out.
pub const DONE: [u8; 2] = [32, 64];

/// A value with the generation that it's written in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Stamped {
    /// 0: what was there first; in a thin world that is no data.
    pub value: u8,
    pub generation: u8,
}

pub fn stamped(value: u8, generation: u8) -> Stamped {
    Stamped { value, generation }
}

/// One block on one replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Block {
    pub flags: Flags,
    pub data: Stamped,
    pub sent: Stamped,
    pub stale: Stamped,
}

/// MetaDB has it in the in-sync set.
pub const MEMBER: u8 = 1;
/// Its lists are whole: nothing that was on them was forgotten. Volatile.
pub const CONTINUOUS: u8 = 2;
/// It has not restarted since it gave its promise.
pub const SAME_PROCESS: u8 = 4;
/// It restarted and doesn't think of the lease that it granted before (mutant only).
pub const LEASE_FORGOTTEN: u8 = 8;
/// It restarted and has not given a promise since (mutant only).
pub const PROMISE_FORGOTTEN: u8 = 16;

/// What a leader knows of a replica: it's in the in-sync set,
pub const IN_SYNC: u8 = 1;
/// has answered that it promised this reign,
pub const SEALED: u8 = 2;
/// has granted a lease that is not over,
pub const LEASE: u8 = 4;
/// is being resynchronised,
pub const LEARNER: u8 = 8;
/// and MetaDB was asked to admit it, with no answer yet.
pub const ASKED: u8 = 16;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Replica {
    pub flags: Flags,
    pub promise: Promise,
    /// Everything of generations below is committed, on this replica as well. Durable.
    pub committed: u8,
    pub view: [Flags; 2],
    pub blocks: [Block; BLOCKS],
}

/// What a leader is doing with a block, under its range lock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Work {
    #[default]
    Nothing,
    /// Write number n of the world, sent to all.
    Write(u8),
    /// The same, to be sent (again) in the present reign.
    Waiting(u8),
    Equalise,
    Copy,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Leader {
    pub alive: bool,
    /// Every member was sealed: it reads and writes.
    pub serving: bool,
    /// A member that was not continuous was sealed.
    pub gap: bool,
    pub generation: u8,
    /// Blocks on a list of a sealed member, by bit.
    pub listed: u8,
    /// Blocks to be made equal before anything else, by bit.
    pub unequal: u8,
    /// Blocks that the learner may lack, by bit.
    pub missing: u8,
    pub work: [Work; BLOCKS],
    /// Generation of the operation in `work`.
    pub work_generation: [u8; BLOCKS],
}

/// The one read that may be under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Read {
    #[default]
    Nothing,
    /// Leases were looked at, data was not (mutant only).
    Allowed { leader: u8, block: u8 },
    /// Data was read, leases were not looked at.
    Fetched { leader: u8, block: u8, value: u8 },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    pub replicas: [Replica; REPLICAS],
    pub leaders: [Leader; 2],
    pub read: Read,
    /// Writes of the world that hosts have sent.
    pub issued: u8,
    pub ghosts: [Ghost; BLOCKS],
}

impl State {
    /// The order of the replicas in the state that stands for this one and all that are like it.
    pub fn canonical(mut self, world: &World) -> (Self, [usize; REPLICAS]) {
        self.settle(world);
        self.renumber(world);
        let mut order = [0, 1, 2];
        // Downwards: a world of two has a third replica that is all zero, and it stays last.
        order.sort_by_key(|replica| Reverse(self.replicas[*replica]));
        self.replicas = order.map(|replica| self.replicas[replica]);
        (self, order)
    }

    /// A generation above all.
    pub fn fresh(&self) -> u8 {
        let leaders = self.leaders.iter().map(|leader| leader.generation);
        let replicas = self.replicas.iter().map(|replica| replica.committed);
        1 + leaders.chain(replicas).max().unwrap_or(0)
    }

    /// Numbers generations anew: watermarks with no stamp between them become one, and so do
    /// stamps with no watermark between them. A leader's generation may become either.
    fn renumber(&mut self, world: &World) {
        let (mut marks, mut stamps) = (0_u32, 0_u32);
        for leader in self.leaders.iter().filter(|leader| leader.alive) {
            marks |= 1 << leader.generation;
            stamps |= 1 << leader.generation;
            for (work, generation) in leader.work.iter().zip(leader.work_generation) {
                stamps |= u32::from(*work != Work::Nothing) << generation;
            }
        }
        for replica in &self.replicas {
            marks |= 1 << replica.committed;
            for block in &replica.blocks {
                for data in [block.data, block.sent, block.stale] {
                    stamps |= u32::from(world.allocates(data.value)) << data.generation;
                }
            }
        }
        let (mut ranks, mut rank, mut stamped) = ([0; 32], 0, false);
        for (generation, at) in ranks.iter_mut().enumerate() {
            if marks >> generation & 1 == 1 && stamped {
                rank += 1;
                stamped = false;
            }
            stamped |= stamps >> generation & 1 == 1;
            *at = rank;
        }
        let renumber = |generation: &mut u8| *generation = ranks[usize::from(*generation)];
        self.each_generation(renumber);
        for block in self.replicas.iter_mut().flat_map(|replica| &mut replica.blocks) {
            if !world.allocates(block.data.value) {
                block.data.generation = 0;
            }
        }
    }

    pub fn each_generation(&mut self, change: impl Fn(&mut u8)) {
        for leader in &mut self.leaders {
            leader.work_generation.iter_mut().for_each(&change);
            change(&mut leader.generation);
        }
        for replica in &mut self.replicas {
            change(&mut replica.committed);
            for block in &mut replica.blocks {
                change(&mut block.data.generation);
                change(&mut block.sent.generation);
                change(&mut block.stale.generation);
            }
        }
    }

    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Fingerprint::default();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// 64 bits of a state. With ten million states the chance that any two share one is 1 in 300,000.
#[derive(Default)]
struct Fingerprint {
    mixed: u64,
    waiting: u64,
    bytes: u32,
}

impl Fingerprint {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.mixed ^ word ^ 0x9E37_79B9_7F4A_7C15) * 0xD6E8_FEB8_6659_FD93;
        self.mixed = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u8(*byte));
    }
    fn write_u8(&mut self, byte: u8) {
        self.waiting = self.waiting << 8 | u64::from(byte);
        self.bytes += 1;
        if self.bytes.is_multiple_of(8) {
            self.mix(self.waiting);
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }
    fn write_isize(&mut self, discriminant: isize) {
        self.write_u8(discriminant.to_le_bytes()[0]);
    }
    fn write_usize(&mut self, length: usize) {
        self.write_u8(length.to_le_bytes()[0]);
    }
    fn finish(&self) -> u64 {
        let mut last = Self { mixed: self.mixed, waiting: 0, bytes: 0 };
        last.mix(self.waiting);
        last.mixed
    }
}
