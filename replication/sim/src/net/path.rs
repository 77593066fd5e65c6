//! Paths: one direction between two machines each, and what is wrong with it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Address;
use crate::random::SimRandom;

/// A path through which nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// So many of a hundred messages are held until the path is whole again; the others vanish.
    pub kept: u8,
}

/// What is wrong with a path; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathState {
    /// Nothing comes through.
    pub cut: Option<Cut>,
    /// Each message takes up to so much longer.
    pub delay_max: Duration,
    /// Of a hundred messages so many are late by a time drawn from `late_max`.
    pub late: u8,
    /// How late.
    pub late_max: Duration,
}

impl PathState {
    pub(super) fn extra_latency(&self, random: &SimRandom) -> Duration {
        let below = |most: Duration| {
            let most = usize::try_from(most.as_nanos()).unwrap_or(usize::MAX);
            Duration::from_nanos(random.below(most) as u64)
        };
        let late = self.late > 0 && random.chance(self.late as usize);
        below(self.delay_max) + if late { below(self.late_max) } else { Duration::ZERO }
    }
}

type Held = Vec<Box<dyn FnOnce()>>;

/// All paths that are not whole, and what they hold.
#[derive(Default)]
pub(super) struct Paths(BTreeMap<(Address, Address), (PathState, Held)>);

impl Paths {
    pub(super) fn get(&self, from: Address, to: Address) -> PathState {
        self.0.get(&(from, to)).map(|(path, _)| *path).unwrap_or_default()
    }

    /// Returns what may go on now.
    pub(super) fn set(&mut self, from: Address, to: Address, path: PathState) -> Held {
        let entry = self.0.entry((from, to)).or_default();
        entry.0 = path;
        let freed = if path.cut.is_none() { std::mem::take(&mut entry.1) } else { Vec::new() };
        if path == PathState::default() {
            self.0.remove(&(from, to));
        }
        freed
    }

    pub(super) fn hold(&mut self, from: Address, to: Address, deliver: Box<dyn FnOnce()>) {
        self.0.entry((from, to)).or_default().1.push(deliver);
    }

    pub(super) fn broken(&self) -> Vec<(Address, Address)> {
        self.0.keys().copied().collect()
    }
}
