//! Replicas that lost what they had. A disk may lose the record of a replica and keep its identity; then the node makes the
//! replica anew, empty, and it answers for the one that was in sync. No leader may read from it, make others equal to it, or
//! count it (DESIGN 5 rule 7): it is treated as one that does not answer, until it was dropped and brought back.
//!
//! A volume that is new has replicas that are empty as well. What tells them apart is durable at the replicas: the first epoch
//! that a record promised, and the epoch in which a leader called the replica *whole*.
//!
//! Invariants:
//! - A leader serves only when every in-sync replica is whole, and in a later epoch than the one in which it called them so; a
//!   learner is whole before its admission, which is a new epoch, is asked for.
//! - So a replica that is in sync and not whole was made before the volume ever served, and promised before the others became
//!   whole; or its record was made anew since, and its first promise is of a later epoch than that.
//!
//! Where all in-sync replicas of a shard lose their records at once, or the only one does, nothing is left that would know.

use std::sync::Arc;

use futures_util::future::join_all;
use uuid::Uuid;

use super::seal::Reports;
use super::view::{Member, View};
use super::{Host, Leader};
use crate::message::Body;
use crate::mutant::{Mutant, planted};

impl<H: Host> Leader<H> {
    /// The first of the replicas that promised which lost what it had.
    pub(super) fn lost(&self, view: &View, reports: &Reports) -> Option<((usize, usize), Uuid)> {
        let member = |(shard, index): (usize, usize)| view.shards.get(shard)?.get(index);
        if planted(Mutant::BlankCounts) {
            return None;
        }
        reports.iter().filter(|(_, report)| report.whole == 0).find_map(|(key, report)| {
            let of_shard = reports.iter().filter(|((shard, _), _)| *shard == key.0);
            let begun = of_shard.map(|(_, other)| other.whole).filter(|whole| *whole != 0).min();
            let lost = begun.is_some_and(|begun| report.first > begun);
            lost.then_some((*key, member(*key)?.replica))
        })
    }

    /// Calls those whole that promised and were not yet. False if one did not hear it.
    pub(super) async fn call_whole(&self, view: &View, reports: &Reports) -> bool {
        let young = reports.iter().filter(|(_, report)| report.whole == 0);
        let calls = young.filter_map(|((shard, index), _)| {
            let member = view.shards.get(*shard)?.get(*index)?;
            Some(self.call_one_whole(view, *shard, member))
        });
        join_all(calls).await.into_iter().all(|heard| heard)
    }

    /// Calls one replica whole. False if it did not hear it.
    pub(super) async fn call_one_whole(
        &self,
        view: &View,
        shard: usize,
        member: &Arc<Member>,
    ) -> bool {
        let ports = self.ports(view, shard);
        let members = view.shards.get(shard).map_or(&[][..], Vec::as_slice);
        let index = members.iter().position(|known| Arc::ptr_eq(known, member));
        let Some(port) = index.and_then(|index| ports.get(index)) else { return false };
        self.call(port, member, view.epoch(), Body::Whole, None, 0).await.is_ok()
    }
}
