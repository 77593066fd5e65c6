//! What a person can see of a running node: every figure that `/metrics` shows.
//!
//! The target core takes handles from here ([`Metrics::namespace`], [`Metrics::queue`],
//! [`Metrics::counters`]) and records into them; disks, reactors and the process itself are read
//! at each scrape through [`Source`]. `http` calls [`Metrics::render`].
//!
//! Invariant: the number of series does not grow with the number of connections, nor with what a peer sends.

mod counters;
pub mod export;
pub mod io;
mod process;
pub mod reactors;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

pub use counters::{Counters, Refused};
use export::Exposition;
use io::{IoMetrics, Operation, QueueMetrics};

use crate::portal::Transport;

/// Queue ids above this one share the label of this one, so that a host that opens many queues makes no new series.
pub const QUEUE_LABEL_MAX: u16 = 64;

/// Something that is read at scrape time: the disks, the reactors.
pub trait Source: Send + Sync {
    /// Adds its figures to a scrape.
    fn collect(&self, scrape: &mut Exposition);
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct NamespaceKey {
    nqn: String,
    nsid: u32,
}

struct NamespaceEntry {
    volume: String,
    io: Arc<IoMetrics>,
}

/// All figures of one node.
pub struct Metrics {
    reactors: usize,
    namespaces: Mutex<BTreeMap<NamespaceKey, NamespaceEntry>>,
    /// By reactor, transport and label of the queue id.
    queues: Mutex<HashMap<(usize, Transport, u16), Arc<QueueMetrics>>>,
    counters: Counters,
    sources: Mutex<Vec<Arc<dyn Source>>>,
}

impl Metrics {
    /// Figures for a node with this many reactors.
    pub fn new(reactors: usize) -> Arc<Metrics> {
        Arc::new(Metrics {
            reactors,
            namespaces: Mutex::new(BTreeMap::new()),
            queues: Mutex::new(HashMap::new()),
            counters: Counters::default(),
            sources: Mutex::new(Vec::new()),
        })
    }

    /// The figures of a namespace; the same ones again for the same (nqn, nsid), under the latest volume name.
    pub fn namespace(&self, nqn: &str, nsid: u32, volume_name: &str) -> Arc<IoMetrics> {
        let key = NamespaceKey { nqn: nqn.to_owned(), nsid };
        let mut namespaces = self.namespaces.lock();
        let entry = namespaces.entry(key).or_insert_with(|| NamespaceEntry {
            volume: String::new(),
            io: Arc::new(IoMetrics::new(self.reactors)),
        });
        volume_name.clone_into(&mut entry.volume);
        Arc::clone(&entry.io)
    }

    /// Ends the series of a namespace that was removed.
    pub fn forget(&self, nqn: &str, nsid: u32) {
        self.namespaces.lock().remove(&NamespaceKey { nqn: nqn.to_owned(), nsid });
    }

    /// Ends the series of all namespaces for which `keep` (of NQN and NSID) is false.
    pub fn retain(&self, keep: impl Fn(&str, u32) -> bool) {
        self.namespaces.lock().retain(|key, _| keep(&key.nqn, key.nsid));
    }

    /// The figures of the I/O queue pairs of this transport with this id on this reactor.
    pub fn queue(&self, reactor: usize, transport: Transport, queue: u16) -> Arc<QueueMetrics> {
        let label = queue.min(QUEUE_LABEL_MAX);
        Arc::clone(self.queues.lock().entry((reactor, transport, label)).or_default())
    }

    /// Commands of all queue pairs that are not answered yet.
    pub fn in_flight(&self) -> u64 {
        self.queues.lock().values().map(|queue| queue.in_flight()).sum()
    }

    /// Counters of connections, controllers and errors.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Has `source` read at each scrape from now on.
    pub fn add_source(&self, source: Arc<dyn Source>) {
        self.sources.lock().push(source);
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        let mut scrape = Exposition::new();
        self.collect_namespaces(&mut scrape);
        self.collect_queues(&mut scrape);
        self.counters.collect(&mut scrape);
        let sources: Vec<_> = self.sources.lock().clone();
        for source in sources {
            source.collect(&mut scrape);
        }
        process::collect(&mut scrape);
        scrape.finish()
    }

    fn collect_namespaces(&self, scrape: &mut Exposition) {
        for (key, entry) in &*self.namespaces.lock() {
            let nsid = key.nsid.to_string();
            let labels = [("nqn", key.nqn.as_str()), ("nsid", &nsid), ("volume", &entry.volume)];
            for operation in Operation::ALL {
                collect_operation(scrape, labels, operation, &entry.io);
            }
        }
    }

    fn collect_queues(&self, scrape: &mut Exposition) {
        let mut queues: Vec<_> =
            self.queues.lock().iter().map(|(key, queue)| (*key, Arc::clone(queue))).collect();
        queues.sort_by_key(|((reactor, transport, queue), _)| (*reactor, transport.name(), *queue));
        for ((reactor, transport, queue), figures) in queues {
            let (reactor, queue) = (reactor.to_string(), queue.to_string());
            let transport = transport.name();
            let labels =
                [("reactor", reactor.as_str()), ("transport", transport), ("queue", &queue)];
            let sum = figures.snapshot();
            scrape.counter(
                "afs_queue_commands_total",
                "Commands answered on queue pairs with this id on this reactor.",
                &labels,
                sum.operations(),
            );
            scrape.counter(
                "afs_queue_bytes_total",
                "Bytes moved by commands that succeeded.",
                &labels,
                sum.bytes,
            );
            scrape.counter(
                "afs_queue_errors_total",
                "Commands answered with an error status.",
                &labels,
                sum.errors,
            );
            scrape.gauge(
                "afs_queue_in_flight",
                "Commands received and not answered yet.",
                &labels,
                figures.in_flight() as f64,
            );
            scrape.histogram(
                "afs_queue_command_seconds",
                "Time from a command's arrival to its answer.",
                &labels,
                &sum,
            );
        }
    }
}

/// Reads and writes are always shown; the rest once it was used, to keep a scrape of many namespaces small.
fn collect_operation(
    scrape: &mut Exposition,
    labels: [(&'static str, &str); 3],
    operation: Operation,
    io: &IoMetrics,
) {
    let sum = io.snapshot(operation);
    if sum.operations() == 0 && !matches!(operation, Operation::Read | Operation::Write) {
        return;
    }
    let [nqn, nsid, volume] = labels;
    let name = operation.name();
    let with_operation = [nqn, nsid, volume, ("operation", name)];
    scrape.counter(
        "afs_namespace_operations_total",
        "Commands answered, by operation.",
        &with_operation,
        sum.operations(),
    );
    scrape.counter(
        "afs_namespace_bytes_total",
        "Bytes moved by commands that succeeded.",
        &with_operation,
        sum.bytes,
    );
    scrape.counter(
        "afs_namespace_errors_total",
        "Commands answered with an error status.",
        &with_operation,
        sum.errors,
    );
    scrape.histogram(
        &format!("afs_namespace_{name}_seconds"),
        "Time from a command's arrival to its answer.",
        &labels,
        &sum,
    );
}

#[cfg(test)]
mod tests;
