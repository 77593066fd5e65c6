//! What can go wrong with a disk, and how long it takes when nothing does.

use std::rc::Rc;
use std::time::Duration;

use super::image::{Image, SECTOR, Version};
use super::{Inner, Loss, Operation, SimDisk, Timing};
use crate::clock::SimClock;
use crate::random::SimRandom;

impl Timing {
    /// Mostly tens of microseconds; now and then, as flash does, some milliseconds.
    pub(super) fn latency(&self) -> Duration {
        let usual = 10_000 + self.random.below(70_000) as u64;
        let nanoseconds = if self.random.below(500) == 0 { usual * 50 } else { usual };
        Duration::from_nanos(nanoseconds) * self.slowness
    }
}

impl SimDisk {
    /// From now on operations take time on `clock`, drawn from `random`.
    pub fn take_time(&self, clock: &SimClock, random: &SimRandom) {
        let timing = Timing { clock: clock.clone(), random: random.clone(), slowness: 1 };
        self.inner.borrow_mut().timing = Some(timing);
    }

    /// Operations that begin from now on take so many times what they would.
    pub fn slow_down(&self, times: u32) {
        if let Some(timing) = &mut self.inner.borrow_mut().timing {
            timing.slowness = times;
        }
    }

    /// Every operation fails from now on, those under way too.
    pub fn die(&self) {
        self.inner.borrow_mut().faults.dead = true;
    }

    /// It is there again after [`die`](SimDisk::die), with what it held.
    pub fn revive(&self) {
        self.inner.borrow_mut().faults.dead = false;
    }

    /// Every block can be read again.
    pub fn heal_reads(&self) {
        self.inner.borrow_mut().faults.reads.clear();
    }

    /// Takes away all faults that were planted; what they did remains.
    pub fn heal(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.faults = super::Faults::default();
        if let Some(timing) = &mut inner.timing {
            timing.slowness = 1;
        }
    }

    /// The power is cut and comes back: see [`SimDisk::cut`]. Whoever waited waits for ever.
    pub fn cut_power(&self, loss: Loss, random: &SimRandom) {
        let snapshot = self.cut(loss, random);
        let inner = &mut *self.inner.borrow_mut();
        inner.image = Image::from_snapshot(&snapshot);
        inner.pending.clear();
        inner.sync_failed = false;
    }

    /// The process that used the disk was killed: the kernel ends what is under way before anybody
    /// else gets the disk, each write done wholly, in part or not at all. What had ended stays.
    pub fn user_killed(&self, random: &SimRandom) {
        let inner = &mut *self.inner.borrow_mut();
        while !inner.pending.is_empty() {
            let index = random.below(inner.pending.len());
            let pending = inner.pending.swap_remove(index);
            if let Operation::Write { offset, data, .. } = pending.operation {
                inner.write_in_part(offset, &data, random);
            }
        }
        inner.sync_failed = false;
    }

    /// Flips bits of one byte of what is on the disk, as rot does.
    pub fn flip(&self, offset: u64, bits: u8) {
        self.inner.borrow_mut().image.flip(offset, bits);
    }
}

impl Inner {
    fn write_in_part(&mut self, offset: u64, data: &[u8], random: &SimRandom) {
        let atomic = self.config.atomic as usize;
        let units = data.len() / atomic;
        let done = match random.below(4) {
            0 => 0,
            1 => random.below(units + 1),
            _ => units,
        };
        let part = data.get(..done * atomic).unwrap_or_default().to_vec();
        debug_assert!(part.len().is_multiple_of(SECTOR));
        self.image.write(Version::new(offset, Rc::new(part)), !self.config.volatile_cache);
    }
}
