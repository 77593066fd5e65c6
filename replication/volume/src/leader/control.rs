//! The leader's life: claim, seal, serve, react, leave.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use afs_decisions::{NodeId, VolumeConfig};
use futures_util::StreamExt;
use futures_util::future::{Either, join_all, join5, select};
use futures_util::stream::FuturesUnordered;
use uuid::Uuid;

use super::call::CallError;
use super::seal::Sealed;
use super::view::{Member, Mode, Phase, View};
use super::{Host, Leader};
use crate::control::{Control, ControlError};
use crate::message::{Body, Outcome};
use crate::mutant::{Mutant, planted};
use crate::params::nanos;

/// Pauses after the conductor did not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl<H: Host> Leader<H> {
    /// Leads the volume until another node does, or until [`LeaderState::leave`](super::LeaderState::leave). Once begun, it must
    /// be polled to its end, unless the whole process ends.
    pub async fn run(&self) {
        join5(
            self.lead(),
            self.heartbeat_loop(),
            self.equalise_loop(),
            self.resync_loop(),
            self.commit_loop(),
        )
        .await;
    }

    async fn lead(&self) {
        let mut next = self.claim().await;
        while let Some(config) = next {
            next = self.one_epoch(&config).await;
        }
        let config = self.view().config.clone();
        self.shared().show(Phase::Over, &config);
    }

    /// From a configuration to the next one; `None` when somebody else leads.
    async fn one_epoch(&self, config: &VolumeConfig) -> Option<VolumeConfig> {
        let before = self.view();
        if !continues(&before.config, config) && !planted(Mutant::TenureForgotten) {
            self.shared().tenure.fetch_add(1, Ordering::AcqRel);
            let members = before.shards.iter().flatten();
            for member in members.filter(|member| member.mode() != Mode::InSync) {
                member.failed.store(true, Ordering::Release);
                member.set_mode(Mode::Away);
            }
        }
        let view = self.shared().show(Phase::Sealing, config);
        match self.seal(&view).await {
            Sealed::All => {
                self.shared().show(Phase::Serving, config);
            }
            Sealed::LookAgain => {}
            Sealed::Young => return self.renew(&view).await,
            Sealed::Missing(shard, replica, unheard) => {
                return self.drop_or_renew(&view, shard, replica, unheard).await;
            }
        }
        loop {
            if self.shared().leaving.load(Ordering::Acquire) {
                self.hand_over().await;
                return None;
            }
            match self.react(&view).await {
                Reaction::Next(config) => return config.map(|config| *config),
                Reaction::Nothing | Reaction::Later(_) if self.view().phase != Phase::Serving => {
                    return Some(config.clone());
                }
                Reaction::Nothing => self.shared().trouble.notified().await,
                Reaction::Later(wait) => {
                    let trouble = self.shared().trouble.notified();
                    self.either(trouble, self.pause(wait)).await;
                }
            }
        }
    }

    /// Looks at what may call for another epoch.
    async fn react(&self, view: &Arc<View>) -> Reaction {
        let shared = self.shared();
        let offered = shared.offer.lock().take();
        if offered.is_some_and(|offered| offered.epoch > view.epoch()) {
            self.stop_serving(view);
            return Reaction::Next(self.claim().await.map(Box::new));
        }
        if shared.outdated.swap(false, Ordering::AcqRel) {
            self.stop_serving(view);
            let outrun = shared.outrun.swap(false, Ordering::AcqRel);
            let next = match self.claim().await {
                // What replicas promise was decided before. A conductor that does not know of it lost it, and who is in sync
                // with it: to count on from here would make something old the truth.
                Some(config) if config.epoch <= view.epoch() && outrun => {
                    tracing::error!(volume = %shared.volume, epoch = config.epoch,
                        "a replica promised an epoch that the conductor does not know of: its database is an older copy");
                    self.pause(LONGEST_PAUSE).await;
                    Some(config)
                }
                Some(config) if config.epoch == view.epoch() => self.leave_behind(view).await,
                other => other,
            };
            return Reaction::Next(next.map(Box::new));
        }
        let members = view.shards.iter().enumerate();
        let mut all = members.flat_map(|(shard, members)| members.iter().map(move |m| (shard, m)));
        let failed = all.find(|(_, member)| member.has_failed() && member.mode() >= Mode::Required);
        let Some((shard, member)) = failed else { return Reaction::Nothing };
        let wait = shared.denied.lock().until.saturating_sub(self.now());
        if wait > 0 {
            return Reaction::Later(Duration::from_nanos(wait));
        }
        self.stop_serving(view);
        let next = if member.mode() == Mode::InSync {
            self.drop_or_renew(view, shard, member.replica, self.unheard(view)).await
        } else {
            let next = self.leave_behind(view).await;
            // Whether it was admitted is known now; in an epoch in which it is not, nobody waits for it.
            member.set_mode(Mode::Away);
            next
        };
        Reaction::Next(next.map(Box::new))
    }

    fn stop_serving(&self, view: &View) {
        self.shared().show(Phase::Sealing, &view.config);
    }

    /// The newest configuration, if this node leads in it.
    async fn claim(&self) -> Option<VolumeConfig> {
        let shared = self.shared();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.host().control().claim(shared.volume, shared.process).await {
                Ok(config) => return Some(config),
                Err(ControlError::Denied(config)) if config.leader != Some(shared.node) => {
                    return None;
                }
                Err(_) => {}
            }
            if shared.leaving.load(Ordering::Acquire) {
                return None;
            }
            self.pause(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A new epoch with the same replicas.
    async fn renew(&self, view: &View) -> Option<VolumeConfig> {
        match self.host().control().renew(self.asker(view)).await {
            Ok(config) => Some(config),
            // Whoever was denied finds the newest by claiming; so does one that heard nothing.
            Err(_) => self.claim().await,
        }
    }

    /// A higher epoch, whatever it takes: something that we asked for may still be decided on this one, such as that a replica is
    /// in sync which nobody waits for any more.
    async fn leave_behind(&self, view: &View) -> Option<VolumeConfig> {
        let mut pause = FIRST_PAUSE;
        loop {
            let config = self.renew(view).await?;
            if config.epoch > view.epoch() {
                return Some(config);
            }
            self.pause(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A replica is to leave the in-sync set. If it may not, everybody is sealed anew, it included.
    async fn drop_or_renew(
        &self,
        view: &View,
        shard: usize,
        replica: Uuid,
        unheard: Vec<NodeId>,
    ) -> Option<VolumeConfig> {
        match self.host().control().accuse(self.asker(view), shard, replica, unheard).await {
            Ok(config) => {
                tracing::warn!(volume = %self.shared().volume, %replica, epoch = config.epoch,
                    "a replica was dropped from the in-sync set");
                Some(config)
            }
            Err(ControlError::Denied(config)) if config.epoch > view.epoch() => self.claim().await,
            Err(ControlError::Denied(_)) => {
                self.shared().denied.lock().again(self.now());
                self.renew(view).await
            }
            Err(ControlError::Unknown) => self.claim().await,
        }
    }

    /// Nodes that get heartbeats and did not answer lately. When this one is cut off from all, their silence begins at one moment,
    /// but the first of them may be accused a little before the others are noticed.
    fn unheard(&self, view: &View) -> Vec<NodeId> {
        let now = self.now();
        let patience = nanos(self.shared().params.answer / 2);
        let members = view.shards.iter().flatten();
        let silent = members.filter(|member| {
            let heard = member.heard.load(Ordering::Acquire);
            member.mode() != Mode::Away && now.saturating_sub(heard) > patience
        });
        self.other_nodes(silent.map(|member| &**member))
    }

    /// The nodes of these replicas, each once, without this one.
    pub(super) fn other_nodes<'a>(&self, members: impl Iterator<Item = &'a Member>) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = members.map(|member| member.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|node| *node != self.shared().node);
        nodes
    }

    /// Finishes what was begun and gives the leases back.
    async fn hand_over(&self) {
        let view = self.view();
        self.shared().show(Phase::Over, &view.config);
        for member in view.shards.iter().flatten() {
            member.lease_until.store(0, Ordering::Release);
        }
        // Failed writes stay open: their ranges are the next leader's to make equal.
        let _ = self.within(self.shared().params.answer * 2, self.shared().tracker.barrier()).await;
        let mut calls = Vec::new();
        for shard in 0..view.shards.len() {
            let ports = self.ports(&view, shard);
            for (index, member) in view.in_sync(shard) {
                let (ports, member, view) = (ports.clone(), member.clone(), view.clone());
                calls.push(async move {
                    let Some(port) = ports.get(index) else { return };
                    // One that does not hear of it waits for the end of the lease.
                    let _ = self.call(port, &member, view.epoch(), Body::Release, None, 0).await;
                    member.lease_until.store(0, Ordering::Release);
                });
            }
        }
        join_all(calls).await;
    }

    /// Keeps leases alive, and finds replicas that went silent while nobody wrote. Also while others are still to promise: a leader
    /// that waits for one of them would be taken for silent by those that did, and replaced by one that waits as long.
    async fn heartbeat_loop(&self) {
        let mut beats = FuturesUnordered::new();
        let mut flying = HashSet::new();
        loop {
            let view = self.view();
            if view.phase == Phase::Over {
                return;
            }
            for (shard, members) in view.shards.iter().enumerate() {
                for (index, member) in members.iter().enumerate() {
                    let leads = matches!(view.phase, Phase::Serving | Phase::Sealing);
                    let wanted = leads && member.mode() != Mode::Away;
                    if wanted && flying.insert(member.replica) {
                        let (view, member) = (view.clone(), member.clone());
                        beats.push(async move {
                            self.beat(&view, shard, index, &member).await;
                            member.replica
                        });
                    }
                }
            }
            let mut pause = std::pin::pin!(self.pause(self.shared().params.heartbeat));
            loop {
                if beats.is_empty() {
                    pause.as_mut().await;
                    break;
                }
                match select(pause.as_mut(), beats.next()).await {
                    Either::Left(_) => break,
                    Either::Right((replica, _)) => {
                        replica.map(|replica| flying.remove(&replica));
                    }
                }
            }
        }
    }

    async fn beat(&self, view: &View, shard: usize, index: usize, member: &Member) {
        let ports = self.ports(view, shard);
        let Some(port) = ports.get(index) else { return };
        let body = Body::Heartbeat(self.progress(None));
        let Err(error) = self.call(port, member, view.epoch(), body, None, 0).await else { return };
        let now = self.view();
        if now.phase != Phase::Serving || now.epoch() != view.epoch() {
            return;
        }
        let silent = self.now().saturating_sub(member.heard.load(Ordering::Acquire));
        let gone = match error {
            CallError::Refused(Outcome::NotSealed, _) => true,
            CallError::Refused(..) => false,
            CallError::Unreachable | CallError::Lost => silent > nanos(self.shared().params.answer),
        };
        if gone && member.mode() != Mode::Away && !member.give_up() {
            self.suspect(member);
        }
    }
}

/// Whether no other leader can have served between two configurations that this one got. A reign ends when somebody else is
/// elected; that is a decision of its own, and claiming the volume after it another one.
fn continues(before: &VolumeConfig, after: &VolumeConfig) -> bool {
    after.reign == before.reign || after.epoch <= before.epoch + 1
}

/// A replica that fails may not be dropped: for how long nobody is accused again. Meanwhile the volume serves reads, and the
/// conductor gets no more than a few decisions a second of a leader that only it can help.
#[derive(Default)]
pub(super) struct Denials {
    /// On this node's clock.
    until: u64,
    pause: Duration,
}

impl Denials {
    /// One more; those that follow soon are waited after longer.
    fn again(&mut self, now: u64) {
        let soon = now.saturating_sub(self.until) < nanos(LONGEST_PAUSE * 2);
        let pause = if soon { self.pause * 2 } else { FIRST_PAUSE };
        self.pause = pause.clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.until = now.saturating_add(nanos(self.pause));
    }
}

/// What came of looking.
enum Reaction {
    Nothing,
    /// Nothing before this time.
    Later(Duration),
    /// The next configuration, or none: somebody else leads.
    Next(Option<Box<VolumeConfig>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_that_follow_each_other_are_waited_after_longer() {
        let mut denials = Denials::default();
        let mut now = nanos(Duration::from_secs(100));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            denials.again(now);
            pauses.push((denials.until - now) / 1_000_000);
            now = denials.until;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        now += nanos(LONGEST_PAUSE * 2);
        denials.again(now);
        assert_eq!(denials.until - now, nanos(FIRST_PAUSE));
    }
}
