//! The memory of a replica: promise, lease, list. Held under one short lock, never over an await.

use std::sync::atomic::{AtomicUsize, Ordering};

use afs_decisions::NodeId;
use afs_store::Label;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::list::UncommittedList;
use crate::message::{Blocks, Entry, Outcome, Progress};
use crate::mutant::{Mutant, planted};
use crate::params::{Params, nanos};

/// Why a message was not carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) outcome: Outcome,
    pub(super) extra: u32,
}

impl From<Outcome> for Refused {
    fn from(outcome: Outcome) -> Self {
        Refused { outcome, extra: 0 }
    }
}

pub(super) struct State {
    /// Highest epoch that was promised, and to which process.
    pub(super) promised: u64,
    process: u64,
    reign: u64,
    /// The promise is durable and the leader knows it.
    pub(super) sealed: bool,
    /// Until when `process` may believe in its lease, in nanoseconds of this node's clock.
    pub(super) lease_until: u64,
    /// When the leader was last heard.
    pub(super) heard_at: Option<u64>,
    pub(super) continuous: bool,
    pub(super) list: UncommittedList,
    /// What is durable.
    pub(super) label: Label,
}

/// See [`super::ReplicaState`].
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) params: Params,
    /// Who writes the label.
    pub(super) labels: tokio::sync::Mutex<()>,
    /// Changes that are at the disk.
    changes: AtomicUsize,
    ended: Notify,
}

/// A change at the disk.
pub(super) struct Change<'a>(&'a Shared);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if self.0.changes.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

/// What a label's opaque bytes hold.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Marks {
    /// The node of the leader that has the promise.
    node: U32,
    zero: U32,
    /// See [`crate::message::SealReport`].
    first: U64,
    whole: U64,
    rest: U64,
}

const _: () = assert!(size_of::<Marks>() == size_of::<[u8; 32]>());

fn marks(label: &Label) -> Marks {
    zerocopy::transmute!(label.state)
}

/// The label after a promise.
pub(super) fn promise_label(label: &Label, epoch: u64, process: u64, node: u32) -> Label {
    let mut marks = marks(label);
    marks.node = node.into();
    if label.promised == 0 {
        marks.first = epoch.into();
    }
    let state = zerocopy::transmute!(marks);
    Label { promised: epoch, promised_to: process, state, ..*label }
}

/// The label of a replica that a leader called whole in `epoch`.
pub(super) fn whole_label(label: &Label, epoch: u64) -> Label {
    let marks = Marks { whole: epoch.into(), ..marks(label) };
    Label { state: zerocopy::transmute!(marks), ..*label }
}

/// The first epoch that was promised, and the one in which the replica was called whole (0: never).
pub(super) fn first_and_whole(label: &Label) -> (u64, u64) {
    let marks = marks(label);
    (marks.first.get(), marks.whole.get())
}

/// The node of the leader that a label's promise was given to.
pub(super) fn leader_node(label: &Label) -> NodeId {
    NodeId(marks(label).node.get())
}

impl Shared {
    pub(super) fn new(label: Label, fresh: bool, node: NodeId, now: u64, params: Params) -> Shared {
        let died_with_us = label.promised == 0 || leader_node(&label) == node;
        let lease_until = if died_with_us { 0 } else { now.saturating_add(nanos(params.lease)) };
        let state = State {
            promised: label.promised,
            process: label.promised_to,
            reign: 0,
            sealed: false,
            lease_until,
            heard_at: None,
            continuous: fresh && label.promised == 0,
            list: UncommittedList::new(2 * params.window),
            label,
        };
        Shared {
            state: Mutex::new(state),
            params,
            labels: tokio::sync::Mutex::new(()),
            changes: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Notes a change. From here on a seal waits for it and tells of it.
    pub(super) fn begin(
        &self,
        epoch: u64,
        at: Blocks,
        progress: Progress,
        now: u64,
    ) -> Result<Change<'_>, Refused> {
        let mut state = self.lock();
        state.heard(epoch, progress, now, &self.params)?;
        let entry = Entry::new(state.reign, progress.sequence, at);
        if !state.list.add(entry) {
            return Err(Outcome::ListFull.into());
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
        Ok(Change(self))
    }

    /// Waits until no change is at the disk. With a promise given, none of a lower epoch begins any more.
    pub(super) async fn drained(&self) {
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            if self.changes.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl State {
    /// Gives a promise in memory.
    pub(super) fn promise(
        &mut self,
        epoch: u64,
        reign: u64,
        process: u64,
        now: u64,
    ) -> Result<(), Refused> {
        if epoch < self.promised || (epoch == self.promised && process != self.process) {
            return Err(Outcome::Stale.into());
        }
        if epoch == self.promised {
            self.reign = reign;
            return Ok(());
        }
        let others = self.lease_until > now && self.process != process;
        if others && !planted(Mutant::PromiseUnderLease) {
            let left = (self.lease_until - now).div_ceil(1_000_000);
            let extra = u32::try_from(left).unwrap_or(u32::MAX);
            return Err(Refused { outcome: Outcome::LeaseHeld, extra });
        }
        (self.promised, self.process, self.reign, self.sealed) = (epoch, process, reign, false);
        Ok(())
    }

    pub(super) fn check_promise(&self, epoch: u64, process: u64) -> Result<(), Refused> {
        let kept = self.promised == epoch && self.process == process;
        kept.then_some(()).ok_or(Outcome::Stale.into())
    }

    /// Whether a message of `epoch` is to be carried out.
    pub(super) fn current(&self, epoch: u64) -> Result<(), Refused> {
        if epoch < self.promised && !planted(Mutant::AcceptOldEpoch) {
            return Err(Outcome::Stale.into());
        }
        if epoch > self.promised || !self.sealed {
            return Err(Outcome::NotSealed.into());
        }
        Ok(())
    }

    /// A message of the leader arrived that is to be carried out. Each renews the lease, since the leader takes each success for
    /// that.
    pub(super) fn accept(&mut self, epoch: u64, now: u64, params: &Params) -> Result<(), Refused> {
        self.current(epoch)?;
        self.grant(now, params);
        Ok(())
    }

    /// A message arrived that says how far the reign is: the watermark is taken.
    pub(super) fn heard(
        &mut self,
        epoch: u64,
        progress: Progress,
        now: u64,
        params: &Params,
    ) -> Result<(), Refused> {
        self.accept(epoch, now, params)?;
        self.list.committed(self.reign, progress.watermark());
        Ok(())
    }

    pub(super) fn grant(&mut self, now: u64, params: &Params) {
        self.lease_until = self.lease_until.max(now.saturating_add(nanos(params.lease)));
        self.heard_at = Some(now);
    }

    /// The leader gives its lease back, and with it this epoch.
    pub(super) fn release(&mut self, epoch: u64) -> Result<(), Refused> {
        self.current(epoch)?;
        self.lease_until = 0;
        self.sealed = false;
        Ok(())
    }

    pub(super) fn settle(&mut self, reign: u64) {
        self.list.settled(reign);
        self.continuous = true;
    }
}
