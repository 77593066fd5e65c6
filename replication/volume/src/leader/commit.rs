//! Generations: when all writes of one are on all replicas, they are told (DESIGN 5 rule 8).
//!
//! Invariant: a replica is told that a generation is committed only when every write that may carry it or a lower one, and
//! everything pending, is on all in-sync replicas of the same epoch.

use std::sync::atomic::Ordering;

use afs_store::Generation;
use futures_util::future::join_all;

use super::view::Phase;
use super::{Host, Leader, Shared};
use crate::leader::pending::Pending;
use crate::message::Body;
use crate::mutant::{Mutant, planted};

impl Shared {
    pub(super) fn count_write(&self) {
        if self.writes.fetch_add(1, Ordering::Relaxed) == self.params.generation_writes {
            self.work.notify_one();
        }
    }
}

impl<H: Host> Leader<H> {
    /// Ends a generation whenever it is old or large enough.
    pub(super) async fn commit_loop(&self) {
        loop {
            // Who is over must not linger for as long as a generation lasts.
            if self.either(self.over(), self.pause(self.shared().params.generation)).await.is_some()
            {
                return;
            }
            let view = self.view();
            if view.phase == Phase::Serving && self.shared().writes.load(Ordering::Relaxed) > 0 {
                self.end_generation().await;
            }
        }
    }

    async fn end_generation(&self) {
        let shared = self.shared();
        let view = self.view();
        let number = shared.generation.fetch_add(1, Ordering::AcqRel);
        shared.writes.store(0, Ordering::Relaxed);
        if !planted(Mutant::CommitEarly) {
            let ended = self.barrier_while_leading().await.is_some();
            if !ended || !shared.pending().iter().all(Pending::is_empty) {
                return;
            }
        }
        let generation = Generation { epoch: view.epoch(), number: number.into() };
        let now = self.view();
        if now.epoch() != view.epoch() || now.phase != Phase::Serving {
            return;
        }
        let mut calls = Vec::new();
        for shard in 0..view.shards.len() {
            let ports = self.ports(&view, shard);
            for (index, member) in view.in_sync(shard) {
                let (ports, view, member) = (ports.clone(), view.clone(), member.clone());
                calls.push(async move {
                    let Some(port) = ports.get(index) else { return };
                    let body = Body::Commit(generation);
                    // One that does not hear of it has more to compare when it comes back, no less.
                    let _ = self.call(port, &member, view.epoch(), body, None, 0).await;
                });
            }
        }
        join_all(calls).await;
    }
}
