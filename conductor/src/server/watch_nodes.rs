//! The conductor's background work: noticing nodes that come and go, whether MetaDB answers and
//! still is ours to decide in, giving volumes of nodes that are gone to others, emptying nodes and
//! disks, and keeping the metrics' memory small.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use afs_coordination::Nodes;

use super::{Shared, leadership};
use crate::api::{NodeLiveness, Severity};
use crate::db::DbError;

const EVERY: Duration = Duration::from_secs(1);

/// Runs until the end of the term.
pub(super) async fn watch(shared: Arc<Shared>) {
    tokio::join!(notice_older_copies(&shared), watch_nodes(&shared));
}

/// Nodes that have nothing new to say make no decisions, in which it would show that MetaDB was replaced. This waits behind all
/// that is to be decided, as nothing else here must.
async fn notice_older_copies(shared: &Shared) {
    let look = async {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = shared.db.look().await {
                tracing::debug!(%error, "MetaDB cannot be looked at now");
            }
        }
    };
    tokio::select! {
        () = shared.stopped() => {}
        () = look => {}
    }
}

async fn watch_nodes(shared: &Shared) {
    let stopped = shared.stopped();
    tokio::pin!(stopped);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut nodes = shared.front.coordination.nodes();
    let mut registered = BTreeSet::new();
    let mut doubts = shared.live.doubts();
    let mut metadb = Ok(());
    loop {
        tokio::select! {
            () = &mut stopped => return,
            _ = ticks.tick() => {
                metadb = look_at_metadb(shared, metadb).await;
                if metadb.is_ok() {
                    note_transitions(shared).await;
                    look_after_volumes(shared).await;
                }
                shared.front.metrics.upkeep();
            }
            // Evidence starts an election at once; safety does not rest on it (DESIGN 7).
            Ok(()) = doubts.changed() => look_after_volumes(shared).await,
            Ok(()) = nodes.changed() => {
                let now = nodes.borrow_and_update().clone();
                note_registrations(shared, &now, &mut registered);
                note_transitions(shared).await;
                look_after_volumes(shared).await;
            }
        }
    }
}

async fn look_after_volumes(shared: &Shared) {
    if let Err(error) = leadership::elect(shared).await {
        tracing::warn!(%error, "volumes of nodes that are down have no new leaders yet");
    }
    if let Err(error) = leadership::empty(shared).await {
        tracing::warn!(?error, "nodes and disks cannot be emptied now");
    }
}

/// A node that was registered and is not any more has ended, or its machine or network has. One
/// that never registered is judged by its reports alone.
fn note_registrations(shared: &Shared, now: &Nodes, registered: &mut BTreeSet<String>) {
    if !now.current {
        return;
    }
    let names: BTreeSet<String> = now.nodes.keys().cloned().collect();
    for node in registered.difference(&names) {
        shared.live.gone(node);
    }
    *registered = names;
}

/// Says once when MetaDB goes away and once when it is back.
async fn look_at_metadb(shared: &Shared, before: Result<(), DbError>) -> Result<(), DbError> {
    let now = shared.db.check().await;
    match (&before, &now) {
        (_, Err(DbError::Fenced)) | (Ok(()), Ok(())) | (Err(_), Err(_)) => {}
        (Ok(()), Err(error)) => {
            tracing::error!(%error, "MetaDB does not answer: nothing can be decided until it does");
        }
        (Err(_), Ok(())) => tracing::info!("MetaDB answers again"),
    }
    now
}

async fn note_transitions(shared: &Shared) {
    let changed = shared.live.transitions();
    let note = |(node, liveness): &'_ (String, NodeLiveness)| match liveness {
        NodeLiveness::Up => Some((Severity::Info, "node_up", format!("node {node} is up"))),
        NodeLiveness::Down => {
            Some((Severity::Warning, "node_down", format!("node {node} does not report")))
        }
        NodeLiveness::Unknown => None,
    };
    let notes: Vec<_> = changed
        .iter()
        .filter_map(|change| {
            note(change).map(|(severity, kind, text)| (severity, kind, change.0.as_str(), text))
        })
        .collect();
    if notes.is_empty() {
        return;
    }
    if let Err(error) = shared.db.note_all(notes).await {
        tracing::warn!(%error, ?changed, "events could not be written");
        if matches!(error, DbError::Fenced) {
            shared.fenced();
        }
    }
}
