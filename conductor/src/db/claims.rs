//! Claims, decided in groups. After a restart of the conductor or of a large cluster there are as many as volumes, so those that
//! wait share one transaction and its COMMIT. One group is under way at a time: other decisions, which are fewer and more urgent
//! (elections, dropped replicas, nodes that come), wait behind one group and not behind all claims.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use afs_decisions::NodeId;
use metrics::Histogram;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::decision::{Decision, Maker, Timing};
use super::{Asked, DbError, Decided, replication};

/// Others wait for so many claims at most, some tens of milliseconds.
const GROUP_MAX: usize = 64;

/// More than there can be connections.
const WAITING_MAX: usize = 1 << 16;

/// A leader that starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimant {
    pub(super) volume: Uuid,
    pub(super) node: NodeId,
    pub(super) process: u64,
}

type Answer = Result<Decided<Asked>, DbError>;

#[derive(Debug)]
struct Waiting {
    claimant: Claimant,
    answer: oneshot::Sender<Answer>,
}

/// Claims that wait.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// A task decides, until nobody waits.
    running: bool,
}

impl Claims {
    /// Decides about a claim, together with others that wait.
    pub(super) async fn decide(
        self: &Arc<Self>,
        maker: &Maker,
        seconds: &Histogram,
        claimant: Claimant,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut queue = self.0.lock();
            if queue.waiting.len() >= WAITING_MAX {
                return Err(DbError::Unavailable(sqlx::Error::PoolTimedOut));
            }
            queue.waiting.push_back(Waiting { claimant, answer });
            !std::mem::replace(&mut queue.running, true)
        };
        if start {
            // On its own task: a claimant that goes away must not take the others' answers along.
            let task =
                Task { claims: self.clone(), maker: maker.clone(), seconds: seconds.clone() };
            tokio::spawn(task.run());
        }
        answered.await.unwrap_or(Err(DbError::Interrupted))
    }

    /// The next group, of those that still wait for an answer; none ends the task.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.0.lock();
        let mut group = Vec::new();
        while group.len() < GROUP_MAX
            && let Some(next) = queue.waiting.pop_front()
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
    claims: Arc<Claims>,
    maker: Maker,
    seconds: Histogram,
}

impl Task {
    async fn run(self) {
        while let Some(group) = self.claims.next() {
            let claimants: Vec<Claimant> = group.iter().map(|it| it.claimant).collect();
            match self.decide(&claimants).await {
                Ok(answers) => {
                    for (waiting, answer) in group.into_iter().zip(answers) {
                        let _ = waiting.answer.send(Ok(answer));
                    }
                }
                Err(error) => self.failed(group, error).await,
            }
        }
    }

    /// What is wrong with one claim is no reason to refuse the others of its group. What is wrong with MetaDB is one to refuse
    /// all that wait: they would find out one group after the other.
    async fn failed(&self, group: Vec<Waiting>, error: DbError) {
        if of_all(&error).is_none() {
            for Waiting { claimant, answer } in group {
                let alone = self.decide(&[claimant]).await;
                let alone =
                    alone.and_then(|all| all.into_iter().next().ok_or(DbError::Interrupted));
                let _ = answer.send(alone);
            }
            return;
        }
        let waiting = std::mem::take(&mut self.claims.0.lock().waiting);
        for Waiting { answer, .. } in group.into_iter().chain(waiting) {
            let _ = answer.send(Err(of_all(&error).unwrap_or(DbError::Interrupted)));
        }
    }

    /// One decision about several claims.
    async fn decide(&self, claimants: &[Claimant]) -> Result<Vec<Decided<Asked>>, DbError> {
        let timing = Timing { started: Instant::now(), seconds: self.seconds.clone() };
        let mut decision = Decision::begin(self.maker.clone(), timing).await?;
        let mut answers = Vec::new();
        for claimant in claimants {
            answers.push(replication::claim_in(&mut decision, *claimant).await?);
        }
        let Decided { value, revision } = decision.commit(answers).await?;
        Ok(value.into_iter().map(|value| Decided { value, revision }).collect())
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
