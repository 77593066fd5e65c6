//! Bringing a replica back that was away: only what can differ is looked at, only what differs is copied (DESIGN 5 rule 8).
//!
//! Invariants:
//! - From the moment that a learner is live, every write that begins goes to it; writes that had begun before are over before the
//!   list of chunks is made. So a chunk that is not on the list is equal, and stays so.
//! - Before its admission is asked for, no write succeeds without it, until the answer is known (the conductor may have admitted
//!   it although we did not hear so).
//! - A learner that failed is not used again before every message that may still be under way to it is too old to be taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use uuid::Uuid;

use super::call::{CallError, Ended, To};
use super::io::Open;
use super::view::{Member, Mode, Phase, Port, View};
use super::{Host, Leader};
use crate::control::{Asker, Control, ControlError};
use crate::message::{Outcome, SealReport};
use crate::mutant::{Mutant, planted};
use crate::params::nanos;

/// How often it is looked for learners.
const LOOK: Duration = Duration::from_millis(200);
/// After a chunk could not be copied for now.
const AGAIN: Duration = Duration::from_millis(20);

/// When a replica is tried again.
struct Patience {
    next: u64,
    pause: Duration,
    /// Since when it is in sync, if it is.
    in_sync: Option<u64>,
}

/// A learner that follows, and in which view.
struct Sealed {
    view: Arc<View>,
    index: usize,
    report: SealReport,
}

/// A replica that stayed in sync for so many of its pauses is taken for sound again.
const SOUND_AFTER: u32 = 8;
/// The longest pause, in the shortest ones.
const LONGEST: u32 = 64;

impl Patience {
    /// A try failed, or what came of it did not last.
    fn grow(&mut self, now: u64, shortest: Duration) {
        self.pause = (self.pause * 2).min(shortest * LONGEST);
        self.next = now.saturating_add(nanos(self.pause));
    }

    /// It does not follow. One that is away is looked for as often as at first, however long that is: no host waits for it.
    fn not_sealed(&mut self, error: CallError, now: u64, shortest: Duration) {
        match error {
            CallError::Unreachable
            | CallError::Lost
            | CallError::Refused(Outcome::LeaseHeld | Outcome::Stale, _) => {
                self.next = now.saturating_add(nanos(shortest));
            }
            CallError::Refused(..) => self.grow(now, shortest),
        }
    }

    /// The replica has to be brought back. One that fell out soon after it was, is tried ever later (DESIGN 5 rule 13): each
    /// try costs hosts a wait for an answer.
    fn fell_out(&mut self, now: u64, shortest: Duration) {
        let Some(since) = self.in_sync.take() else { return };
        if now.saturating_sub(since) < nanos(self.pause * SOUND_AFTER) {
            self.grow(now, shortest);
        } else {
            self.pause = shortest;
            self.next = now.saturating_add(nanos(shortest));
        }
    }
}

impl<H: Host> Leader<H> {
    /// Looks for replicas that are not in sync and brings them back, one at a time.
    pub(super) async fn resync_loop(&self) {
        let mut patience: HashMap<Uuid, Patience> = HashMap::new();
        loop {
            let view = self.view();
            if view.phase == Phase::Over {
                return;
            }
            if view.phase == Phase::Serving {
                for (shard, member) in learners(&view) {
                    self.try_learner(&view, shard, &member, &mut patience).await;
                }
            }
            self.pause(LOOK).await;
        }
    }

    async fn try_learner(
        &self,
        view: &Arc<View>,
        shard: usize,
        member: &Arc<Member>,
        patience: &mut HashMap<Uuid, Patience>,
    ) {
        let params = &self.shared().params;
        let wait = patience.entry(member.replica).or_insert_with(|| Patience {
            next: self.now().saturating_add(nanos(params.learner_pause)),
            pause: params.learner_pause,
            in_sync: None,
        });
        wait.fell_out(self.now(), params.learner_pause);
        if self.now() < wait.next || self.view().number != view.number {
            return;
        }
        let sealed = match self.seal_learner(shard, member).await {
            Ok(sealed) => sealed,
            Err(error) => return wait.not_sealed(error, self.now(), params.learner_pause),
        };
        if self.resync(shard, member, sealed).await {
            wait.in_sync = Some(self.now());
        } else {
            wait.grow(self.now(), params.learner_pause);
        }
    }

