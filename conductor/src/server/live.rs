//! What nodes last reported. It lives in memory only: after a restart the nodes say it again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use afs_decisions::NodeId;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::api::{DiskReport, NodeLiveness, NodeReport};

/// A leader that goes on missing a node says so again within a second. An older accusation would stand against a node that has
/// come back: a volume that is moved there would be taken from it again.
const ACCUSATION_FRESH: Duration = Duration::from_secs(3);

/// The last reports of all known nodes.
pub(super) struct Live {
    timeout: Duration,
    started: Instant,
    nodes: Mutex<BTreeMap<String, Entry>>,
    /// Counts reports, for those who wait for one.
    reports: watch::Sender<u64>,
    /// Counts news about who does not reach whom.
    doubts: watch::Sender<u64>,
    /// Which leader could not reach which node, and when it said so.
    accusations: Mutex<BTreeMap<(NodeId, NodeId), Instant>>,
}

struct Entry {
    last: Option<Seen>,
    /// When its first report arrived, until that is taken in.
    heard: Option<Instant>,
    /// MetaDB has taken in what it rests on of a report like the last one, when it had been found so many times to be an older copy.
    registered: Option<u64>,
    /// When its registration disappeared. A report that came later counts all the same.
    gone: Option<Instant>,
    noted: NodeLiveness,
}

impl Default for Entry {
    fn default() -> Self {
        Self { last: None, heard: None, registered: None, gone: None, noted: NodeLiveness::Unknown }
    }
}

/// How a node was before its report arrived.
#[derive(Clone, Copy, Default)]
pub(super) struct Heard {
    before: Option<Instant>,
    /// While it was not, another node may have been given its disks.
    pub(super) was_up: bool,
}

/// The first report of a node in a term may take so many times as long as others.
const FIRST_REPORT: u32 = 3;

/// Whether two reports of a node are the same to MetaDB.
fn registers_the_same(one: &NodeReport, other: &NodeReport) -> bool {
    let disk = |disk: &DiskReport| (disk.uuid, disk.kind, disk.total_bytes);
    let disks = |report: &NodeReport| -> Vec<_> {
        report.disks.iter().map(|it| (disk(it), it.path.clone())).collect()
    };
    let promises = |report: &NodeReport| -> Vec<_> {
        let promised = report.volumes.iter().filter(|it| it.promised > 0);
        promised.map(|it| (it.volume, it.replica, it.promised)).collect()
    };
    one.deleted.is_empty()
        && other.deleted.is_empty()
        && one.portals == other.portals
        && one.peer_portals == other.peer_portals
        && one.rack == other.rack
        && disks(one) == disks(other)
        && promises(one) == promises(other)
}

#[derive(Clone)]
struct Seen {
    at: Instant,
    report: Arc<NodeReport>,
}

/// A node at one moment.
#[derive(Clone, Debug)]
pub(super) struct LiveNode {
    pub(super) liveness: NodeLiveness,
    pub(super) age: Option<Duration>,
    pub(super) report: Option<Arc<NodeReport>>,
}

impl LiveNode {
    /// The report, if it still tells how things are.
    pub(super) fn current(&self) -> Option<&NodeReport> {
        self.report.as_deref().filter(|_| self.liveness == NodeLiveness::Up)
    }
}

impl Live {
    pub(super) fn new(timeout: Duration, nodes: impl IntoIterator<Item = String>) -> Self {
        let entry = |name| (name, Entry::default());
        Self {
            timeout,
            started: Instant::now(),
            nodes: Mutex::new(nodes.into_iter().map(entry).collect()),
            reports: watch::Sender::new(0),
            doubts: watch::Sender::new(0),
            accusations: Mutex::default(),
        }
    }

    /// A leader could not reach a node.
    pub(super) fn accuse(&self, accuser: NodeId, accused: NodeId) {
        let before = self.accusations.lock().insert((accuser, accused), Instant::now());
        if before.is_none_or(|at| at.elapsed() > ACCUSATION_FRESH) {
            self.doubts.send_modify(|count| *count += 1);
        }
    }

    /// A leader has filled a replica on a node: it reaches it, whatever it said before.
    pub(super) fn reconciled(&self, leader: NodeId, node: NodeId) {
        self.accusations.lock().remove(&(leader, node));
    }

    /// Tells when somebody says that it does not reach somebody whom it reached before.
    pub(super) fn doubts(&self) -> watch::Receiver<u64> {
        self.doubts.subscribe()
    }

    /// What leaders said lately, and how long ago.
    pub(super) fn accusations(&self) -> Vec<(NodeId, NodeId, Duration)> {
        let mut accusations = self.accusations.lock();
        accusations.retain(|_, at| at.elapsed() <= ACCUSATION_FRESH);
        accusations.iter().map(|((a, b), at)| (*a, *b, at.elapsed())).collect()
    }

    /// Forgets a node that was removed.
    pub(super) fn forget(&self, node: &str) {
        self.nodes.lock().remove(node);
    }

    /// Whether MetaDB has taken in a report of this node that says the same in all that MetaDB rests on, and has not been found to
    /// be an older copy since.
    pub(super) fn has_registered(&self, report: &NodeReport, times_back: u64) -> bool {
        let nodes = self.nodes.lock();
        let Some(entry) = nodes.get(&report.node) else { return false };
        let last = entry.last.as_ref().filter(|_| entry.registered == Some(times_back));
        last.is_some_and(|last| registers_the_same(&last.report, report))
    }

