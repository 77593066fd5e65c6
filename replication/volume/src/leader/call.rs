//! One message to one replica, and one change to all replicas of a shard.

use std::ops::Range;
use std::sync::atomic::Ordering;

use afs_env::{Answer, Buffer, Link, LinkError};
use futures_util::future::{join, join_all, join3};
use smallvec::SmallVec;

use super::tracker::Sequence;
use super::view::{Member, Mode, Port, View};
use super::{Host, Leader};
use crate::message::{Blocks, Body, Message, Outcome, Progress, result_of};
use crate::mutant::{Mutant, planted};
use crate::params::nanos;

/// Why a message was not carried out as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// The replica says so.
    Refused(Outcome, u32),
    /// It cannot be reached; surely not carried out.
    Unreachable,
    /// No answer: it may be carried out at any time, unless a higher epoch was promised.
    Lost,
}

/// A change, without its place.
#[derive(Clone)]
pub(super) enum Change {
    Write(Buffer),
    Clear { deallocate: bool },
}

/// How a change went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// On every replica that must have it.
    Done,
    /// Some refused it for now: try again in a moment.
    Retry,
    /// It can only be tried again in a higher epoch.
    NewEpoch,
    /// A replica cannot take it, whatever the epoch.
    Failed(Outcome),
}

/// To whom a change goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// Everybody.
    All,
    /// All but this one, which has it.
    AllBut(usize),
    /// This one alone.
    Only(usize),
}

impl<H: Host> Leader<H> {
    /// Sends one message. A success renews the lease.
    ///
    /// Each reactor has ways of its own to the replicas. One that is used for the first time has to be made; that the replica is
    /// not reached until then must not be taken for its failure.
    pub(super) async fn call(
        &self,
        port: &Port<H>,
        member: &Member,
        epoch: u64,
        body: Body,
        data: Option<Buffer>,
        reply_max: usize,
    ) -> Result<Option<Buffer>, CallError> {
        // Promises are asked for again and again; that goes on while others wait.
        if let Port::Remote(link) = port
            && !link.is_settled()
            && !matches!(body, Body::Seal { .. })
        {
            self.within(self.shared().params.settle, link.settle()).await;
        }
        let sent = self.now();
        let header = Message { tick: member.tick.load(Ordering::Acquire), epoch, body }.encode();
        let answer = match port {
            // Never given up half-way: it may have a write at the disk.
            Port::Local(Some(server)) => Ok(server.handle(&header, data).await),
            Port::Local(None) => Err(LinkError::Unreachable),
            Port::Remote(link) => {
                let call = link.call(header, data, reply_max);
                let answer = self.within(self.shared().params.answer, call).await;
                answer.unwrap_or(Err(LinkError::Lost))
            }
        };
        let answer = answer.map_err(|error| match error {
            LinkError::Unreachable => CallError::Unreachable,
            LinkError::Lost => CallError::Lost,
        })?;
        self.heard(member, epoch, sent, answer)
    }

    fn heard(
        &self,
        member: &Member,
        epoch: u64,
        sent: u64,
        answer: Answer,
    ) -> Result<Option<Buffer>, CallError> {
        let (tick, extra) = result_of(answer.result);
        member.tick.store(tick, Ordering::Release);
        let outcome = Outcome::of(answer.status);
        if outcome == Outcome::Stale && epoch == self.view().epoch() {
            self.shared().outrun.store(true, Ordering::Release);
            self.shared().outdated.store(true, Ordering::Release);
            self.shared().trouble.notify_one();
        }
        if outcome != Outcome::Done {
            return Err(CallError::Refused(outcome, extra));
        }
        let params = &self.shared().params;
        let from = if planted(Mutant::LeaseFromAnswer) { self.now() } else { sent };
        let lease = nanos(params.lease).saturating_sub(nanos(params.lease_margin));
        member.lease_until.fetch_max(from.saturating_add(lease), Ordering::AcqRel);
        member.heard.fetch_max(sent, Ordering::AcqRel);
        Ok(answer.data)
    }

    /// Where the reign stands.
    pub(super) fn progress(&self, sequence: Option<Sequence>) -> Progress {
        let (last, watermark) = self.shared().tracker.state();
        let sequence = sequence.unwrap_or(last);
        // A number below the watermark is impossible for an open write.
        let behind = u32::try_from(sequence.saturating_sub(watermark)).unwrap_or(u32::MAX);
        Progress { sequence, behind }
    }

