//! Figures about one open disk, readable from any thread.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::ReplicaId;
use crate::state::Shared;

/// Why a disk does not serve any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Two writes failed.
    WritesFailed,
    /// A sync failed: what is on the disk is unknown.
    SyncFailed,
    /// A write's future was dropped while the disk was at work: it could land after a later one.
    WriteAbandoned,
    /// The background task ended.
    BackgroundEnded,
    /// It was closed in good order.
    Closed,
}

impl StopReason {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::WritesFailed => 1,
            Self::SyncFailed => 2,
            Self::WriteAbandoned => 3,
            Self::BackgroundEnded => 4,
            Self::Closed => 5,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::WritesFailed,
            2 => Self::SyncFailed,
            3 => Self::WriteAbandoned,
            4 => Self::BackgroundEnded,
            5 => Self::Closed,
            _ => return None,
        })
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WritesFailed => "two writes failed",
            Self::SyncFailed => "a sync failed",
            Self::WriteAbandoned => "a write was dropped before its disk I/O ended",
            Self::BackgroundEnded => "the journal's task ended",
            Self::Closed => "closed",
        })
    }
}

/// Counters that any reactor adds to.
#[derive(Default)]
pub(crate) struct Counters {
    pub journal_records: AtomicU64,
    pub journal_writes: AtomicU64,
    pub journal_blocks: AtomicU64,
    pub journal_syncs: AtomicU64,
    pub journal_waits: AtomicU64,
    pub barriers: AtomicU64,
    pub checkpoints: AtomicU64,
    pub checkpoint_pages: AtomicU64,
    pub first_writes: AtomicU64,
    pub overwrites: AtomicU64,
    pub stamps: AtomicU64,
    pub clears: AtomicU64,
}

/// A snapshot of one disk's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreStats {
    /// Chunks for data.
    pub chunks_total: u64,
    /// Chunks that a write can take now.
    pub chunks_free: u64,
    /// Bytes for data.
    pub bytes_total: u64,
    /// Bytes that writes can take now.
    pub bytes_free: u64,
    /// Bytes of journal that a replay would read now.
    pub journal_used: u64,
    /// Bytes of the journal.
    pub journal_size: u64,
    /// Records written since open.
    pub journal_records: u64,
    /// Writes to the journal since open (each has one or more records, or is a barrier).
    pub journal_writes: u64,
    /// Journal blocks written since open.
    pub journal_blocks: u64,
    /// Syncs that the journal asked for since open.
    pub journal_syncs: u64,
    /// How often a record found no room and waited.
    pub journal_waits: u64,
    /// Overwrites that waited for a barrier.
    pub barriers: u64,
    /// Checkpoints since open.
    pub checkpoints: u64,
    /// Table pages that they wrote.
    pub checkpoint_pages: u64,
    /// Pieces (of at most a chunk) written with a journal record.
    pub first_writes: u64,
    /// Pieces overwritten in place.
    pub overwrites: u64,
    /// Generation stamps.
    pub stamps: u64,
    /// Pieces trimmed or zeroed.
    pub clears: u64,
    /// Generations that are kept in memory, because chunks may have their stamps.
    pub generations: u64,
    /// Writes that failed since open.
    pub failed_writes: u64,
    /// Whether the disk serves no more, for whatever reason.
    pub stopped: bool,
    /// The reason.
    pub stop_reason: Option<StopReason>,
}

/// One replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// Its identity.
    pub id: ReplicaId,
    /// Its size in blocks of 4096 bytes.
    pub blocks: u64,
    /// Bytes of the chunks that it has.
    pub allocated_bytes: u64,
}

impl Shared {
    pub(crate) fn stats(&self) -> StoreStats {
        let meta = self.meta.lock();
        let c = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let chunk = u64::from(self.geometry.chunk_bytes);
        let total = u64::from(self.geometry.chunks);
        let free = u64::from(meta.free);
        StoreStats {
            chunks_total: total,
            chunks_free: free,
            bytes_total: total * chunk,
            bytes_free: free * chunk,
            journal_used: meta.staging.used() * 4096,
            journal_size: self.geometry.journal_blocks * 4096,
            journal_records: get(&c.journal_records),
            journal_writes: get(&c.journal_writes),
            journal_blocks: get(&c.journal_blocks),
            journal_syncs: get(&c.journal_syncs),
            journal_waits: get(&c.journal_waits),
            barriers: get(&c.barriers),
            checkpoints: get(&c.checkpoints),
            checkpoint_pages: get(&c.checkpoint_pages),
            first_writes: get(&c.first_writes),
            overwrites: get(&c.overwrites),
            stamps: get(&c.stamps),
            clears: get(&c.clears),
            generations: meta.generations.len() as u64,
            failed_writes: u64::from(meta.failed_writes),
            stopped: self.is_stopped(),
            stop_reason: self.stop_reason(),
        }
    }

    pub(crate) fn replica_infos(&self) -> Vec<ReplicaInfo> {
        let meta = self.meta.lock();
        let live = meta.replicas.values().filter(|layer| layer.state() == crate::state::LIVE);
        let mut infos: Vec<_> = live
            .map(|layer| ReplicaInfo {
                id: layer.replica,
                blocks: layer.blocks.load(Ordering::Acquire),
                allocated_bytes: u64::from(layer.allocated.load(Ordering::Relaxed))
                    * u64::from(self.geometry.chunk_bytes),
            })
            .collect();
        infos.sort_by_key(|info| info.id);
        infos
    }
}
