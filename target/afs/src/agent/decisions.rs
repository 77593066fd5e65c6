//! Carries the questions of this node's leaders to the conductor (`cluster::control`), several at a time.

use std::time::Duration;

use afs_decisions::NodeId;
use afs_volume::{Asker, ControlError};
use conductor::api::{AccuseRequest, AdmitRequest, ClaimRequest, DecisionAnswer, RenewRequest};
use reqwest::Url;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use crate::cluster::control::{ControlReceiver, Question, Reply};

/// How long one answer may take. A leader that waits longer than its leases last serves nothing meanwhile.
const ANSWER: Duration = Duration::from_secs(2);
/// Questions under way at a time, each on its own connection. The conductor answers them one after the other, or claims in groups,
/// of all nodes; it has connections for so many from 1024 nodes.
const AT_A_TIME: usize = 8;

/// The conductor's calls for leaders.
#[derive(Clone)]
pub struct Decisions {
    http: reqwest::Client,
    conductor: watch::Receiver<Option<Url>>,
}

impl Decisions {
    /// Asks whichever conductor the agent asks.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(conductor: watch::Receiver<Option<Url>>) -> anyhow::Result<Decisions> {
        let http = reqwest::Client::builder().connect_timeout(ANSWER).no_proxy().build()?;
        Ok(Decisions { http, conductor })
    }

    /// Answers questions until nobody can ask any more. `node` tells this node's number.
    pub async fn answer(self, mut questions: ControlReceiver, node: impl Fn() -> NodeId) {
        let permits = std::sync::Arc::new(Semaphore::new(AT_A_TIME));
        while let Some((question, reply)) = questions.recv().await {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let (decisions, node) = (self.clone(), node());
            tokio::spawn(async move {
                // A leader that does not wait any more asks again.
                let _ = reply.send(decisions.ask(node, &question).await);
                drop(permit);
            });
        }
    }

    async fn ask(&self, node: NodeId, question: &Question) -> Reply {
        match *question {
            Question::Claim { volume, process } => {
                self.post(volume, "claim", &ClaimRequest { node, process }).await
            }
            Question::Renew(Asker { volume, epoch, process }) => {
                self.post(volume, "renew", &RenewRequest { node, process, epoch }).await
            }
            Question::Accuse(Asker { volume, epoch, process }, shard, replica, ref unheard) => {
                let (unreachable, unheard) = (true, unheard.clone());
                let body =
                    AccuseRequest { node, process, epoch, shard, replica, unreachable, unheard };
                self.post(volume, "accuse", &body).await
            }
            Question::Admit(Asker { volume, epoch, process }, shard, replica) => {
                let body = AdmitRequest { node, process, epoch, shard, replica };
                self.post(volume, "admit", &body).await
            }
        }
    }

    async fn post(&self, volume: Uuid, call: &str, body: &(impl Serialize + Sync)) -> Reply {
        let answer = self.try_post(volume, call, body).await.map_err(|error| {
            tracing::debug!(%volume, call, %error, "no decision");
            ControlError::Unknown
        })?;
        match answer.denied {
            None => Ok(answer.config),
            Some(denied) => {
                tracing::info!(%volume, call, ?denied, "not decided");
                Err(ControlError::Denied(Box::new(answer.config)))
            }
        }
    }

    async fn try_post(
        &self,
        volume: Uuid,
        call: &str,
        body: &(impl Serialize + Sync),
    ) -> anyhow::Result<DecisionAnswer> {
        let conductor = self.conductor.borrow().clone();
        let conductor = conductor.ok_or_else(|| anyhow::anyhow!("no conductor is known"))?;
        let url = conductor.join(&format!("/api/v1/internal/volumes/{volume}/{call}"))?;
        let answer = self.http.post(url).json(body).timeout(ANSWER).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }
}
