//! One replica on its node: what it takes from whom, what it promises, and what it remembers of writes that may not be on
//! all replicas.
//!
//! Invariants:
//! - Once an answer to a seal has left, nothing of a lower epoch is carried out, also after a restart: the promise is durable
//!   before the answer, and the changes of lower epochs that were at the disk have ended (DESIGN 5 rule 3).
//! - While a leader may believe in a lease, nobody else gets a promise (rule 4).
//! - `list` has every write of this process that is not known to be on all in-sync replicas. A process starts with an empty one
//!   and says so (`continuous` false) until it was made equal (rules 6, 7).

mod list;
mod state;

use std::sync::Arc;
use std::time::Duration;

use afs_decisions::NodeId;
use afs_env::{Answer, Buffer, BufferMut, BufferPool, Clock, Disk, HEADER_BYTES};
use afs_store::{Generation, Label, Replica, StoreError};

use crate::message::{
    Blocks, Body, CHUNK_BLOCKS_MAX, CHUNKS_MAX, Message, Outcome, Progress, SUMS_BYTES, SealReport,
    chunk_report_bytes, result_bytes, seal_report_bytes, tick_of,
};
use crate::mutant::{Mutant, planted};
use crate::params::Params;
use parking_lot::MutexGuard;
use state::{Refused, Shared, State};

/// Bytes of a block.
const BLOCK: usize = afs_env::BLOCK_BYTES as usize;

/// The part of a replica that all reactors of a process share.
#[derive(Clone)]
pub struct ReplicaState(Arc<Shared>);

impl ReplicaState {
    /// The state of a replica whose durable label is `label`, in a process of node `node` that starts at `now` of its clock.
    /// `fresh` says that it was made for its first leader and no leader had a promise before, so that it cannot have forgotten
    /// anything.
    ///
    /// The process before may have granted a lease shortly before it died. So nobody else gets a promise for the time of one,
    /// unless the holder was that process's own node: then the holder died with it.
    pub fn new(label: Label, fresh: bool, node: NodeId, now: u64, params: Params) -> ReplicaState {
        ReplicaState(Arc::new(Shared::new(label, fresh, node, now, params)))
    }

    /// Whether `other` is the same replica in the same life of its process.
    pub fn same_as(&self, other: &ReplicaState) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The highest epoch that it promised.
    pub fn promised(&self) -> u64 {
        self.0.lock().promised
    }

    /// Milliseconds since its leader was last heard, on this node's clock `now`; `None` if no leader holds a lease.
    pub fn lease_left(&self, now: u64) -> Option<u64> {
        let state = self.0.lock();
        (state.lease_until > now).then(|| (state.lease_until - now) / 1_000_000)
    }

    /// The node of the leader that has its promise, and how long ago it was heard, on this node's clock `now`; `None` before the
    /// first message of this process's life.
    pub fn leader_heard(&self, now: u64) -> Option<(NodeId, Duration)> {
        let state = self.0.lock();
        let heard = state.heard_at.filter(|_| state.sealed)?;
        Some((state::leader_node(&state.label), Duration::from_nanos(now.saturating_sub(heard))))
    }

    /// Writes that are not known to be on all in-sync replicas.
    pub fn uncommitted(&self) -> usize {
        self.0.lock().list.len()
    }
}

/// A replica on one reactor. It answers messages of leaders; a leader on the same node calls it the same way.
pub struct ReplicaServer<D: Disk, C: Clock> {
    shared: Arc<Shared>,
    store: Replica<D>,
    clock: C,
    pool: BufferPool,
}

impl<D: Disk, C: Clock> Clone for ReplicaServer<D, C> {
    fn clone(&self) -> Self {
        ReplicaServer {
            shared: self.shared.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            pool: self.pool.clone(),
        }
    }
}

/// An answer without data.
struct Reply {
    outcome: Outcome,
    extra: u32,
    data: Option<Buffer>,
}

impl From<Outcome> for Reply {
    fn from(outcome: Outcome) -> Self {
        Reply { outcome, extra: 0, data: None }
    }
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Self {
        Reply { outcome: refused.outcome, extra: refused.extra, data: None }
    }
}

impl From<StoreError> for Outcome {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::OutOfRange => Outcome::OutOfRange,
            StoreError::Full => Outcome::Full,
            StoreError::Media => Outcome::Media,
            StoreError::Stopped | StoreError::Deleted => Outcome::Stopped,
        }
    }
}

impl From<StoreError> for Reply {
    fn from(error: StoreError) -> Self {
        Outcome::from(error).into()
    }
}

impl<D: Disk, C: Clock> ReplicaServer<D, C> {
    /// The replica on the reactor whose handle to the store is `store`; answers take their buffers out of `pool`.
    pub fn new(state: &ReplicaState, store: Replica<D>, clock: C, pool: BufferPool) -> Self {
        ReplicaServer { shared: state.0.clone(), store, clock, pool }
    }

