//! What `/metrics` shows of each disk.

use super::{Body, DiskSet, StoreDisk};
use crate::metrics::Source;
use crate::metrics::export::{Exposition, Labels};

impl Source for DiskSet {
    fn collect(&self, scrape: &mut Exposition) {
        for disk in self.iter() {
            let (uuid, path) = (disk.uuid().to_string(), disk.spec().to_string());
            let labels = [("disk", uuid.as_str()), ("path", path.as_str())];
            let online = match &disk.body {
                Body::Null(null) => {
                    collect_space(scrape, &labels, null.bytes(), null.bytes());
                    true
                }
                Body::Failed(_) => false,
                Body::Store(store) => collect_store(scrape, &labels, store),
            };
            scrape.gauge(
                "afs_disk_online",
                "1 while the disk serves, 0 once it failed or was stopped.",
                &labels,
                f64::from(u8::from(online)),
            );
        }
    }
}

fn collect_space(scrape: &mut Exposition, labels: Labels<'_>, total: u64, free: u64) {
    scrape.gauge("afs_disk_size_bytes", "Bytes that volumes can use in all.", labels, total as f64);
    scrape.gauge(
        "afs_disk_free_bytes",
        "Bytes not yet allocated to a volume.",
        labels,
        free as f64,
    );
}

/// Returns whether the disk serves.
fn collect_store(scrape: &mut Exposition, labels: Labels<'_>, store: &StoreDisk) -> bool {
    let stats = store.stats();
    collect_space(scrape, labels, stats.bytes_total, stats.bytes_free);
    let gauges = [
        ("afs_disk_chunks", "Chunks for data.", stats.chunks_total),
        ("afs_disk_free_chunks", "Chunks not yet allocated to a volume.", stats.chunks_free),
        ("afs_disk_journal_size_bytes", "Size of the journal.", stats.journal_size),
        (
            "afs_disk_journal_used_bytes",
            "Bytes of the journal that a start after a crash would replay now.",
            stats.journal_used,
        ),
    ];
    for (name, help, value) in gauges {
        scrape.gauge(name, help, labels, value as f64);
    }
    let counters = [
        (
            "afs_disk_journal_records_total",
            "Records written to the journal.",
            stats.journal_records,
        ),
        (
            "afs_disk_journal_writes_total",
            "Writes to the journal; each carries one or more records.",
            stats.journal_writes,
        ),
        ("afs_disk_journal_syncs_total", "Syncs that the journal asked for.", stats.journal_syncs),
        (
            "afs_disk_journal_waits_total",
            "Records that found the journal full and waited.",
            stats.journal_waits,
        ),
        ("afs_disk_checkpoints_total", "Checkpoints of the chunk table.", stats.checkpoints),
        (
            "afs_disk_first_writes_total",
            "Pieces of at most a chunk that were written with a journal record.",
            stats.first_writes,
        ),
        (
            "afs_disk_overwrites_total",
            "Pieces of at most a chunk that were overwritten in place.",
            stats.overwrites,
        ),
        (
            "afs_disk_clears_total",
            "Pieces of at most a chunk that were trimmed or zeroed.",
            stats.clears,
        ),
        ("afs_disk_failed_writes_total", "Writes that the disk failed.", stats.failed_writes),
    ];
    for (name, help, value) in counters {
        scrape.counter(name, help, labels, value);
    }
    !stats.stopped
}
