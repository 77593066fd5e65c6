//! What `/metrics` shows of each reactor and its buffer pool.

use afs_reactor::{ReactorHandle, Reactors};

use super::Source;
use super::export::Exposition;

/// The reactors of the node.
pub struct ReactorFigures {
    handles: Vec<ReactorHandle>,
}

impl ReactorFigures {
    /// Those of `reactors`.
    pub fn new(reactors: &Reactors) -> ReactorFigures {
        ReactorFigures {
            handles: (0..reactors.len()).map(|index| reactors.handle(index)).collect(),
        }
    }
}

impl Source for ReactorFigures {
    fn collect(&self, scrape: &mut Exposition) {
        for handle in &self.handles {
            let reactor = handle.index().to_string();
            let labels = [("reactor", reactor.as_str())];
            let stats = handle.stats();
            let counters = [
                (
                    "afs_reactor_syscalls_total",
                    "System calls: sockets, disk ring, RDMA wake-ups and waiting.",
                    stats.syscalls(),
                ),
                (
                    "afs_reactor_rounds_total",
                    "Times that the reactor ran out of work and asked the system for more.",
                    stats.rounds,
                ),
                (
                    "afs_reactor_polls_total",
                    "Rounds that only looked, because work was expected soon.",
                    stats.polls,
                ),
                ("afs_reactor_parks_total", "Rounds that slept until there was work.", stats.parks),
                (
                    "afs_reactor_disk_operations_total",
                    "Operations that the disk ring completed.",
                    stats.ring_completions,
                ),
                (
                    "afs_reactor_rdma_doorbells_total",
                    "Calls that handed work requests to RDMA devices.",
                    stats.rdma_doorbells,
                ),
                (
                    "afs_reactor_rdma_completions_total",
                    "Completions of RDMA work requests and received messages.",
                    stats.rdma_completions,
                ),
                (
                    "afs_reactor_rdma_armings_total",
                    "Times that an RDMA device was asked to wake the reactor, before it slept.",
                    stats.rdma_armings,
                ),
            ];
            for (name, help, value) in counters {
                scrape.counter(name, help, &labels, value);
            }
            let gauges = [
                (
                    "afs_reactor_buffer_size_bytes",
                    "Memory for data in flight.",
                    stats.pool_total_bytes,
                ),
                (
                    "afs_reactor_buffer_free_bytes",
                    "Memory for data in flight that is free.",
                    stats.pool_free_bytes,
                ),
                (
                    "afs_reactor_rdma_registered_bytes",
                    "Memory that is registered with RDMA devices.",
                    stats.rdma_registered_bytes,
                ),
                ("afs_reactor_rdma_queue_pairs", "RDMA queue pairs.", stats.rdma_queue_pairs),
                (
                    "afs_reactor_rdma_receives_posted",
                    "Receives that are ready for capsules of RDMA hosts.",
                    stats.rdma_receives_posted,
                ),
                (
                    "afs_reactor_rdma_receives_wanted",
                    "Receives that there should be: fewer are posted while buffers are short.",
                    stats.rdma_receives_wanted,
                ),
            ];
            for (name, help, value) in gauges {
                scrape.gauge(name, help, &labels, value as f64);
            }
        }
    }
}