    /// Asks a learner to follow, and what it may have that others have not.
    async fn seal_learner(&self, shard: usize, member: &Arc<Member>) -> Result<Sealed, CallError> {
        let view = self.view();
        let index = index_of(&view, shard, member).ok_or(CallError::Unreachable)?;
        let report = self.seal_one(&view, shard, index, member).await?;
        let now = self.view().number;
        (now == view.number).then_some(Sealed { view, index, report }).ok_or(CallError::Unreachable)
    }

    /// Brings one replica back; true if it is in sync now.
    async fn resync(&self, shard: usize, member: &Arc<Member>, sealed: Sealed) -> bool {
        let done = self.bring_back(shard, member, sealed).await.is_some();
        member.chunks_left.store(0, Ordering::Relaxed);
        // A required learner stays until it is known whether it was admitted.
        if !done && member.mode() == Mode::Live {
            member.set_mode(Mode::Away);
        }
        done
    }

    async fn bring_back(
        &self,
        shard: usize,
        member: &Arc<Member>,
        Sealed { view, index, report }: Sealed,
    ) -> Option<()> {
        member.failed.store(false, Ordering::Release);
        member.set_mode(Mode::Live);
        self.barrier_while_leading().await?;
        let source = self.source(&view, shard)?;
        let sides =
            if planted(Mutant::OneSidedResync) { vec![source] } else { vec![source, index] };
        let mut chunks = self.candidates(&view, shard, &sides, report.committed).await?;
        for entry in report.entries.iter().filter(|_| !planted(Mutant::OneSidedResync)) {
            let at = entry.at();
            let size = self.shared().chunk_blocks.load(Ordering::Acquire).max(1);
            let last = at.lba.checked_add(at.blocks.checked_sub(1)?)?;
            chunks.extend(at.lba / size..=last / size);
        }
        chunks.sort_unstable();
        chunks.dedup();
        for (left, chunk) in chunks.iter().enumerate().rev() {
            member.chunks_left.store(left as u64 + 1, Ordering::Relaxed);
            self.copy_chunk(shard, member, *chunk).await?;
        }
        self.admit(shard, member).await
    }

    /// Waits for the writes that are open now. `None` when the leader is over: it closes failed ones no more.
    pub(super) async fn barrier_while_leading(&self) -> Option<()> {
        self.either(self.shared().tracker.barrier(), self.over()).await
    }

    /// The in-sync replica that copies come from: the local one if there is one.
    fn source(&self, view: &View, shard: usize) -> Option<usize> {
        let ports = self.ports(view, shard);
        let local = |index: &usize| matches!(ports.get(*index), Some(Port::Local(Some(_))));
        let mut all = view.in_sync(shard).map(|(index, _)| index);
        let first = all.next()?;
        Some(if local(&first) { first } else { all.find(local).unwrap_or(first) })
    }

    /// Makes one chunk of a learner equal.
    async fn copy_chunk(&self, shard: usize, member: &Arc<Member>, chunk: u32) -> Option<()> {
        loop {
            let view = self.view();
            if view.phase == Phase::Over || member.mode() != Mode::Live || member.has_failed() {
                return None;
            }
            if view.phase == Phase::Serving
                && self.try_copy(&view, shard, member, chunk).await == Some(Ended::Done)
            {
                return Some(());
            }
            self.view_changed(view.number, AGAIN).await;
        }
    }

    async fn try_copy(
        &self,
        view: &View,
        shard: usize,
        member: &Arc<Member>,
        chunk: u32,
    ) -> Option<Ended> {
        let index = index_of(view, shard, member)?;
        let range = self.blocks_of_chunk(view, shard, chunk);
        if range.is_empty() {
            return Some(Ended::Done);
        }
        let base = shard as u64 * view.config.shard_blocks;
        let held =
            if planted(Mutant::CopyUnlocked) { 0..0 } else { base + range.start..base + range.end };
        let _held = self.shared().locks.write(held).await;
        let pending = self.shared().pending();
        if pending.get(shard).is_some_and(|pending| pending.first_in(&range).is_some()) {
            // The equaliser's turn; it writes to the learner as well.
            self.shared().work.notify_one();
            return None;
        }
        let source = self.source(view, shard)?;
        let own = self.sums(view, shard, source, range.start).await.ok()?;
        let theirs = self.sums(view, shard, index, range.start).await.ok()?;
        let differs = own.differs(&theirs);
        let block = u64::from(afs_env::BLOCK_BYTES);
        let compared = (range.end - range.start) * block;
        member.bytes_compared.fetch_add(compared, Ordering::Relaxed);
        member.bytes_copied.fetch_add(u64::from(differs.count_ones()) * block, Ordering::Relaxed);
        let open = Open::copy(self.shared(), shard, range.clone());
        let to = To::Only(index);
        let sequence = open.sequence();
        let ended = self.copy_blocks(view, shard, source, &range, differs, sequence, to).await;
        // A learner's contents matter to nobody yet.
        open.done();
        Some(ended)
    }

