//! What leaders ask the conductor: from the reactors over a bounded channel to the control threads, and by HTTP from there.

use afs_decisions::{NodeId, VolumeConfig};
use afs_volume::{Asker, Control, ControlError};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// Questions that wait for the control threads at most.
const QUESTIONS: usize = 4096;

/// One question.
#[derive(Clone, Debug)]
pub enum Question {
    /// See [`Control::claim`].
    Claim {
        /// The volume.
        volume: Uuid,
        /// The process.
        process: u64,
    },
    /// See [`Control::renew`].
    Renew(Asker),
    /// See [`Control::accuse`].
    Accuse(Asker, u32, Uuid, Vec<NodeId>),
    /// See [`Control::admit`].
    Admit(Asker, u32, Uuid),
}

/// An answer: the newest configuration.
pub type Reply = Result<VolumeConfig, ControlError>;

/// Asks; clones ask the same conductor.
#[derive(Clone)]
pub struct ControlSender(mpsc::Sender<(Question, oneshot::Sender<Reply>)>);

/// Where questions come out.
pub type ControlReceiver = mpsc::Receiver<(Question, oneshot::Sender<Reply>)>;

/// A way to ask, and where the questions come out.
pub fn channel() -> (ControlSender, ControlReceiver) {
    let (sender, receiver) = mpsc::channel(QUESTIONS);
    (ControlSender(sender), receiver)
}

impl ControlSender {
    async fn ask(&self, question: Question) -> Reply {
        let (sender, answer) = oneshot::channel();
        // A full or closed channel is a conductor that does not answer; the caller asks again.
        self.0.try_send((question, sender)).map_err(|_| ControlError::Unknown)?;
        answer.await.unwrap_or(Err(ControlError::Unknown))
    }
}

fn number(shard: usize) -> u32 {
    u32::try_from(shard).unwrap_or(u32::MAX)
}

impl Control for ControlSender {
    async fn claim(&self, volume: Uuid, process: u64) -> Reply {
        self.ask(Question::Claim { volume, process }).await
    }

    async fn renew(&self, asker: Asker) -> Reply {
        self.ask(Question::Renew(asker)).await
    }

    async fn accuse(
        &self,
        asker: Asker,
        shard: usize,
        replica: Uuid,
        unheard: Vec<NodeId>,
    ) -> Reply {
        self.ask(Question::Accuse(asker, number(shard), replica, unheard)).await
    }

    async fn admit(&self, asker: Asker, shard: usize, replica: Uuid) -> Reply {
        self.ask(Question::Admit(asker, number(shard), replica)).await
    }
}