    /// Keeps a report, which MetaDB has just taken in or not; returns the one before and this one.
    pub(super) fn update(
        &self,
        report: NodeReport,
        registered: Option<u64>,
    ) -> (Option<Arc<NodeReport>>, Arc<NodeReport>) {
        let seen = Seen { at: Instant::now(), report: Arc::new(report) };
        let name = seen.report.node.clone();
        let before = {
            let mut nodes = self.nodes.lock();
            let entry = nodes.entry(name).or_default();
            entry.registered = registered.or(entry.registered);
            entry.last.replace(seen.clone())
        };
        let known = before.as_ref().map_or(&[][..], |seen| &seen.report.unreachable);
        if seen.report.unreachable.iter().any(|peer| !known.contains(peer)) {
            self.doubts.send_modify(|count| *count += 1);
        }
        self.reports.send_modify(|count| *count += 1);
        (before.map(|seen| seen.report), seen.report)
    }

    /// Takes a node for down at once, until its next report: its session with ZooKeeper has ended.
    pub(super) fn gone(&self, node: &str) {
        if let Some(entry) = self.nodes.lock().get_mut(node) {
            entry.gone = Some(Instant::now());
        }
        // Nobody needs to wait for it any more.
        self.reports.send_modify(|count| *count += 1);
    }

    /// A known node reports. That counts before MetaDB takes it in, which it may not be able to, or not soon.
    pub(super) fn heard_from(&self, node: &str) -> Heard {
        let mut nodes = self.nodes.lock();
        let Some(entry) = nodes.get_mut(node) else { return Heard::default() };
        let was_up = self.liveness(entry) == NodeLiveness::Up;
        let now = Instant::now();
        let before = match &mut entry.last {
            Some(seen) => Some(std::mem::replace(&mut seen.at, now)),
            None => entry.heard.replace(now),
        };
        Heard { before, was_up }
    }

    /// The report was refused, so it does not count: two nodes that report each other's disks would keep each other's reports refused
    /// for ever, as a disk is believed to have moved only from a node that is down.
    pub(super) fn unheard(&self, node: &str, heard: Heard) {
        if let Some(entry) = self.nodes.lock().get_mut(node) {
            match (&mut entry.last, heard.before) {
                (Some(seen), Some(before)) => seen.at = before,
                (Some(_), None) => {}
                (None, before) => entry.heard = before,
            }
        }
    }

    /// Whether a node is up and has a disk, or may be and has not had the time to say so yet. One that was restarted with another
    /// disk in its place does not have it any more.
    pub(super) fn may_have(&self, node: &str, disk: Uuid) -> bool {
        let nodes = self.nodes.lock();
        let entry = nodes.get(node).filter(|it| self.liveness(it) != NodeLiveness::Down);
        let last = entry.map(|entry| entry.last.as_ref());
        last.is_some_and(|last| {
            last.is_none_or(|seen| seen.report.disks.iter().any(|it| it.uuid == disk))
        })
    }

    /// All known nodes at this moment.
    pub(super) fn view(&self) -> BTreeMap<String, LiveNode> {
        let nodes = self.nodes.lock();
        let live = nodes.iter().map(|(name, entry)| {
            let node = LiveNode {
                liveness: self.liveness(entry),
                age: entry.last.as_ref().map(|seen| seen.at.elapsed()),
                report: entry.last.as_ref().map(|seen| seen.report.clone()),
            };
            (name.clone(), node)
        });
        live.collect()
    }

    /// Nodes whose liveness changed since the last call.
    pub(super) fn transitions(&self) -> Vec<(String, NodeLiveness)> {
        let mut nodes = self.nodes.lock();
        let mut changed = Vec::new();
        for (name, entry) in nodes.iter_mut() {
            let now = self.liveness(entry);
            if now != entry.noted {
                entry.noted = now;
                changed.push((name.clone(), now));
            }
        }
        changed
    }

    /// Waits until each of these nodes has put its revision into effect or is not up, at most
    /// this long. Returns those that are up and have not.
    pub(super) async fn wait_applied(
        &self,
        nodes: &HashMap<String, u64>,
        wait: Duration,
    ) -> Vec<String> {
        let mut reports = self.reports.subscribe();
        let all_applied = async {
            loop {
                reports.borrow_and_update();
                if self.behind(nodes).is_empty() || reports.changed().await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(wait, all_applied).await;
        self.behind(nodes)
    }

    fn behind(&self, nodes: &HashMap<String, u64>) -> Vec<String> {
        let live = self.nodes.lock();
        let behind = nodes.iter().filter(|(name, revision)| {
            live.get(*name).is_some_and(|entry| {
                let up = self.liveness(entry) == NodeLiveness::Up;
                let applied = entry.last.as_ref().map(|seen| seen.report.applied_revision);
                up && applied.is_none_or(|applied| applied < **revision)
            })
        });
        let mut names: Vec<String> = behind.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    fn liveness(&self, entry: &Entry) -> NodeLiveness {
        match &entry.last {
            Some(seen) if entry.gone.is_some_and(|gone| gone >= seen.at) => NodeLiveness::Down,
            Some(seen) if seen.at.elapsed() < self.timeout => NodeLiveness::Up,
            // All nodes of a large cluster that come up together are not heard at once, and none of them is helped by elections
            // among the first ones. One that is really dead is told of by its peers.
            None if self.started.elapsed() < self.timeout * FIRST_REPORT => NodeLiveness::Unknown,
            None if entry.heard.is_some_and(|at| at.elapsed() < self.timeout) => {
                NodeLiveness::Unknown
            }
            _ => NodeLiveness::Down,
        }
    }
}
