//! What the node leads, holds and reaches, for `/metrics`.

use afs_volume::Phase;

use super::Cluster;
use crate::metrics::Source;
use crate::metrics::export::Exposition;
use crate::metrics::io::Snapshot;

impl Source for Cluster {
    fn collect(&self, scrape: &mut Exposition) {
        for (volume, view) in self.led_views() {
            let volume = volume.to_string();
            let labels = [("volume", volume.as_str())];
            let serving = u8::from(view.phase == Phase::Serving).into();
            scrape.gauge(
                "afs_volume_serving",
                "1 while the node that leads the volume serves it.",
                &labels,
                serving,
            );
            scrape.gauge("afs_volume_epoch", "Epoch of the volume.", &labels, view.epoch as f64);
            scrape.gauge(
                "afs_volume_unequal_bytes",
                "Bytes that may differ among in-sync replicas and are made equal before they are read.",
                &labels,
                (view.pending_blocks * u64::from(afs_env::BLOCK_BYTES)) as f64,
            );
            for (shard, members) in view.shards.iter().enumerate() {
                let shard = shard.to_string();
                for member in members {
                    let (replica, node) = (member.replica.to_string(), member.node.to_string());
                    let labels = [
                        ("volume", volume.as_str()),
                        ("shard", shard.as_str()),
                        ("replica", replica.as_str()),
                        ("node", node.as_str()),
                    ];
                    scrape.gauge(
                        "afs_replica_in_sync",
                        "1 if the replica has every acknowledged write.",
                        &labels,
                        u8::from(member.in_sync).into(),
                    );
                    scrape.gauge(
                        "afs_replica_resync_left_bytes",
                        "Bytes that a resync has still to compare.",
                        &labels,
                        member.bytes_left as f64,
                    );
                    scrape.counter(
                        "afs_replica_resync_compared_bytes_total",
                        "Bytes that resyncs under this leader compared.",
                        &labels,
                        member.bytes_compared,
                    );
                    scrape.counter(
                        "afs_replica_resync_copied_bytes_total",
                        "Bytes that resyncs under this leader copied.",
                        &labels,
                        member.bytes_copied,
                    );
                }
            }
        }
        let held = self.held.read();
        for (replica, held) in held.iter() {
            let (replica, volume) = (replica.to_string(), held.volume.to_string());
            let labels = [("volume", volume.as_str()), ("replica", replica.as_str())];
            scrape.gauge(
                "afs_replica_promised_epoch",
                "The highest epoch that a replica on this node promised.",
                &labels,
                held.state.promised() as f64,
            );
            let uncommitted = held.state.uncommitted() as f64;
            scrape.gauge(
                "afs_replica_uncommitted_writes",
                "Writes of a replica on this node that are not known to be on all in-sync replicas.",
                &labels,
                uncommitted,
            );
        }
        drop(held);
        let calls = self.calls.lock();
        for (node, reactors) in calls.iter() {
            let node = node.to_string();
            let labels = [("node", node.as_str())];
            let mut sum = Snapshot::default();
            reactors.values().for_each(|calls| calls.add_to(&mut sum));
            scrape.counter(
                "afs_peer_calls_total",
                "Calls to another node that were answered, or lost.",
                &labels,
                sum.operations(),
            );
            scrape.counter(
                "afs_peer_sent_bytes_total",
                "Bytes of data sent to another node in calls that it answered.",
                &labels,
                sum.bytes,
            );
            scrape.counter(
                "afs_peer_lost_calls_total",
                "Calls to another node whose connection broke.",
                &labels,
                sum.errors,
            );
            let in_flight: u64 = reactors.values().map(|calls| calls.in_flight()).sum();
            scrape.gauge(
                "afs_peer_calls_in_flight",
                "Calls to another node that are not answered yet.",
                &labels,
                in_flight as f64,
            );
            scrape.histogram(
                "afs_peer_call_seconds",
                "Time from a call to another node to its answer.",
                &labels,
                &sum,
            );
        }
        drop(calls);
        let unreachable = self.unreachable();
        for node in self.peers.load().keys() {
            scrape.gauge(
                "afs_peer_reached",
                "1 unless another node is not reached, or not heard.",
                &[("node", &node.to_string())],
                u8::from(!unreachable.contains(node)).into(),
            );
        }
    }
}