    /// Sends a change of `range` (of the shard) to its replicas, and waits for all that must have it.
    pub(super) async fn replicate(
        &self,
        view: &View,
        shard: usize,
        range: &Range<u64>,
        change: &Change,
        sequence: Sequence,
        to: To,
    ) -> Ended {
        let ports = self.ports(view, shard);
        let members = view.shards.get(shard).map_or(&[][..], Vec::as_slice);
        let mut targets: SmallVec<[Target<'_, H>; 4]> = SmallVec::new();
        for (index, (member, port)) in members.iter().zip(ports.iter()).enumerate() {
            let mode = member.mode();
            let wanted = match to {
                To::All => true,
                To::AllBut(other) => index != other,
                To::Only(only) => index == only,
            };
            let gets = match mode {
                Mode::Away => false,
                Mode::Live => !planted(Mutant::NoLiveWrites) || to != To::All,
                Mode::Required | Mode::InSync => true,
            };
            // Something of unknown fate may be under way to it: what follows in this epoch could be overtaken by it.
            if wanted && mode >= Mode::Required && member.has_failed() {
                return Ended::NewEpoch;
            }
            if wanted && gets {
                targets.push(Target { member, port, required: mode >= Mode::Required });
            }
        }
        let send = |target| self.change(view, target, range, change, sequence);
        let mut targets = targets.into_iter();
        match (targets.next(), targets.next(), targets.next(), targets.len()) {
            (None, ..) => Ended::Done,
            (Some(one), None, ..) => send(one).await,
            (Some(one), Some(two), None, _) => {
                let (one, two) = join(send(one), send(two)).await;
                worst([one, two])
            }
            (Some(one), Some(two), Some(three), 0) => {
                let (one, two, three) = join3(send(one), send(two), send(three)).await;
                worst([one, two, three])
            }
            // More than three: a replica is being added.
            (Some(one), Some(two), Some(three), _) => {
                worst(join_all([one, two, three].into_iter().chain(targets).map(send)).await)
            }
        }
    }

    /// The change at one replica, and what its failure means.
    async fn change(
        &self,
        view: &View,
        target: Target<'_, H>,
        range: &Range<u64>,
        change: &Change,
        sequence: Sequence,
    ) -> Ended {
        let Some(at) = blocks_of(range) else { return Ended::Failed(Outcome::OutOfRange) };
        let generation = self.shared().generation.load(Ordering::Acquire);
        let progress = self.progress(Some(sequence));
        let (body, data) = match change {
            Change::Write(data) => (Body::Write(at, progress, generation), Some(data.clone())),
            Change::Clear { deallocate } => {
                (Body::Clear(at, progress, generation, *deallocate), None)
            }
        };
        let Target { member, port, required } = target;
        let Err(error) = self.call(port, member, view.epoch(), body, data, 0).await else {
            return Ended::Done;
        };
        if !required {
            if member.give_up() {
                return Ended::Done;
            }
            self.suspect(member);
            return Ended::NewEpoch;
        }
        self.meaning(view, member, error)
    }

    /// What a replica's failure means for the change.
    fn meaning(&self, view: &View, member: &Member, error: CallError) -> Ended {
        match error {
            CallError::Refused(Outcome::TooOld | Outcome::ListFull | Outcome::NoMemory, _) => {
                Ended::Retry
            }
            CallError::Refused(Outcome::Full | Outcome::OutOfRange, _) => {
                let CallError::Refused(outcome, _) = error else { return Ended::Retry };
                Ended::Failed(outcome)
            }
            CallError::Refused(Outcome::Media | Outcome::Stopped, _)
                if view.shards.iter().all(|members| members.len() == 1) =>
            {
                let CallError::Refused(outcome, _) = error else { return Ended::Retry };
                Ended::Failed(outcome)
            }
            CallError::Refused(Outcome::Stale, _) => Ended::NewEpoch,
            _ => {
                self.suspect(member);
                Ended::NewEpoch
            }
        }
    }

    /// A replica that must have every write does not.
    pub(super) fn suspect(&self, member: &Member) {
        member.failed.store(true, Ordering::Release);
        self.shared().trouble.notify_one();
    }
}

struct Target<'a, H: Host> {
    member: &'a Member,
    port: &'a Port<H>,
    required: bool,
}

/// A range of a shard as messages carry it.
pub(super) fn blocks_of(range: &Range<u64>) -> Option<Blocks> {
    let lba = u32::try_from(range.start).ok()?;
    let blocks = u32::try_from(range.end.checked_sub(range.start)?).ok()?;
    Some(Blocks { lba, blocks })
}

/// What the whole change has come to. A new epoch decides anew; otherwise a failure stands.
fn worst(all: impl IntoIterator<Item = Ended>) -> Ended {
    if planted(Mutant::AcknowledgeAfterOne) {
        let mut all = all.into_iter();
        return all.find(|ended| *ended == Ended::Done).unwrap_or(Ended::NewEpoch);
    }
    all.into_iter().fold(Ended::Done, |worst, next| match (worst, next) {
        (Ended::NewEpoch, _) | (_, Ended::NewEpoch) if planted(Mutant::AcknowledgeBeforeDrop) => {
            Ended::Done
        }
        (Ended::NewEpoch, _) | (_, Ended::NewEpoch) => Ended::NewEpoch,
        (Ended::Failed(outcome), _) | (_, Ended::Failed(outcome)) => Ended::Failed(outcome),
        (Ended::Retry, _) | (_, Ended::Retry) => Ended::Retry,
        (Ended::Done, Ended::Done) => Ended::Done,
    })
}