    /// Its milliseconds, as messages echo them.
    fn tick(&self) -> u32 {
        tick_of(self.clock.now())
    }

    /// Carries out one message. Once begun, it must be polled to its end: it may have a write at the disk.
    pub async fn handle(&self, header: &[u8; HEADER_BYTES], data: Option<Buffer>) -> Answer {
        let reply = match Message::decode(header) {
            Some(message) => self.serve(&message, data).await.unwrap_or_else(|refused| refused),
            None => Outcome::Malformed.into(),
        };
        let Reply { outcome, extra, data } = reply;
        Answer { status: outcome as u8, result: result_bytes(self.tick(), extra), data }
    }

    async fn serve(&self, message: &Message, data: Option<Buffer>) -> Result<Reply, Reply> {
        let epoch = message.epoch;
        if !matches!(message.body, Body::Write(..)) && data.is_some() {
            return Err(Outcome::Malformed.into());
        }
        match message.body {
            Body::Seal { reign, process, node } => self.seal(epoch, reign, process, node).await,
            Body::Write(at, progress, generation) => {
                let data = data.ok_or(Outcome::Malformed)?;
                if data.len() != at.blocks as usize * BLOCK {
                    return Err(Outcome::Malformed.into());
                }
                self.fresh(message)?;
                let _change = self.begin(epoch, at, progress, generation)?;
                self.store.write(at.lba.into(), data).await?;
                Ok(Outcome::Done.into())
            }
            Body::Clear(at, progress, generation, deallocate) => {
                self.fresh(message)?;
                let _change = self.begin(epoch, at, progress, generation)?;
                if deallocate {
                    self.store.deallocate(at.lba.into(), at.blocks.into()).await?;
                } else {
                    self.store.write_zeroes(at.lba.into(), at.blocks, false).await?;
                }
                Ok(Outcome::Done.into())
            }
            Body::Heartbeat(progress) => {
                let now = self.clock.now();
                self.shared.lock().heard(epoch, progress, now, &self.shared.params)?;
                Ok(Outcome::Done.into())
            }
            Body::Release => {
                self.shared.lock().release(epoch)?;
                Ok(Outcome::Done.into())
            }
            Body::Settle { reign } => {
                self.accept(epoch)?.settle(reign);
                Ok(Outcome::Done.into())
            }
            Body::Whole => self.whole(epoch).await,
            Body::Commit(generation) => self.commit(epoch, generation).await,
            Body::Read(at) => self.read(epoch, at).await,
            Body::Chunks { after, from, count } => self.chunks(epoch, after, from, count),
            Body::Sums { chunk } => self.sums(epoch, chunk).await,
        }
    }

