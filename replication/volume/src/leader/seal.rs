//! Taking the replicas' promises, and finding out what may differ among them.
//!
//! Invariant: when sealing ends well, every in-sync replica of every shard has promised this epoch, and everything in which two
//! of a shard may differ is pending: what any of them lists of earlier reigns, and, if one lost its list in a restart, every chunk
//! stamped after what all of them know to be committed, or allocated on some only (DESIGN 5 rules 3, 6, 7). None of them lost what it
//! had (see [`super::blank`]).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use afs_decisions::NodeId;
use afs_store::Generation;
use futures_util::future::join_all;
use uuid::Uuid;

use super::call::CallError;
use super::view::{Member, Mode, View};
use super::{Host, Leader};
use crate::message::{
    Body, CHUNKS_MAX, Outcome, SealReport, chunk_report_bytes, seal_report_bytes,
};
use crate::mutant::{Mutant, planted};
use crate::params::nanos;

/// Between two attempts to reach replicas that did not promise, at most.
const AGAIN: Duration = Duration::from_millis(50);
/// The first pause while another leader holds a lease. Its end is known, but in a planned move it is given back long before.
const LEASE_HELD: Duration = Duration::from_millis(2);

/// How sealing ended.
pub(super) enum Sealed {
    /// All have promised.
    All,
    /// Somebody knows a newer configuration, or the leader shall leave.
    LookAgain,
    /// All have promised, and those that are new know now that they count: the volume begins in the next epoch.
    Young,
    /// This replica of this shard does not promise, or lost what it had; these nodes do not answer.
    Missing(usize, Uuid, Vec<NodeId>),
}

pub(super) type Reports = BTreeMap<(usize, usize), SealReport>;

impl<H: Host> Leader<H> {
    pub(super) async fn seal(&self, view: &Arc<View>) -> Sealed {
        let started = self.now();
        let mut reports = Reports::new();
        let mut held = LEASE_HELD;
        self.seal_learners(view).await;
        loop {
            let mut wait = AGAIN;
            let (mut missing, mut unheard) = (None, Vec::new());
            for (shard, index, member, result) in self.seal_rest(view, &reports).await {
                match result {
                    Ok(report) => {
                        reports.insert((shard, index), report);
                    }
                    Err(CallError::Refused(Outcome::Stale, _)) => return Sealed::LookAgain,
                    Err(CallError::Refused(Outcome::LeaseHeld, left)) => {
                        let left = Duration::from_millis(left.into()).max(LEASE_HELD);
                        wait = wait.min(held).min(left);
                    }
                    Err(error) => {
                        missing = missing.or(Some((shard, member.replica)));
                        if matches!(error, CallError::Unreachable | CallError::Lost) {
                            unheard.push(member.node);
                        }
                    }
                }
            }
            let shards = view.shards.len();
            let complete = (0..shards).all(|shard| {
                let mut members = view.in_sync(shard).map(|(index, _)| (shard, index));
                if planted(Mutant::ServeAfterOnePromise) {
                    return members.any(|key| reports.contains_key(&key));
                }
                members.all(|key| reports.contains_key(&key))
            });
            let lost = complete.then(|| self.lost(view, &reports)).flatten();
            if let Some(((shard, index), replica)) = lost {
                reports.remove(&(shard, index));
                missing = missing.or(Some((shard, replica)));
            } else if complete {
                if reports.values().any(|report| report.whole == 0) {
                    if self.call_whole(view, &reports).await {
                        return Sealed::Young;
                    }
                } else if self.find_differences(view, &reports).await {
                    self.shared().unsettled.lock().extend(0..shards);
                    return Sealed::All;
                }
                // One that has promised may have been restarted since: all are asked again.
                reports.clear();
            }
            if let Some((shard, replica)) = missing {
                let patience = self.seal_patience(view, shard, &reports, &unheard);
                if self.now().saturating_sub(started) > nanos(patience) {
                    return Sealed::Missing(shard, replica, unheard);
                }
            }
            if self.must_look() {
                return Sealed::LookAgain;
            }
            held = (held * 2).min(AGAIN);
            let trouble = self.shared().trouble.notified();
            if self.either(trouble, self.pause(wait)).await.is_some() && self.must_look() {
                return Sealed::LookAgain;
            }
        }
    }

