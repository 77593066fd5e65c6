//! Breadth first through every state of a world. Only fingerprints are kept; the way to a state
//! is found again by walking it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use crate::properties;
use crate::rules::World;
use crate::state::State;
use crate::steps::{Step, Steps};
use crate::trace;

/// A fingerprint is as good a hash as any.
#[derive(Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// From where each state was reached first.
pub type Seen = HashMap<u64, u64, BuildHasherDefault<AsIs>>;

/// What a search came to.
#[derive(Debug)]
pub struct Outcome {
    pub states: usize,
    pub steps: u64,
    pub depth: usize,
    /// What is wrong, and how it comes to it.
    pub broken: Option<(String, Vec<String>)>,
}

pub fn successors(world: &World, state: &State, then: &mut dyn FnMut(Step, State)) {
    Steps { world, before: *state, then }.all();
}

/// Visits every state, with `visit` asked for more that may be wrong with it.
pub fn explore(world: &World, mut visit: impl FnMut(&State) -> Option<String>) -> Outcome {
    let first = State::first(world).canonical(world).0;
    let mut seen = Seen::default();
    seen.insert(first.fingerprint(), first.fingerprint());
    let (mut steps, mut depth) = (0, 0);
    let mut broken = None;
    let mut layer = vec![first];
    while broken.is_none() {
        let mut next = Vec::new();
        for state in &layer {
            let parent = state.fingerprint();
            successors(world, state, &mut |_, after| {
                steps += 1;
                let after = after.canonical(world).0;
                let fingerprint = after.fingerprint();
                let Entry::Vacant(place) = seen.entry(fingerprint) else { return };
                place.insert(parent);
                next.push(after);
                if broken.is_none() {
                    let wrong = properties::broken(world, &after).map(str::to_owned);
                    broken = wrong.or_else(|| visit(&after)).map(|what| (what, fingerprint));
                }
            });
            if broken.is_some() {
                break;
            }
        }
        if next.is_empty() {
            break;
        }
        depth += 1;
        layer = next;
    }
    let broken = broken.map(|(what, last)| (what, trace::retrace(world, &seen, last)));
    Outcome { states: seen.len(), steps, depth, broken }
}
