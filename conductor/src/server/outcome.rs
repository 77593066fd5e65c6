//! After a decision: wait, within bounds, until the nodes concerned have put it into effect.

use std::collections::BTreeSet;

use super::Shared;
use crate::api::{NodeLiveness, Outcome};

/// Whom a decision concerns.
pub(super) enum Concerned {
    /// Every node: what it exports has changed.
    All,
    /// These nodes.
    Nodes(BTreeSet<String>),
}

impl Shared {
    /// Waits and tells how far the change has come.
    pub(super) async fn outcome(
        &self,
        revision: u64,
        concerned: Concerned,
        mut notes: Vec<String>,
    ) -> Outcome {
        let live = self.live.view();
        let concerned = match concerned {
            Concerned::All => live.keys().cloned().collect(),
            Concerned::Nodes(nodes) => nodes,
        };
        if live.is_empty() {
            notes.push("no node has joined yet; it takes effect when one does".to_owned());
        }
        let up =
            |name: &&String| live.get(*name).is_some_and(|node| node.liveness == NodeLiveness::Up);
        for name in concerned.iter().filter(|name| !up(name)) {
            notes.push(format!("node {name} is not up; it takes effect there when it returns"));
        }
        let applied = async {
            let needed = self.db.needed(&concerned, revision).await;
            let all = |_| concerned.iter().map(|node| (node.clone(), revision)).collect();
            let needed = needed.unwrap_or_else(all);
            self.live.wait_applied(&needed, self.front.config.apply_wait).await
        };
        let waiting_for = tokio::select! {
            waiting_for = applied => waiting_for,
            () = self.stopped() => concerned.iter().filter(up).cloned().collect(),
        };
        Outcome { revision, waiting_for, notes, problems: Vec::new() }
    }
}