    /// How long a replica that does not promise is waited for.
    fn seal_patience(
        &self,
        view: &View,
        shard: usize,
        reports: &Reports,
        unheard: &[NodeId],
    ) -> Duration {
        let params = &self.shared().params;
        let mut answered = reports.iter().filter(|((of, _), _)| *of == shard);
        if answered.all(|(_, report)| !report.continuous) {
            // If all that answered were restarted, the others may be on their way too.
            return params.restart_grace;
        }
        // With nothing failed the others are there; who hears none of several others is taken for cut off, if it says so while they
        // live (DESIGN 5 rule 2); and where no replica may be dropped, to say so gains nothing. In all of these it is more likely
        // that the ways to the others are still being made.
        let futile = self.hears_nobody(view, unheard)
            || view.in_sync(shard).count() <= usize::from(view.config.min_in_sync);
        if view.config.planned || futile { params.settle } else { params.seal }
    }

    /// Whether this node hears none of at least two others that have to promise.
    fn hears_nobody(&self, view: &View, unheard: &[NodeId]) -> bool {
        let all = (0..view.shards.len()).flat_map(|shard| view.in_sync(shard));
        let others = self.other_nodes(all.map(|(_, member)| &**member));
        others.len() > 1 && others.iter().all(|node| unheard.contains(node))
    }

    pub(super) fn must_look(&self) -> bool {
        let shared = self.shared();
        shared.leaving.load(Ordering::Acquire)
            || shared.outdated.load(Ordering::Acquire)
            || shared.offer.lock().is_some()
    }

    /// Asks all in-sync replicas that have not promised yet.
    async fn seal_rest(
        &self,
        view: &Arc<View>,
        reports: &Reports,
    ) -> Vec<(usize, usize, Arc<Member>, Result<SealReport, CallError>)> {
        let mut calls = Vec::new();
        for shard in 0..view.shards.len() {
            for (index, member) in view.in_sync(shard) {
                if !reports.contains_key(&(shard, index)) {
                    let member = member.clone();
                    calls.push(async move {
                        let result = self.seal_one(view, shard, index, &member).await;
                        (shard, index, member, result)
                    });
                }
            }
        }
        join_all(calls).await
    }

    /// Learners that get writes must promise too; one that does not is no learner any more.
    async fn seal_learners(&self, view: &Arc<View>) {
        for (shard, members) in view.shards.iter().enumerate() {
            for (index, member) in members.iter().enumerate() {
                if !matches!(member.mode(), Mode::Live | Mode::Required) {
                    continue;
                }
                if self.seal_one(view, shard, index, member).await.is_err() {
                    member.failed.store(true, Ordering::Release);
                    member.set_mode(Mode::Away);
                }
            }
        }
    }

    /// One attempt to get one promise.
    pub(super) async fn seal_one(
        &self,
        view: &View,
        shard: usize,
        index: usize,
        member: &Member,
    ) -> Result<SealReport, CallError> {
        let shared = self.shared();
        let body =
            Body::Seal { reign: view.config.reign, process: shared.process, node: shared.node.0 };
        let ports = self.ports(view, shard);
        let port = ports.get(index).ok_or(CallError::Unreachable)?;
        let most = seal_report_bytes(2 * shared.params.window);
        let answer = self.call(port, member, view.epoch(), body, None, most).await?;
        let malformed = CallError::Refused(Outcome::Malformed, 0);
        let report = answer.and_then(|data| SealReport::decode(&data)).ok_or(malformed)?;
        let known = shared.chunk_blocks.load(Ordering::Acquire);
        if known != 0 && known != report.chunk_blocks {
            tracing::error!(replica = %member.replica, chunk_blocks = report.chunk_blocks, known,
                "a replica lies on a disk with another chunk size; format all disks of a volume alike");
            return Err(malformed);
        }
        shared.chunk_blocks.store(report.chunk_blocks, Ordering::Release);
        if member.mode() == Mode::InSync {
            member.failed.store(false, Ordering::Release);
        }
        Ok(report)
    }

