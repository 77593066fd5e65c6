//! The journal's half of the background task, on the disk's home reactor: one loop writes what is
//! staged, one syncs what is written, applies it to memory and wakes those who wait. They run side
//! by side, so a sync covers all writes that ended meanwhile, and the next group of records leaves
//! while the last one is being synced.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use afs_env::{Buffer, BufferMut, Disk, DiskError};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::block::JournalBlock;
use super::staging::Group;
use crate::apply::When;
use crate::format::BLOCK;
use crate::state::Shared;
use crate::stats::StopReason;
use crate::waiters::Key;

/// Bytes of one journal write at most.
pub(crate) const GROUP_BYTES: usize = 64 << 10;
/// Journal writes under way (or written and not yet applied) at most.
pub(crate) const GROUPS: usize = 6;

/// Groups that were taken, oldest first, with their bytes until they are applied.
struct InFlight {
    group: Group,
    bytes: Buffer,
    written: bool,
}

/// The journal's writer. Exactly one runs per open disk.
pub(crate) struct Writer<'a, D> {
    shared: &'a Shared,
    disk: &'a D,
    spare: RefCell<Vec<BufferMut>>,
    in_flight: RefCell<VecDeque<InFlight>>,
}

impl<'a, D: Disk> Writer<'a, D> {
    pub(crate) fn new(shared: &'a Shared, disk: &'a D, buffers: Vec<BufferMut>) -> Self {
        Self { shared, disk, spare: RefCell::new(buffers), in_flight: RefCell::default() }
    }

    /// Writes groups until the disk stops.
    pub(crate) async fn write_loop(&self) {
        let mut writes = FuturesUnordered::new();
        loop {
            if !self.shared.is_stopped() {
                while let Some((group, bytes)) = self.take() {
                    writes.push(self.write_group(group, bytes));
                }
            } else if writes.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some(()) = writes.next(), if !writes.is_empty() => {}
                () = self.shared.write_kick.notified() => {}
            }
        }
    }

    fn take(&self) -> Option<(Group, Buffer)> {
        let mut buffer = self.spare.borrow_mut().pop()?;
        let Some(group) = self.shared.meta.lock().staging.take(&mut buffer) else {
            self.spare.borrow_mut().push(buffer);
            return None;
        };
        let bytes = buffer.freeze();
        self.in_flight.borrow_mut().push_back(InFlight {
            group,
            bytes: bytes.clone(),
            written: false,
        });
        // The staging area has room again.
        self.shared.meta.lock().waiters.wake(|key| key == Key::JournalRoom);
        Some((group, bytes))
    }

    async fn write_group(&self, group: Group, bytes: Buffer) {
        let offset = self.shared.geometry.journal_position(group.first);
        let data = bytes.slice(0..group.blocks * BLOCK);
        let mut result = self.disk.write(offset, data.clone()).await;
        if result.is_err() {
            self.shared.count_failed_write();
            result = self.disk.write(offset, data).await;
        }
        self.shared.counters.journal_writes.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.journal_blocks.fetch_add(group.blocks as u64, Ordering::Relaxed);
        match result {
            Ok(()) => self.written(group),
            Err(_) => self.shared.count_failed_write(),
        }
    }

    fn written(&self, done: Group) {
        let mut in_flight = self.in_flight.borrow_mut();
        let mut prefix = None;
        let mut unbroken = true;
        for entry in in_flight.iter_mut() {
            entry.written |= entry.group.first == done.first;
            unbroken &= entry.written;
            if unbroken {
                prefix = Some(entry.group.first + entry.group.blocks as u64);
            }
        }
        drop(in_flight);
        if let Some(prefix) = prefix {
            self.shared.meta.lock().staging.set_written(prefix);
            self.shared.sync_kick.notify_one();
        }
    }

    /// Syncs and applies until the disk stops.
    pub(crate) async fn sync_loop(&self) {
        while !self.shared.is_stopped() {
            let (target, durable) = {
                let staging = &self.shared.meta.lock().staging;
                (staging.sync_target(), staging.durable())
            };
            if target == durable {
                self.shared.sync_kick.notified().await;
                continue;
            }
            self.shared.counters.journal_syncs.fetch_add(1, Ordering::Relaxed);
            if self.sync().await.is_err() {
                self.shared.stop(StopReason::SyncFailed);
                return;
            }
            if !self.apply(durable, target) {
                self.shared.stop(StopReason::BackgroundEnded);
                return;
            }
            self.recycle(target);
        }
    }

    async fn sync(&self) -> Result<(), DiskError> {
        self.disk.sync().await
    }

    /// Applies the blocks from `durable` to `target`, and lets those who waited go on.
    fn apply(&self, durable: u64, target: u64) -> bool {
        let in_flight = self.in_flight.borrow();
        let seed = self.shared.geometry.seed;
        let mut meta = self.shared.meta.lock();
        let mut barrier = 0;
        let mut payload = 0;
        for entry in in_flight.iter() {
            for (at, bytes) in (entry.group.first..).zip(entry.bytes.chunks_exact(BLOCK)) {
                let end = entry.group.first + entry.group.blocks as u64;
                if at < durable || at >= target.min(end) {
                    continue;
                }
                if payload > 0 {
                    payload -= 1;
                    continue;
                }
                let Some(block) = JournalBlock::read(bytes, seed) else { return false };
                let records = block.used_records();
                if self.shared.apply_all(&mut meta, at, records, When::Live).is_err() {
                    return false;
                }
                payload = block.payload.get();
                barrier = block.durable.get();
            }
        }
        meta.staging.set_durable(target);
        self.shared.barrier.fetch_max(barrier, Ordering::AcqRel);
        let barrier = self.shared.barrier.load(Ordering::Acquire);
        meta.waiters.wake(|key| match key {
            Key::Durable(sequence) => sequence < target,
            Key::Barrier(wanted) => wanted <= barrier,
            _ => false,
        });
        true
    }

    /// Takes back the buffers of groups that are wholly applied.
    fn recycle(&self, target: u64) {
        let mut in_flight = self.in_flight.borrow_mut();
        while let Some(entry) = in_flight.front() {
            if entry.group.first + entry.group.blocks as u64 > target {
                return;
            }
            let Some(entry) = in_flight.pop_front() else { return };
            match entry.bytes.try_into_mut() {
                Ok(buffer) => self.spare.borrow_mut().push(buffer),
                Err(_) => self.shared.stop(StopReason::BackgroundEnded),
            }
            self.shared.write_kick.notify_one();
        }
    }
}
