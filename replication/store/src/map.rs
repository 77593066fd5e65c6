//! A layer's map from chunk index to physical chunk: three arrays deep, made on demand, read with
//! no lock. Written only under the store's lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// "No physical chunk."
pub(crate) const NONE: u32 = u32::MAX;
const FAN: usize = 1024;

struct Leaf([AtomicU32; FAN]);
struct Middle([OnceLock<Box<Leaf>>; FAN]);

/// 2^30 entries; 4 bytes for each of those whose neighbourhood (1024 entries) is in use.
pub(crate) struct LayerMap(Box<[OnceLock<Box<Middle>>]>);

fn split(index: u32) -> (usize, usize, usize) {
    let index = index as usize;
    (index / (FAN * FAN), index / FAN % FAN, index % FAN)
}

impl LayerMap {
    pub(crate) fn new() -> Self {
        Self((0..FAN).map(|_| OnceLock::new()).collect())
    }

    fn entry(&self, index: u32) -> Option<&AtomicU32> {
        let (a, b, c) = split(index);
        self.0.get(a)?.get()?.0.get(b)?.get()?.0.get(c)
    }

    /// The physical chunk of `index`, or [`NONE`].
    pub(crate) fn get(&self, index: u32) -> u32 {
        self.entry(index).map_or(NONE, |entry| entry.load(Ordering::SeqCst))
    }

    /// Sets the physical chunk; returns the old one. Indexes of 2^30 and more are ignored.
    pub(crate) fn set(&self, index: u32, chunk: u32) -> u32 {
        let (a, b, c) = split(index);
        let Some(root) = self.0.get(a) else { return NONE };
        let middle = root.get_or_init(|| Box::new(Middle([const { OnceLock::new() }; FAN])));
        let Some(leaf) = middle.0.get(b) else { return NONE };
        let leaf = leaf.get_or_init(|| Box::new(Leaf([const { AtomicU32::new(NONE) }; FAN])));
        leaf.0.get(c).map_or(NONE, |entry| entry.swap(chunk, Ordering::SeqCst))
    }

    /// The first index at or after `from` and before `end` that has a chunk.
    pub(crate) fn next_mapped(&self, from: u32, end: u32) -> Option<u32> {
        let mut index = from as usize;
        while index < end as usize {
            let (a, b, c) = (index / (FAN * FAN), index / FAN % FAN, index % FAN);
            let Some(middle) = self.0.get(a)?.get() else {
                index = (a + 1) * FAN * FAN;
                continue;
            };
            let Some(leaf) = middle.0.get(b).and_then(OnceLock::get) else {
                index = (index / FAN + 1) * FAN;
                continue;
            };
            match leaf.0.iter().skip(c).position(|e| e.load(Ordering::Relaxed) != NONE) {
                Some(ahead) => index += ahead,
                None => {
                    index = (index / FAN + 1) * FAN;
                    continue;
                }
            }
            return u32::try_from(index).ok().filter(|index| *index < end);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_finds_what_was_set_and_skips_what_was_not() {
        let map = LayerMap::new();
        assert_eq!(map.get(5), NONE);
        for index in [3, 1500, 1 << 20, (1 << 30) - 1] {
            assert_eq!(map.set(index, index / 2), NONE);
            assert_eq!(map.get(index), index / 2);
        }
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(index) = map.next_mapped(from, 1 << 30) {
            found.push(index);
            from = index + 1;
        }
        assert_eq!(found, [3, 1500, 1 << 20, (1 << 30) - 1]);
        assert_eq!(map.next_mapped(4, 1500), None);
        assert_eq!(map.set(3, NONE), 1);
        assert_eq!(map.next_mapped(0, 1500), None);
    }
}