    /// Whether a message of `epoch` is to be carried out; then it renews the lease.
    fn accept(&self, epoch: u64) -> Result<MutexGuard<'_, State>, Refused> {
        let mut state = self.shared.lock();
        state.accept(epoch, self.clock.now(), &self.shared.params)?;
        Ok(state)
    }

    /// DESIGN 5 rule 10: a change that was under way for too long is refused.
    fn fresh(&self, message: &Message) -> Result<(), Outcome> {
        let fresh = self.shared.params.is_fresh(self.clock.now(), message.tick);
        if !fresh && !planted(Mutant::IgnoreTick) {
            return Err(Outcome::TooOld);
        }
        Ok(())
    }

    /// Notes a change before it goes to the disk.
    fn begin(
        &self,
        epoch: u64,
        at: Blocks,
        progress: Progress,
        generation: u32,
    ) -> Result<state::Change<'_>, Refused> {
        let now = self.clock.now();
        let change = self.shared.begin(epoch, at, progress, now)?;
        self.store.set_generation(Generation { epoch, number: generation.into() });
        Ok(change)
    }

    async fn seal(&self, epoch: u64, reign: u64, process: u64, node: u32) -> Result<Reply, Reply> {
        let shared = &self.shared;
        shared.lock().promise(epoch, reign, process, self.clock.now())?;
        if !planted(Mutant::PromiseInMemory) {
            self.make_promise_durable(epoch, process, node).await?;
        }
        if !planted(Mutant::SealWithoutDrain) {
            shared.drained().await;
        }
        let report = {
            let mut state = shared.lock();
            // Another leader may have been quicker while the disk was at work.
            state.check_promise(epoch, process)?;
            state.sealed = true;
            state.grant(self.clock.now(), &shared.params);
            let (first, whole) = state::first_and_whole(&state.label);
            SealReport {
                continuous: state.continuous || planted(Mutant::RestartKeepsList),
                committed: state.label.committed,
                first,
                whole,
                blocks: self.store.blocks(),
                chunk_blocks: self.store.chunk_blocks(),
                entries: state.list.entries().to_vec(),
            }
        };
        let mut buffer = self.buffer(seal_report_bytes(report.entries.len()))?;
        report.encode(&mut buffer).ok_or(Outcome::NoMemory)?;
        Ok(with_data(buffer))
    }

    /// One label at a time, and never one that goes back.
    async fn make_promise_durable(&self, epoch: u64, process: u64, node: u32) -> Result<(), Reply> {
        let _one = self.shared.labels.lock().await;
        let label = {
            let state = self.shared.lock();
            state.check_promise(epoch, process)?;
            if state.label.promised == epoch && state.label.promised_to == process {
                return Ok(());
            }
            state::promise_label(&state.label, epoch, process, node)
        };
        self.store.set_label(label).await?;
        self.shared.lock().label = label;
        Ok(())
    }

    /// Notes for good that it has everything; a record that is made anew does not know it.
    async fn whole(&self, epoch: u64) -> Result<Reply, Reply> {
        let _one = self.shared.labels.lock().await;
        let label = {
            let state = self.accept(epoch)?;
            if state::first_and_whole(&state.label).1 != 0 {
                return Ok(Outcome::Done.into());
            }
            state::whole_label(&state.label, epoch)
        };
        self.store.set_label(label).await?;
        self.shared.lock().label = label;
        Ok(Outcome::Done.into())
    }

    async fn commit(&self, epoch: u64, generation: Generation) -> Result<Reply, Reply> {
        let _one = self.shared.labels.lock().await;
        let label = {
            let state = self.accept(epoch)?;
            if state.label.committed >= generation {
                return Ok(Outcome::Done.into());
            }
            Label { committed: generation, ..state.label }
        };
        self.store.set_label(label).await?;
        self.shared.lock().label = label;
        Ok(Outcome::Done.into())
    }

    async fn read(&self, epoch: u64, at: Blocks) -> Result<Reply, Reply> {
        drop(self.accept(epoch)?);
        let bytes = (at.blocks as usize).checked_mul(BLOCK).ok_or(Outcome::Malformed)?;
        let buffer = self.buffer(bytes)?;
        let (buffer, result) = self.store.read(at.lba.into(), buffer).await;
        result?;
        drop(self.accept(epoch)?);
        Ok(with_data(buffer))
    }

    /// Reads into the caller's buffer, for a leader on the same node. The caller looks after epoch and lease.
    pub(crate) async fn read_into(
        &self,
        at: Blocks,
        buffer: BufferMut,
    ) -> (BufferMut, Result<(), Outcome>) {
        let (buffer, result) = self.store.read(at.lba.into(), buffer).await;
        (buffer, result.map_err(Outcome::from))
    }

    fn chunks(&self, epoch: u64, after: Generation, from: u32, count: u32) -> Result<Reply, Reply> {
        drop(self.accept(epoch)?);
        if count == 0 || count > CHUNKS_MAX || from.checked_add(count).is_none() {
            return Err(Outcome::Malformed.into());
        }
        let mut buffer = self.buffer(chunk_report_bytes(count))?;
        buffer.fill(0);
        let half = buffer.len() / 2;
        let (allocated, stamped) = buffer.split_at_mut(half);
        for (byte, map) in allocated.iter_mut().zip(self.store.allocated_map(from, count)) {
            *byte = map;
        }
        for chunk in self.store.chunks_since(after, from, count as usize) {
            let Some(bit) = chunk.checked_sub(from).filter(|bit| *bit < count) else { continue };
            if let Some(byte) = stamped.get_mut((bit / 8) as usize) {
                *byte |= 1 << (bit % 8);
            }
        }
        Ok(with_data(buffer))
    }

    async fn sums(&self, epoch: u64, chunk: u32) -> Result<Reply, Reply> {
        drop(self.accept(epoch)?);
        let scratch = self.buffer(CHUNK_BLOCKS_MAX * BLOCK)?;
        let mut buffer = self.buffer(SUMS_BYTES)?;
        let (mask, sums, _scratch) = self.store.checksums(chunk, scratch).await?;
        drop(self.accept(epoch)?);
        let (head, rest) = buffer.split_at_mut(8);
        head.copy_from_slice(&mask.to_le_bytes());
        for (place, sum) in rest.chunks_exact_mut(16).zip(sums) {
            place.copy_from_slice(&sum.0);
        }
        Ok(with_data(buffer))
    }

    /// A buffer for an answer. It does not wait: whoever asks can ask again.
    fn buffer(&self, bytes: usize) -> Result<BufferMut, Outcome> {
        if bytes == 0 || bytes > afs_env::MAX_BUFFER_BYTES {
            return Err(Outcome::Malformed);
        }
        self.pool.try_alloc(bytes).ok_or(Outcome::NoMemory)
    }
}

fn with_data(buffer: BufferMut) -> Reply {
    Reply { outcome: Outcome::Done, extra: 0, data: Some(buffer.freeze()) }
}
