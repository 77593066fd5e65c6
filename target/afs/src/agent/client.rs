//! The two calls that a node makes.

use std::time::Duration;

use conductor::api::{NodeReport, NodeState, ReportAnswer, StateNews, StateQuery};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use uuid::Uuid;

use super::conductors::Conductors;

/// How long the conductor may hold a request for a state that did not change.
const WAIT: Duration = Duration::from_secs(30);
/// How long anything else may take.
const ANSWER: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(2);
/// A state with the most volumes and subsystems that we allow is well below this.
const BODY_BYTES_MAX: usize = 256 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke, or it took too long.
    #[error("{}", with_causes(.0))]
    Http(#[from] reqwest::Error),
    /// The conductor does not know this node yet.
    #[error("the conductor does not know this node yet")]
    UnknownNode,
    /// Another answer than the API allows.
    #[error("the conductor answered {status}: {body}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// What it said, cut short.
        body: String,
    },
    /// The body is no such object.
    #[error("the conductor's answer makes no sense: {0}")]
    Json(#[from] serde_json::Error),
    /// The body is too large.
    #[error("the conductor's answer is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// The URL leads to the conductor of something else.
    #[error(
        "it belongs to cluster {theirs}, this node to {ours}; correct the URL, or remove state.json from the data folder to join that cluster"
    )]
    Foreign {
        /// The conductor's cluster.
        theirs: Uuid,
        /// The node's.
        ours: Uuid,
    },
    /// No address of a conductor is known.
    #[error("ZooKeeper has not named a conductor yet, and no `conductor` is configured")]
    Nowhere,
    /// Another conductor is to be asked instead.
    #[error("another conductor is asked now")]
    Moved,
    /// Something is missing of which was not said before what it is.
    #[error("the conductor told a part of the state whose rest is not known here")]
    Incomplete,
    /// A state was asked for without condition and none came.
    #[error("the conductor gave no state")]
    Empty,
}

/// `reqwest` keeps the reason ("connection refused") in the causes of its errors.
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A connection to the conductors, of which one is active.
pub(super) struct Client {
    http: reqwest::Client,
    node: String,
    conductors: Conductors,
}

impl Client {
    /// A client of the conductors at `urls`, which are separated by commas, on behalf of `node`.
    pub(super) fn new(urls: &str, node: &str) -> anyhow::Result<Client> {
        let urls = urls.split(',').map(str::trim).filter(|url| !url.is_empty());
        let urls = urls.map(base).collect::<anyhow::Result<Vec<_>>>()?;
        // A proxy from the environment must not come between a node and its conductor.
        let http = reqwest::Client::builder().connect_timeout(CONNECT).no_proxy().build()?;
        Ok(Client { http, node: node.to_owned(), conductors: Conductors::new(urls) })
    }

    /// Which of the conductors it talks to.
    pub(super) fn conductors(&self) -> &Conductors {
        &self.conductors
    }

    /// The state, once there is another than this one; `None` when there was not for a while.
    pub(super) async fn state(
        &self,
        known: Option<&NodeState>,
    ) -> Result<Option<NodeState>, ClientError> {
        let query = StateQuery {
            after: known.map(|known| known.revision),
            source: known.map(|known| known.source),
            wait: known.map(|_| WAIT.as_secs()),
        };
        let answer =
            self.call("state", |url| self.http.get(url).query(&query).timeout(WAIT + ANSWER));
        let answer = answer.await?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(None),
            StatusCode::NOT_FOUND => Err(ClientError::UnknownNode),
            _ => {
                let news: StateNews = serde_json::from_slice(&body(answer).await?)?;
                news.after(known).map(Some).ok_or(ClientError::Incomplete)
            }
        }
    }

    /// Reports.
    pub(super) async fn report(&self, report: &NodeReport) -> Result<ReportAnswer, ClientError> {
        let answer = self.call("report", |url| self.http.put(url).json(report).timeout(ANSWER));
        Ok(serde_json::from_slice(&body(answer.await?).await?)?)
    }

    /// Asks the conductor that is chosen; gives up when another one is.
    async fn call(
        &self,
        name: &str,
        request: impl FnOnce(Url) -> RequestBuilder,
    ) -> Result<Response, ClientError> {
        let mut chosen = self.conductors.chosen();
        let base = chosen.borrow_and_update().clone().ok_or(ClientError::Nowhere)?;
        let Ok(url) = base.join(&format!("/api/v1/nodes/{}/{name}", self.node)) else {
            return Err(ClientError::Nowhere);
        };
        let answer = tokio::select! {
            answer = request(url).send() => answer,
            // The sender is this client's own.
            _ = chosen.changed() => return Err(ClientError::Moved),
        };
        match answer {
            Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => {
                self.conductors.failed(&base);
                Ok(answer)
            }
            Ok(answer) => {
                self.conductors.answered(answer.url());
                Ok(answer)
            }
            Err(error) => {
                self.conductors.failed(&base);
                Err(error.into())
            }
        }
    }
}

pub(super) fn base(url: &str) -> anyhow::Result<Url> {
    let base = Url::parse(url)?;
    anyhow::ensure!(
        matches!(base.scheme(), "http" | "https"),
        "it must begin with http:// or https://"
    );
    Ok(base.join("/")?)
}

async fn body(mut answer: Response) -> Result<Vec<u8>, ClientError> {
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await? {
        if body.len() + part.len() > BODY_BYTES_MAX {
            return Err(ClientError::TooLarge);
        }
        body.extend_from_slice(&part);
    }
    if status.is_success() {
        return Ok(body);
    }
    let body = String::from_utf8_lossy(&body).chars().take(300).collect();
    Err(ClientError::Refused { status, body })
}