    /// It has everything: asks for its admission.
    async fn admit(&self, shard: usize, member: &Arc<Member>) -> Option<()> {
        if !planted(Mutant::AdmitFailed) {
            if member.mode() != Mode::Live || member.has_failed() {
                return None;
            }
            member.set_mode(Mode::Required);
            if member.has_failed() {
                // Just now, and whoever noticed took it for one that nobody waits for.
                self.suspect(member);
            }
            self.barrier_while_leading().await?;
        }
        let view = self.view();
        let whole = self.call_one_whole(&view, shard, member).await;
        let missed = member.has_failed() || view.phase != Phase::Serving || !whole;
        if missed && !planted(Mutant::AdmitFailed) {
            // Nothing was asked for yet. For one that failed, writes may wait for the epoch that their failure called for: it stays
            // until that is there.
            if !member.has_failed() {
                member.set_mode(Mode::Away);
            }
            return None;
        }
        let asker = self.asker(&view);
        match self.host().control().admit(asker, shard, member.replica).await {
            Ok(config) => self.offer(config),
            Err(ControlError::Denied(config)) if config.epoch > view.epoch() => self.offer(*config),
            Err(ControlError::Denied(_)) => {
                member.set_mode(Mode::Live);
                return None;
            }
            Err(ControlError::Unknown) => {
                self.shared().outdated.store(true, Ordering::Release);
                self.shared().trouble.notify_one();
            }
        }
        let mut seen = view.number;
        loop {
            self.view_changed(seen, LOOK).await;
            let now = self.view();
            seen = now.number;
            if now.phase == Phase::Over {
                return None;
            }
            if now.epoch() > view.epoch() {
                if member.mode() == Mode::InSync {
                    return Some(());
                }
                member.set_mode(Mode::Away);
                return None;
            }
        }
    }

    pub(super) fn asker(&self, view: &View) -> Asker {
        Asker { volume: self.shared().volume, epoch: view.epoch(), process: self.shared().process }
    }

    fn offer(&self, config: afs_decisions::VolumeConfig) {
        super::LeaderState(self.inner.shared.clone()).offer(config);
    }
}

/// Replicas that are not in sync.
fn learners(view: &View) -> Vec<(usize, Arc<Member>)> {
    let shards = view.shards.iter().enumerate();
    let all = shards.flat_map(|(shard, members)| members.iter().map(move |one| (shard, one)));
    all.filter(|(_, member)| member.mode() != Mode::InSync)
        .map(|(shard, member)| (shard, member.clone()))
        .collect()
}

fn index_of(view: &View, shard: usize, member: &Arc<Member>) -> Option<usize> {
    view.shards.get(shard)?.iter().position(|known| Arc::ptr_eq(known, member))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_replica_that_is_away_is_looked_for_as_often_as_at_first_and_one_that_refuses_less() {
        let shortest = Duration::from_secs(1);
        let mut wait = Patience { next: 0, pause: shortest, in_sync: None };
        for error in [CallError::Unreachable, CallError::Lost].repeat(10) {
            let now = wait.next;
            wait.not_sealed(error, now, shortest);
            assert_eq!(wait.next, now + SECOND);
        }
        for expected in [2, 4, 8] {
            let now = wait.next;
            wait.not_sealed(CallError::Refused(Outcome::Malformed, 0), now, shortest);
            assert_eq!(wait.next, now + expected * SECOND);
        }
    }

    #[test]
    fn pauses_grow_for_a_replica_that_falls_out_soon_and_end_for_one_that_stays() {
        let shortest = Duration::from_secs(1);
        let mut wait = Patience { next: SECOND, pause: shortest, in_sync: None };
        let mut now = SECOND;
        for expected in [2, 4, 8, 16, 32, 64, 64] {
            wait.in_sync = Some(now);
            now += SECOND;
            wait.fell_out(now, shortest);
            assert_eq!(wait.next, now + expected * SECOND);
            wait.fell_out(now, shortest);
            assert_eq!(wait.next, now + expected * SECOND, "it fell out once");
        }
        wait.in_sync = Some(now);
        now += 64 * 8 * SECOND;
        wait.fell_out(now, shortest);
        assert_eq!((wait.next, wait.pause), (now + SECOND, shortest));
    }
}
