//! Generations in memory: [`Generations`] gives them numbers, so that a chunk needs four bytes for
//! its own, and [`Current`] is the one that a layer's writes belong to.
//!
//! Invariants:
//! - every number that a chunk or a layer holds is in the table;
//! - a number never gets another meaning: those that nobody holds any more are taken out
//!   ([`Shared::forget_generations`]), and new ones count on. (At 2^32 they begin again, past those
//!   in use. A write would have to be stuck between two loads for as long as that takes.)
//! - a layer's current generation never goes back, and no chunk of the layer is above it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::chunk::Kind;
use crate::ids::Generation;
use crate::state::{Meta, Shared};

/// Generations that the table may hold before the first look for unused ones.
const FORGET_AT: usize = 256;
/// Chunks that one look goes through before others may run.
const STRIDE: usize = 16 << 10;

/// See the module documentation.
pub(crate) struct Generations {
    known: HashMap<u32, Generation>,
    numbers: HashMap<Generation, Number>,
    next: u32,
    /// Counts the looks for unused numbers.
    look: u64,
    forget_at: usize,
}

struct Number {
    number: u32,
    /// The look under way when it was last given out.
    used: u64,
}

impl Generations {
    pub(crate) fn new() -> Self {
        let first = Generation::default();
        Self {
            known: HashMap::from([(0, first)]),
            numbers: HashMap::from([(first, Number { number: 0, used: 0 })]),
            next: 1,
            look: 0,
            forget_at: FORGET_AT,
        }
    }

    /// The generation's number, old or new.
    pub(crate) fn number(&mut self, generation: Generation) -> u32 {
        let used = self.look;
        let entry = self.numbers.entry(generation).or_insert_with(|| {
            while self.known.contains_key(&self.next) {
                self.next = self.next.wrapping_add(1);
            }
            let number = self.next;
            self.next = number.wrapping_add(1);
            self.known.insert(number, generation);
            Number { number, used }
        });
        entry.used = used;
        entry.number
    }

    pub(crate) fn get(&self, number: u32) -> Generation {
        self.known.get(&number).copied().unwrap_or_default()
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        self.known.contains_key(&number)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Keeps number 0, those in `held`, and those given out since the look began.
    fn forget(&mut self, held: &HashSet<u32>) {
        let (look, known) = (self.look, &mut self.known);
        self.numbers.retain(|_, entry| {
            let keep = entry.number == 0 || entry.used >= look || held.contains(&entry.number);
            if !keep {
                known.remove(&entry.number);
            }
            keep
        });
        self.forget_at = FORGET_AT.max(2 * self.known.len());
    }
}

/// The generation that a layer's writes belong to. Read with no lock; raised under the store's
/// lock, so by one thread at a time.
#[derive(Default)]
pub(crate) struct Current {
    epoch: AtomicU64,
    number: AtomicU64,
    index: AtomicU32,
}

impl Current {
    /// Its number in [`Generations`].
    pub(crate) fn index(&self) -> u32 {
        self.index.load(Ordering::Acquire)
    }

    /// Whether `generation` or a later one is current. If so, [`Current::index`] says so too.
    ///
    /// `number` is read after `epoch`, and is 0 whenever `epoch` changes, so what is read is never
    /// above what is current: it is a pair that was, or the number of a later epoch.
    pub(crate) fn reaches(&self, generation: Generation) -> bool {
        let epoch = self.epoch.load(Ordering::Acquire);
        let number = self.number.load(Ordering::Acquire);
        epoch > generation.epoch || epoch == generation.epoch && number >= generation.number
    }

    /// Makes `generation`, which has this number, current unless a later one is.
    pub(crate) fn raise(&self, generation: Generation, index: u32) {
        if self.reaches(generation) {
            return;
        }
        if generation.epoch > self.epoch.load(Ordering::Acquire) {
            self.number.store(0, Ordering::Release);
        }
        // Before the pair, for whoever sees the pair goes on with the index.
        self.index.store(index, Ordering::Release);
        self.epoch.store(generation.epoch, Ordering::Release);
        self.number.store(generation.number, Ordering::Release);
    }
}

impl Shared {
    /// Takes generations that nobody refers to out of the table, if it has grown much. The look at
    /// all chunks takes no lock: a number that is stored behind its back was given out meanwhile,
    /// and stays.
    pub(crate) async fn forget_generations(&self) {
        {
            let generations = &mut self.meta.lock().generations;
            if generations.len() < generations.forget_at {
                return;
            }
            generations.look += 1;
        }
        let mut held = HashSet::new();
        for chunks in self.chunks.chunks(STRIDE) {
            held.extend(chunks.iter().map(|chunk| chunk.generation()));
            tokio::task::yield_now().await;
        }
        let mut meta = self.meta.lock();
        held.extend(meta.layers.iter().flatten().map(|layer| layer.generation.index()));
        meta.generations.forget(&held);
    }

    /// The module's invariants.
    pub(crate) fn check_generations(&self, meta: &Meta) -> Result<(), String> {
        let known = |number| meta.generations.contains(number);
        for layer in meta.layers.iter().flatten() {
            let index = layer.generation.index();
            if !known(index) || !layer.generation.reaches(meta.generations.get(index)) {
                return Err(format!("layer {}: generation {index}", layer.id.0));
            }
        }
        for (number, chunk) in self.chunks.iter().enumerate() {
            if !known(chunk.generation()) {
                return Err(format!("chunk {number} has an unknown generation"));
            }
            let stamp = meta.generations.get(chunk.generation());
            let layer = meta.layer(chunk.slot()).filter(|_| chunk.kind() == Kind::Owned);
            if layer.is_some_and(|layer| !layer.generation.reaches(stamp)) {
                return Err(format!("chunk {number} is stamped {stamp:?}, above its layer"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(epoch: u64, number: u64) -> Generation {
        Generation { epoch, number }
    }

    #[test]
    fn the_current_generation_never_goes_back() {
        let current = Current::default();
        assert!(current.reaches(Generation::default()));
        let mut highest = Generation::default();
        let steps = [(1, 5), (1, 4), (2, 0), (1, 9), (2, 3), (2, 3), (7, 0), (6, u64::MAX)];
        for (index, (epoch, number)) in (1..).zip(steps) {
            let wanted = generation(epoch, number);
            let before = current.index();
            current.raise(wanted, index);
            assert_eq!(current.index(), if wanted > highest { index } else { before });
            highest = highest.max(wanted);
            assert!(current.reaches(highest));
            assert!(!current.reaches(generation(highest.epoch, highest.number + 1)));
            assert!(!current.reaches(generation(highest.epoch + 1, 0)));
        }
    }

    #[test]
    fn numbers_in_use_stay_and_are_never_given_to_another_generation() {
        let mut table = Generations::new();
        let numbers: Vec<_> = (1..=1000).map(|epoch| table.number(generation(epoch, 0))).collect();
        table.look += 1;
        let late = table.number(generation(4, 0));
        let held = HashSet::from([numbers[1], numbers[8]]);
        table.forget(&held);
        assert_eq!(table.len(), 4, "the first, two held, one given out since the look began");
        assert_eq!(table.get(numbers[1]), generation(2, 0));
        assert_eq!(table.get(late), generation(4, 0));
        assert_eq!(table.number(generation(9, 0)), numbers[8]);
        assert!(!numbers.contains(&table.number(generation(1, 0))), "it was forgotten");
        table.next = 0;
        let mut given: Vec<_> =
            (2000..2010).map(|epoch| table.number(generation(epoch, 0))).collect();
        given.push(numbers[1]);
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 11, "after 2^32 they count past those in use");
    }
}
