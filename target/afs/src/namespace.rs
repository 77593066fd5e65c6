//! What a subsystem exports: an immutable map of namespaces that is replaced as a whole, and each queue's own view of it.
//!
//! Invariants:
//! - a map never changes; [`crate::subsystem::Subsystem`] publishes the next one and then raises its version, so a queue
//!   that sees the new version also sees the new map (CONFORMANCE M-26: the state that I/O is checked against comes first);
//! - every namespace is in exactly one ANA group, and the group's id is its NSID (CONFORMANCE M-21).

use crate::backend::{Backend, BackendSource};
use crate::limits::NSID_MAX;
use crate::metrics::io::IoMetrics;
use crate::subsystem::Subsystem;
use afs_nvme::Nsid;
use afs_nvme::log::AnaState;
use afs_reactor::Local;
use afs_volume::RangeLocks;
use conductor::api::NamespaceState;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use uuid::Uuid;

/// One namespace as hosts see it on this node.
#[derive(Clone)]
pub struct Namespace {
    /// Its number in the subsystem, which is also its ANA group.
    pub nsid: Nsid,
    /// Size in blocks of 4 KiB.
    pub blocks: u64,
    /// Fixed for ever (CONFORMANCE A-21).
    pub uuid: Uuid,
    /// Fixed for ever (CONFORMANCE A-21).
    pub nguid: [u8; 16],
    /// Writes are refused.
    pub read_only: bool,
    /// What this node says about its group.
    pub ana: AnaState,
    /// CHGCNT of its group (CONFORMANCE M-22).
    pub ana_changes: u64,
    /// Where its data is; `None` while this node does not have the volume.
    pub source: Option<BackendSource>,
    /// Operations, bytes, errors, latency.
    pub metrics: Arc<IoMetrics>,
    /// The order of overlapping reads and writes, the same for as long as the volume is here.
    pub ranges: Arc<RangeLocks>,
}

impl Namespace {
    /// Whether hosts must be told to look again: size, identity or attributes differ (CONFORMANCE 4.6).
    fn attributes_differ(&self, other: &Namespace) -> bool {
        self.blocks != other.blocks
            || self.uuid != other.uuid
            || self.nguid != other.nguid
            || self.read_only != other.read_only
    }

    /// Makes the description of `state`, whose data is at `source`.
    pub fn from_state(
        state: &NamespaceState,
        source: Option<BackendSource>,
        metrics: Arc<IoMetrics>,
    ) -> Option<Namespace> {
        let nsid = Some(Nsid(state.nsid)).filter(|nsid| (1..=NSID_MAX).contains(&nsid.get()))?;
        // A volume that is not here yet keeps its NSID and is reported inaccessible, never absent (CONFORMANCE A-26).
        let serving = source.as_ref().is_some_and(BackendSource::serving);
        let optimized = source.as_ref().is_some_and(BackendSource::optimized);
        let ana = match (serving, optimized) {
            (true, true) => AnaState::Optimized,
            (true, false) => AnaState::NonOptimized,
            (false, _) => AnaState::Inaccessible,
        };
        Some(Namespace {
            nsid,
            blocks: state.size_bytes / u64::from(crate::limits::BLOCK_BYTES),
            uuid: state.uuid,
            nguid: state.nguid.0,
            read_only: state.read_only,
            ana,
            ana_changes: 0,
            ranges: source.as_ref().map(|source| Arc::clone(source.ranges())).unwrap_or_default(),
            source,
            metrics,
        })
    }
}

/// All namespaces of a subsystem at one moment.
#[derive(Default)]
pub struct NamespaceMap {
    /// CHGCNT of the ANA log: raised by each change of any group (CONFORMANCE M-22).
    pub ana_changes: u64,
    namespaces: BTreeMap<u32, Arc<Namespace>>,
}

/// What differs between two maps.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MapChange {
    /// NSIDs added, removed or changed in size or attributes.
    pub attributes: Vec<u32>,
    /// A group changed its state, came or went.
    pub ana: bool,
}

