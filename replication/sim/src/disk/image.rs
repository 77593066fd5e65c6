//! The bytes of a simulated disk. Stable bytes are shared between snapshots; what is not stable yet
//! is a list of writes.
//!
//! Invariant: `cached` holds the writes that ended and are not durable, in the order in which they
//! ended; what they cover is read from them. A durable write takes its sectors out of every cached
//! one: nothing older can come after it.

use std::collections::HashMap;
use std::rc::Rc;

use crate::random::SimRandom;

/// The unit of bookkeeping.
pub(super) const SECTOR: usize = 512;
const PAGE: usize = 4096;

type Page = Rc<[u8; PAGE]>;

/// What a disk holds; cheap to copy.
#[derive(Clone)]
pub struct Snapshot {
    pages: Vec<Option<Page>>,
}

/// One write: where and what.
#[derive(Clone)]
pub(super) struct Version {
    offset: u64,
    data: Rc<Vec<u8>>,
    /// Numbers grow in the order of ending.
    ended: u64,
    /// One for each sector: not yet durable, nor covered by something durable.
    live: Vec<bool>,
}

impl Version {
    pub(super) fn new(offset: u64, data: Rc<Vec<u8>>) -> Self {
        let live = vec![true; data.len() / SECTOR];
        Self { offset, data, ended: u64::MAX, live }
    }

    fn first_sector(&self) -> u64 {
        self.offset / SECTOR as u64
    }

    fn touches(&self, offset: u64, length: usize) -> bool {
        self.offset < offset + length as u64 && offset < self.offset + self.data.len() as u64
    }

    fn sectors(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let live = self.live.iter();
        let chunks = self.data.chunks_exact(SECTOR);
        (self.first_sector()..)
            .zip(chunks.zip(live))
            .filter(|(_, (_, live))| **live)
            .map(|(sector, (bytes, _))| (sector, bytes))
    }
}

/// How a power cut treats what is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it is gone.
    All,
    /// All of it is there, also what was on its way.
    Nothing,
    /// Each atomic unit is lost or kept by chance, any version of it: torn and reordered.
    Torn,
    /// Each write is wholly lost or wholly kept, by chance: reordered.
    Reordered,
    /// What ended is there, what was on its way is gone.
    InFlight,
    /// What ended is gone, what was on its way is there.
    Cached,
}

impl Loss {
    /// Every pattern.
    pub const ALL: [Loss; 6] =
        [Loss::All, Loss::Nothing, Loss::Torn, Loss::Reordered, Loss::InFlight, Loss::Cached];
}

/// See the module documentation.
pub(super) struct Image {
    stable: Snapshot,
    cached: Vec<Version>,
    ended: u64,
}

impl Snapshot {
    fn new(bytes: u64) -> Self {
        let pages = usize::try_from(bytes).unwrap_or(0) / PAGE;
        Self { pages: vec![None; pages] }
    }

    fn put(&mut self, sector: u64, bytes: &[u8]) {
        let at = usize::try_from(sector).unwrap_or(usize::MAX) * SECTOR;
        if let Some(page) = self.pages.get_mut(at / PAGE) {
            let page = Rc::make_mut(page.get_or_insert_with(|| Rc::new([0; PAGE])));
            if let Some(place) = page.get_mut(at % PAGE..at % PAGE + SECTOR) {
                place.copy_from_slice(bytes);
            }
        }
    }

    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length);
        let first = usize::try_from(offset).unwrap_or(usize::MAX) / PAGE;
        for page in self.pages.iter().skip(first).take(length / PAGE) {
            match page {
                Some(page) => out.extend_from_slice(page.as_slice()),
                None => out.extend_from_slice(&[0; PAGE]),
            }
        }
        out
    }

    /// Changes the disk's length: bytes beyond are lost.
    pub fn resize(&mut self, bytes: u64) {
        self.pages.resize(usize::try_from(bytes).unwrap_or(0) / PAGE, None);
    }

    /// Flips bits of one byte.
    pub fn flip(&mut self, offset: u64, bits: u8) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(page) = self.pages.get_mut(at / PAGE) {
            let page = Rc::make_mut(page.get_or_insert_with(|| Rc::new([0; PAGE])));
            if let Some(byte) = page.get_mut(at % PAGE) {
                *byte ^= bits;
            }
        }
    }

    /// Overwrites bytes (whole, aligned 512-byte sectors).
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if at.is_multiple_of(PAGE) && bytes.len().is_multiple_of(PAGE) {
            let pages = self.pages.iter_mut().skip(at / PAGE);
            for (page, bytes) in pages.zip(bytes.chunks_exact(PAGE)) {
                match page.as_mut().and_then(Rc::get_mut) {
                    Some(own) => own.copy_from_slice(bytes),
                    None => *page = bytes.try_into().ok().map(Rc::new),
                }
            }
            return;
        }
        for (sector, part) in (offset / SECTOR as u64..).zip(bytes.chunks_exact(SECTOR)) {
            self.put(sector, part);
        }
    }

    /// The bytes of a range of whole pages.
    pub fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        self.read(offset, length)
    }
}

