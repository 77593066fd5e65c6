//! Terms in office: from becoming active to stepping down.
//!
//! A term begins with the next fencing token of MetaDB, so whatever an earlier conductor that does
//! not know of its end still decides is refused. It ends when the role is lost, when a decision
//! was refused because somebody else took the token, or with the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use afs_coordination::{Coordination, Role};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::front::Front;
use super::live::Live;
use super::{STOP_WAIT, Shared, StartError, watch_nodes};
use crate::db::{DbError, MetaDb};

/// After a term that could not begin, or that somebody else ended, the others go first.
const PAUSES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(10);

/// Between two attempts to open MetaDB, and between two lines about it in the log.
const OPEN_PAUSE: Duration = Duration::from_millis(500);
const SAY_EVERY: Duration = Duration::from_secs(15);

/// A term and the work that goes on in it.
pub(super) struct Term {
    shared: Arc<Shared>,
    watcher: JoinHandle<()>,
}

impl Term {
    /// Takes the next fencing token and begins to answer.
    pub(super) async fn begin(front: Arc<Front>) -> Result<Self, StartError> {
        let db = open(&front).await?;
        // This also reads what nodes are to do, so the first that asks need not wait for it.
        let nodes: Vec<String> = db.nodes().await?.iter().map(|row| row.name.clone()).collect();
        let live = Live::new(front.config.node_timeout, nodes);
        let token = db.fencing_token();
        let (stopping, fenced) = (watch::Sender::new(false), watch::Sender::new(false));
        let shared = Arc::new(Shared { db, live, front: front.clone(), stopping, fenced });
        let watcher = tokio::spawn(watch_nodes::watch(shared.clone()));
        front.coordination.took_over(token);
        front.set_term(Some(shared.clone()));
        tracing::info!(token, cluster = %shared.db.cluster(), "this conductor is active");
        Ok(Self { shared, watcher })
    }

    /// Ends waiting calls and closes MetaDB.
    async fn end(self) {
        self.shared.stopping.send_replace(true);
        self.shared.front.set_term(None);
        self.shared.front.coordination.stepped_down();
        let _ = self.watcher.await;
        if tokio::time::timeout(STOP_WAIT, self.shared.db.close()).await.is_err() {
            tracing::warn!("MetaDB could not be closed in time");
        }
    }
}

/// Opens MetaDB. A conductor that is alone waits for one that cannot be reached; of several, the
/// others go first.
async fn open(front: &Arc<Front>) -> Result<MetaDb, StartError> {
    let mut said: Option<Instant> = None;
    loop {
        match try_open(front).await {
            Err(StartError::MetaDb(error))
                if error.passes() && matches!(front.coordination, Coordination::Embedded(_)) =>
            {
                if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                    tracing::warn!("{error}; trying again until it answers");
                    said = Some(Instant::now());
                }
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

/// On a thread of its own, because migrations are no future that may be spawned.
async fn try_open(front: &Arc<Front>) -> Result<MetaDb, StartError> {
    let (place, runtime) = (front.config.database.clone(), Handle::current());
    let transaction_seconds = front.metrics.transaction_seconds();
    let opened = tokio::task::spawn_blocking(move || {
        runtime.block_on(MetaDb::open_measured(&place, transaction_seconds))
    });
    Ok(opened.await.map_err(|_| DbError::Interrupted)??)
}

/// Why a term is over.
enum End {
    Stopped,
    RoleLost,
    Fenced,
}

/// One term after the other, until the conductor stops.
pub(super) async fn serve_terms(
    front: Arc<Front>,
    first: Option<Term>,
    mut stop: watch::Receiver<bool>,
) {
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    tokio::pin!(stopped);
    let mut role = front.coordination.role();
    let mut next = first;
    let mut pause = *PAUSES.start();
    loop {
        let term = match next.take() {
            Some(term) => term,
            None => {
                let begun = tokio::select! {
                    () = &mut stopped => return,
                    begun = begin_when_active(&front, &mut role) => begun,
                };
                let Some(term) = begun else {
                    front.coordination.stand_aside();
                    tokio::select! {
                        () = &mut stopped => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(*PAUSES.end());
                    continue;
                };
                pause = *PAUSES.start();
                term
            }
        };
        let end = tokio::select! {
            biased;
            () = &mut stopped => End::Stopped,
            () = until_lost(&mut role) => End::RoleLost,
            () = until_set(&term.shared.fenced) => End::Fenced,
        };
        let fenced = matches!(end, End::Fenced);
        match end {
            End::Stopped => return term.end().await,
            End::RoleLost => tracing::warn!("not active any more: the place in the queue is lost"),
            End::Fenced => tracing::warn!("not active any more: another one has taken over MetaDB"),
        }
        term.end().await;
        if fenced {
            front.coordination.stand_aside();
            tokio::time::sleep(pause).await;
        }
    }
}

async fn until_lost(role: &mut watch::Receiver<Role>) {
    // Nobody who coordinates is left: that is no role either.
    let _ = role.wait_for(|role| *role != Role::Active).await;
}

/// Waits for the role. Nothing when the term could not begin.
async fn begin_when_active(front: &Arc<Front>, role: &mut watch::Receiver<Role>) -> Option<Term> {
    if role.wait_for(|role| *role == Role::Active).await.is_err() {
        // Nobody coordinates any more; there is nothing to wait for.
        return std::future::pending().await;
    }
    // Should the role be lost meanwhile, the term ends as soon as it has begun.
    match Term::begin(front.clone()).await {
        Ok(term) => Some(term),
        Err(error) => {
            tracing::warn!(%error, "this conductor could be active, but cannot begin");
            None
        }
    }
}

/// The senders live as long as the term.
async fn until_set(flag: &watch::Sender<bool>) {
    let _ = flag.subscribe().wait_for(|set| *set).await;
}

impl Shared {
    /// A decision was refused because another conductor took the token. Where conductors are
    /// elected, the term is over; one that has nobody to hand over to only says so.
    pub(super) fn fenced(&self) {
        if let Coordination::ZooKeeper(_) = self.front.coordination {
            self.fenced.send_replace(true);
        }
    }

    /// Waits for the end of the term.
    pub(super) async fn stopped(&self) {
        until_set(&self.stopping).await;
    }
}