impl NamespaceMap {
    /// The map of `namespaces`, which follows `before`: change counters run on from it, or from `base` at first.
    pub fn following(
        before: &NamespaceMap,
        base: u64,
        namespaces: impl IntoIterator<Item = Namespace>,
    ) -> (NamespaceMap, MapChange) {
        let next_count = (before.ana_changes + 1).max(base);
        let mut change = MapChange::default();
        let mut map = BTreeMap::new();
        for mut namespace in namespaces {
            let nsid = namespace.nsid.get();
            match before.namespaces.get(&nsid) {
                Some(old) => {
                    if old.attributes_differ(&namespace) {
                        change.attributes.push(nsid);
                    }
                    if old.ana == namespace.ana {
                        namespace.ana_changes = old.ana_changes;
                    } else {
                        change.ana = true;
                        namespace.ana_changes = next_count;
                    }
                }
                None => {
                    change.attributes.push(nsid);
                    change.ana = true;
                    namespace.ana_changes = next_count;
                }
            }
            map.insert(nsid, Arc::new(namespace));
        }
        for nsid in before.namespaces.keys().filter(|nsid| !map.contains_key(nsid)) {
            change.attributes.push(*nsid);
            change.ana = true;
        }
        change.attributes.sort_unstable();
        let ana_changes = if change.ana { next_count } else { before.ana_changes.max(base) };
        (NamespaceMap { ana_changes, namespaces: map }, change)
    }

    /// The namespace `nsid`, if exported.
    pub fn get(&self, nsid: u32) -> Option<&Arc<Namespace>> {
        self.namespaces.get(&nsid)
    }

    /// All, by ascending NSID.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        self.namespaces.values()
    }

    /// The NSIDs greater than `after`, ascending (CONFORMANCE 4.2, CNS 02).
    pub fn active_after(&self, after: u32) -> impl Iterator<Item = u32> {
        self.namespaces.range(after.saturating_add(1)..).map(|(nsid, _)| *nsid)
    }
}

/// A namespace as one queue uses it: with a backend on the queue's own reactor.
pub struct LocalNamespace {
    /// The description.
    pub namespace: Arc<Namespace>,
    /// The data; `None` while the volume is not here.
    pub backend: Option<Backend>,
}

struct View {
    version: u64,
    namespaces: Vec<Option<Rc<LocalNamespace>>>,
}

/// One queue's cache of the subsystem's namespaces, so that a command costs one atomic load and an index.
pub struct LocalNamespaces {
    view: RefCell<View>,
}

impl Default for LocalNamespaces {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalNamespaces {
    /// An empty cache, filled as commands come.
    pub fn new() -> Self {
        Self { view: RefCell::new(View { version: 0, namespaces: Vec::new() }) }
    }

    /// The namespace `nsid` of `subsystem`, `None` when it is not exported.
    #[inline]
    pub fn get(
        &self,
        local: &Local,
        subsystem: &Subsystem,
        nsid: u32,
    ) -> Option<Rc<LocalNamespace>> {
        let version = subsystem.version();
        let mut view = self.view.borrow_mut();
        if view.version != version {
            view.namespaces.clear();
            view.version = version;
        }
        let index = usize::try_from(nsid).ok()?;
        if let Some(Some(found)) = view.namespaces.get(index) {
            return Some(Rc::clone(found));
        }
        Self::open(&mut view, local, subsystem, nsid, index)
    }

    #[cold]
    fn open(
        view: &mut View,
        local: &Local,
        subsystem: &Subsystem,
        nsid: u32,
        index: usize,
    ) -> Option<Rc<LocalNamespace>> {
        // The map is at least as new as the version read before it; a newer one is only found sooner.
        let namespace = Arc::clone(subsystem.namespaces().get(nsid)?);
        let backend = namespace.source.as_ref().and_then(|source| source.open(local));
        let found = Rc::new(LocalNamespace { namespace, backend });
        if view.namespaces.len() <= index {
            view.namespaces.resize(index + 1, None);
        }
        view.namespaces[index] = Some(Rc::clone(&found));
        Some(found)
    }
}
