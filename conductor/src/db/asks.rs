//! What leaders ask for, decided in groups.
//!
//! After a restart of the conductor or of a large cluster there are as many claims as volumes, and after the death of a node
//! hundreds of replicas to drop; so those that wait share one transaction and its COMMIT. One group is under way at a time: other
//! decisions, which are fewer and more urgent (elections, nodes that come), wait behind one group and not behind all.
//!
//! Each is answered with the newest configuration, whether it was granted or not: an answer may get lost, and who asks again finds
//! in it what was decided. These decisions change nobody's duties but the asker's, so they do not move the revision.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use afs_decisions::{
    Asker, Claim, ClusterView, Denied, NodeId, VolumeConfig, admit, claim, drop_member, renew,
};
use metrics::Histogram;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::decision::{Decision, Maker, Timing};
use super::replication::{must_exist, node_word, volume_name};
use super::{DbError, Decided, MetaDb, configs};
use crate::api::Severity;
use crate::refusal::Refusal;

/// Others wait for so many at most, some tens of milliseconds.
const GROUP_MAX: usize = 64;

/// More than there can be connections.
const WAITING_MAX: usize = 1 << 16;

/// The answer to a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is decided now.
    pub config: VolumeConfig,
    /// Why what was asked for was not decided.
    pub denied: Option<Denied>,
}

/// What a leader asks for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// It starts.
    Claim { node: NodeId, process: u64 },
    /// It wants to seal again.
    Renew { asker: Asker },
    /// A replica fails it.
    Drop { asker: Asker, shard: u32, replica: Uuid, view: Arc<ClusterView> },
    /// A replica has everything.
    Admit { asker: Asker, shard: u32, replica: Uuid },
}

impl MetaDb {
    /// A leader starts.
    pub async fn claim(
        &self,
        volume: Uuid,
        node: NodeId,
        process: u64,
    ) -> Result<Decided<Asked>, DbError> {
        self.ask(volume, Ask::Claim { node, process }).await
    }

    /// A leader wants to seal again.
    pub async fn renew(&self, volume: Uuid, asker: Asker) -> Result<Decided<Asked>, DbError> {
        self.ask(volume, Ask::Renew { asker }).await
    }

    /// A leader says that a replica fails.
    pub async fn accuse(
        &self,
        volume: Uuid,
        asker: Asker,
        shard: u32,
        replica: Uuid,
        view: Arc<ClusterView>,
    ) -> Result<Decided<Asked>, DbError> {
        self.ask(volume, Ask::Drop { asker, shard, replica, view }).await
    }

    /// A leader says that a replica has everything.
    pub async fn admit(
        &self,
        volume: Uuid,
        asker: Asker,
        shard: u32,
        replica: Uuid,
    ) -> Result<Decided<Asked>, DbError> {
        self.ask(volume, Ask::Admit { asker, shard, replica }).await
    }

    async fn ask(&self, volume: Uuid, ask: Ask) -> Result<Decided<Asked>, DbError> {
        self.asks.decide(&self.maker, &self.transaction_seconds, volume, ask).await
    }
}

impl Ask {
    /// A volume that has a leader goes before those that have none yet, of which there may be many.
    fn is_urgent(&self) -> bool {
        !matches!(self, Self::Claim { .. })
    }

    /// The configuration that this makes of another; none if it is that already.
    fn apply(&self, config: &VolumeConfig) -> Result<Option<VolumeConfig>, Denied> {
        match self {
            Self::Claim { node, process } => Ok(match claim(config, *node, *process)? {
                Claim::New(next) => Some(next),
                Claim::AlreadyYours => None,
            }),
            Self::Renew { asker } => renew(config, *asker).map(Some),
            Self::Drop { asker, shard, replica, view } => {
                drop_member(config, *asker, *shard, *replica, view).map(Some)
            }
            Self::Admit { asker, shard, replica } => {
                admit(config, *asker, *shard, *replica).map(Some)
            }
        }
    }

    /// How serious this is, what it is called in the events, and what happened.
    fn news(&self, name: &str, who: &str, next: &VolumeConfig) -> (Severity, &'static str, String) {
        let epoch = next.epoch;
        match self {
            Self::Claim { .. } => {
                let message = format!("{who} leads volume {name} from epoch {epoch}");
                (Severity::Info, "leader_claimed", message)
            }
            Self::Renew { .. } => {
                let message = format!("{who} seals volume {name} in epoch {epoch}");
                (Severity::Info, "leader_renewed", message)
            }
            Self::Drop { shard, replica, .. } => {
                let left = in_sync(next, *shard);
                let message =
                    format!("{who} dropped replica {replica} of shard {shard} of {name}: {left}");
                (Severity::Warning, "replica_dropped", message)
            }
            Self::Admit { shard, replica, .. } => {
                let left = in_sync(next, *shard);
                let message =
                    format!("{who} admitted replica {replica} of shard {shard} of {name}: {left}");
                (Severity::Info, "replica_admitted", message)
            }
        }
    }

    /// Decides about it, as part of a decision.
    async fn decide(&self, decision: &mut Decision, volume: Uuid) -> Result<Asked, DbError> {
        let config = must_exist(decision.connection(), volume).await?;
        let decided = match decision.older_than_replicas(&config) {
            Some(denied) => Err(denied),
            None => self.apply(&config),
        };
        let next = match decided {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(Asked { config, denied: None }),
            Err(denied) => {
                tracing::info!(%volume, %denied, "a leader asked for what cannot be decided");
                return Ok(Asked { config, denied: Some(denied) });
            }
        };
        configs::store(decision, &config, &next, &[].into()).await?;
        let name = volume_name(decision.connection(), volume).await?;
        let who = node_word(decision.connection(), next.leader).await?;
        let (severity, kind, message) = self.news(&name, &who, &next);
        decision.note(severity, kind, &name, message);
        Ok(Asked { config: next, denied: None })
    }
}