impl Image {
    pub(super) fn new(bytes: u64) -> Self {
        Self::from_snapshot(&Snapshot::new(bytes))
    }

    pub(super) fn from_snapshot(snapshot: &Snapshot) -> Self {
        Self { stable: snapshot.clone(), cached: Vec::new(), ended: 0 }
    }

    /// A number that is past everything that has ended.
    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    pub(super) fn write(&mut self, mut version: Version, durable: bool) {
        self.ended += 1;
        version.ended = self.ended;
        if !durable {
            self.cached.push(version);
            return;
        }
        let first = version.first_sector();
        let last = first + version.live.len() as u64;
        let (offset, length) = (version.offset, version.data.len());
        for cached in self.cached.iter_mut().filter(|cached| cached.touches(offset, length)) {
            let base = cached.first_sector();
            for (sector, live) in (base..).zip(&mut cached.live) {
                *live &= !(first..last).contains(&sector);
            }
        }
        self.settle(&version);
        self.drop_dead();
    }

    fn settle(&mut self, version: &Version) {
        if version.live.iter().all(|live| *live) {
            self.stable.write(version.offset, &version.data);
            return;
        }
        for (sector, bytes) in version.sectors() {
            self.stable.put(sector, bytes);
        }
    }

    fn drop_dead(&mut self) {
        self.cached.retain(|version| version.live.contains(&true));
    }

    pub(super) fn sync(&mut self, ended: u64) {
        let cached = std::mem::take(&mut self.cached);
        let (durable, rest): (Vec<_>, Vec<_>) =
            cached.into_iter().partition(|version| version.ended <= ended);
        for version in &durable {
            self.settle(version);
        }
        self.cached = rest;
    }

    pub(super) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = self.stable.read(offset, length);
        let first = offset / SECTOR as u64;
        for version in self.cached.iter().filter(|version| version.touches(offset, length)) {
            for (sector, data) in version.sectors() {
                let Some(index) = sector.checked_sub(first) else { continue };
                let at = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(SECTOR);
                if let Some(place) = bytes.get_mut(at..at.saturating_add(SECTOR)) {
                    place.copy_from_slice(data);
                }
            }
        }
        bytes
    }

    pub(super) fn latest(&self) -> Snapshot {
        let mut snapshot = self.stable.clone();
        for version in &self.cached {
            for (sector, bytes) in version.sectors() {
                snapshot.put(sector, bytes);
            }
        }
        snapshot
    }

    pub(super) fn flip(&mut self, offset: u64, bits: u8) {
        let mut latest = self.latest();
        latest.flip(offset, bits);
        self.stable = latest;
        self.cached.clear();
    }

    /// What a cut leaves. Writes on their way count as not ended, and come after those that did.
    pub(super) fn cut(
        &self,
        in_flight: Vec<Version>,
        atomic: usize,
        loss: Loss,
        random: &SimRandom,
    ) -> Snapshot {
        let mut snapshot = self.stable.clone();
        let split = self.cached.len();
        let mut choices: HashMap<u64, Vec<&[u8]>> = HashMap::new();
        for (index, version) in self.cached.iter().chain(&in_flight).enumerate() {
            let keep = match loss {
                Loss::All => false,
                Loss::Nothing => true,
                Loss::Reordered => random.chance(50),
                Loss::InFlight => index < split,
                Loss::Cached => index >= split,
                Loss::Torn => {
                    for (sector, bytes) in version.sectors() {
                        choices.entry(sector).or_default().push(bytes);
                    }
                    false
                }
            };
            if keep {
                for (sector, bytes) in version.sectors() {
                    snapshot.put(sector, bytes);
                }
            }
        }
        tear(&mut snapshot, &choices, atomic, random);
        snapshot
    }
}

/// Each atomic unit gets one of its versions, or none.
fn tear(
    snapshot: &mut Snapshot,
    choices: &HashMap<u64, Vec<&[u8]>>,
    atomic: usize,
    random: &SimRandom,
) {
    let unit = (atomic / SECTOR) as u64;
    let mut sectors: Vec<_> = choices.keys().copied().collect();
    sectors.sort_unstable();
    let mut chosen = (u64::MAX, 0);
    for sector in sectors {
        let Some(versions) = choices.get(&sector) else { continue };
        if chosen.0 != sector / unit {
            chosen = (sector / unit, random.below(versions.len() + 1));
        }
        // All sectors of a unit have the same versions, since writes are whole units.
        if let Some(bytes) = chosen.1.checked_sub(1).and_then(|index| versions.get(index)) {
            snapshot.put(sector, bytes);
        }
    }
}