    /// Notes what may differ. False if a replica could not be asked.
    async fn find_differences(&self, view: &Arc<View>, reports: &Reports) -> bool {
        let pending = self.shared().pending();
        for (shard, pending) in pending.iter().enumerate() {
            let own: Vec<_> = reports.iter().filter(|((of, _), _)| *of == shard).collect();
            if own.len() < 2 {
                continue;
            }
            let listed = own.iter().flat_map(|(_, report)| &report.entries);
            for entry in listed.filter(|entry| entry.reign() != view.config.reign) {
                let at = entry.at();
                let start = u64::from(at.lba);
                pending.add(start..start + u64::from(at.blocks));
            }
            if own.iter().any(|(_, report)| !report.continuous) && !planted(Mutant::SkipGenerations)
            {
                let after = own.iter().map(|(_, report)| report.committed).min();
                let indices: Vec<usize> = own.iter().map(|((_, index), _)| *index).collect();
                let Some(chunks) =
                    self.candidates(view, shard, &indices, after.unwrap_or_default()).await
                else {
                    return false;
                };
                for chunk in chunks {
                    let range = self.blocks_of_chunk(view, shard, chunk);
                    pending.add(range);
                }
            }
        }
        true
    }

    /// The blocks of a chunk of a shard.
    pub(super) fn blocks_of_chunk(&self, view: &View, shard: usize, chunk: u32) -> Range<u64> {
        let size = u64::from(self.shared().chunk_blocks.load(Ordering::Acquire));
        let start = u64::from(chunk) * size;
        start..(start + size).min(view.shard_blocks(shard)).max(start)
    }

    /// Chunks in which these replicas may differ: stamped after `after` on any of them, or allocated on some only. `None` if one
    /// cannot be asked.
    pub(super) async fn candidates(
        &self,
        view: &View,
        shard: usize,
        indices: &[usize],
        after: Generation,
    ) -> Option<Vec<u32>> {
        let size = u64::from(self.shared().chunk_blocks.load(Ordering::Acquire)).max(1);
        let all = u32::try_from(view.shard_blocks(shard).div_ceil(size)).ok()?;
        let mut chunks = Vec::new();
        let mut from = 0;
        while from < all {
            let count = (all - from).min(CHUNKS_MAX);
            let bytes = chunk_report_bytes(count);
            let half = bytes / 2;
            let (mut some, mut every, mut stamped) =
                (vec![0_u8; half], vec![0xff_u8; half], vec![0_u8; half]);
            for &index in indices {
                let body = Body::Chunks { after, from, count };
                let map = self.ask(view, shard, index, body, bytes).await.ok()?;
                let (allocated, later) = map.split_at_checked(half)?;
                for (at, (&allocated, &later)) in allocated.iter().zip(later).enumerate() {
                    *some.get_mut(at)? |= allocated;
                    *every.get_mut(at)? &= allocated;
                    *stamped.get_mut(at)? |= later;
                }
            }
            for (byte, ((some, every), stamped)) in
                (0_u32..).zip(some.iter().zip(&every).zip(&stamped))
            {
                let bits = stamped | (some & !every);
                let set = (0..8).filter(|bit| bits >> bit & 1 == 1);
                chunks.extend(set.map(|bit| from + byte * 8 + bit));
            }
            from += count;
        }
        Some(chunks)
    }
}