fn in_sync(config: &VolumeConfig, shard: u32) -> String {
    let shard = usize::try_from(shard).ok().and_then(|shard| config.shards.get(shard));
    shard.map_or_else(String::new, |shard| {
        format!("{} of {} replicas are in sync", shard.in_sync_count(), shard.members.len())
    })
}

type Answer = Result<Decided<Asked>, DbError>;

#[derive(Debug)]
struct Waiting {
    volume: Uuid,
    ask: Ask,
    answer: oneshot::Sender<Answer>,
}

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Asks(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    urgent: VecDeque<Waiting>,
    others: VecDeque<Waiting>,
    /// A task decides, until nobody waits.
    running: bool,
}

impl Queue {
    fn pop(&mut self) -> Option<Waiting> {
        self.urgent.pop_front().or_else(|| self.others.pop_front())
    }
}

impl Asks {
    /// Decides about one, together with others that wait.
    async fn decide(
        self: &Arc<Self>,
        maker: &Maker,
        seconds: &Histogram,
        volume: Uuid,
        ask: Ask,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut queue = self.0.lock();
            if queue.urgent.len() + queue.others.len() >= WAITING_MAX {
                return Err(DbError::Unavailable(sqlx::Error::PoolTimedOut));
            }
            let waiting = Waiting { volume, ask, answer };
            match waiting.ask.is_urgent() {
                true => queue.urgent.push_back(waiting),
                false => queue.others.push_back(waiting),
            }
            !std::mem::replace(&mut queue.running, true)
        };
        if start {
            // On its own task: an asker that goes away must not take the others' answers along.
            let (maker, seconds) = (maker.clone(), seconds.clone());
            tokio::spawn(Task { asks: self.clone(), maker, seconds, ended: false }.run());
        }
        answered.await.unwrap_or(Err(DbError::Interrupted))
    }

    /// The next group, of those that still wait for an answer; none ends the task.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.0.lock();
        let mut group = Vec::new();
        while group.len() < GROUP_MAX
            && let Some(next) = queue.pop()
        {
            if !next.answer.is_closed() {
                group.push(next);
            }
        }
        queue.running = !group.is_empty();
        queue.running.then_some(group)
    }
}

struct Task {
    asks: Arc<Asks>,
    maker: Maker,
    seconds: Histogram,
    ended: bool,
}

impl Drop for Task {
    /// One that failed must not keep the next asker from starting another.
    fn drop(&mut self) {
        if !self.ended {
            self.asks.0.lock().running = false;
        }
    }
}

impl Task {
    async fn run(mut self) {
        while let Some(group) = self.asks.next() {
            match self.decide(&group).await {
                Ok(answers) => {
                    for (waiting, answer) in group.into_iter().zip(answers) {
                        let _ = waiting.answer.send(answer);
                    }
                }
                Err(error) => self.failed(group, error).await,
            }
        }
        self.ended = true;
    }

    /// What is wrong with one is no reason to refuse the others of its group. What is wrong with MetaDB is one to refuse all that
    /// wait: they would find out one group after the other.
    async fn failed(&self, group: Vec<Waiting>, error: DbError) {
        let mut group = VecDeque::from(group);
        let mut all = of_all(&error);
        while all.is_none() {
            let Some(waiting) = group.pop_front() else { return };
            let answer = match self.decide(std::slice::from_ref(&waiting)).await {
                Ok(alone) => alone.into_iter().next().unwrap_or(Err(DbError::Interrupted)),
                Err(error) => {
                    all = of_all(&error);
                    Err(error)
                }
            };
            let _ = waiting.answer.send(answer);
        }
        let (urgent, others) = {
            let mut queue = self.asks.0.lock();
            (std::mem::take(&mut queue.urgent), std::mem::take(&mut queue.others))
        };
        for Waiting { answer, .. } in group.into_iter().chain(urgent).chain(others) {
            let _ = answer.send(Err(all.as_ref().and_then(of_all).unwrap_or(DbError::Interrupted)));
        }
    }

    /// One decision about several. What is refused has written nothing.
    async fn decide(&self, group: &[Waiting]) -> Result<Vec<Answer>, DbError> {
        let timing = Timing { started: Instant::now(), seconds: self.seconds.clone() };
        let mut decision = Decision::begin(self.maker.clone(), timing).await?;
        let mut answers = Vec::new();
        for Waiting { volume, ask, .. } in group {
            answers.push(match ask.decide(&mut decision, *volume).await {
                Err(DbError::Refused(refusal)) => Err(refusal),
                asked => Ok(asked?),
            });
        }
        let Decided { value, revision } = decision.commit(answers).await?;
        let answer = |answer: Result<Asked, Refusal>| match answer {
            Ok(value) => Ok(Decided { value, revision }),
            Err(refusal) => Err(refusal.into()),
        };
        Ok(value.into_iter().map(answer).collect())
    }
}

/// The error once more, if it concerns everybody who waits.
fn of_all(error: &DbError) -> Option<DbError> {
    match error {
        DbError::Fenced => Some(DbError::Fenced),
        DbError::Interrupted => Some(DbError::Interrupted),
        DbError::Unknown(text) => Some(DbError::Unknown(text.clone())),
        DbError::Unavailable(sqlx::Error::PoolClosed) => {
            Some(DbError::Unavailable(sqlx::Error::PoolClosed))
        }
        DbError::Unavailable(error) => {
            Some(DbError::Unavailable(sqlx::Error::Protocol(error.to_string())))
        }
        DbError::Refused(_) | DbError::Database(_) | DbError::Damaged(_) => None,
    }
}
