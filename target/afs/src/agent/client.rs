//! The two calls that a node makes.

use std::time::Duration;

use conductor::api::{NodeReport, NodeState, ReportAnswer, StateQuery};
use reqwest::{Response, StatusCode, Url};
use uuid::Uuid;

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

/// A connection to one conductor.
pub(super) struct Client {
    http: reqwest::Client,
    state: Url,
    report: Url,
}

impl Client {
    /// A client of the conductor at `url`, on behalf of `node`.
    pub(super) fn new(url: &str, node: &str) -> anyhow::Result<Client> {
        let base = Url::parse(url)?;
        anyhow::ensure!(
            matches!(base.scheme(), "http" | "https"),
            "it must begin with http:// or https://"
        );
        let call = |name: &str| base.join(&format!("/api/v1/nodes/{node}/{name}"));
        // A proxy from the environment must not come between a node and its conductor.
        let http = reqwest::Client::builder().connect_timeout(CONNECT).no_proxy().build()?;
        Ok(Client { http, state: call("state")?, report: call("report")? })
    }

    /// The state, once it differs from revision `after`; `None` when it did not for a while.
    pub(super) async fn state(&self, after: Option<u64>) -> Result<Option<NodeState>, ClientError> {
        let wait = after.map(|_| WAIT.as_secs());
        let request = self.http.get(self.state.clone()).query(&StateQuery { after, wait });
        let answer = request.timeout(WAIT + ANSWER).send().await?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(None),
            StatusCode::NOT_FOUND => Err(ClientError::UnknownNode),
            _ => Ok(Some(serde_json::from_slice(&body(answer).await?)?)),
        }
    }

    /// Reports.
    pub(super) async fn report(&self, report: &NodeReport) -> Result<ReportAnswer, ClientError> {
        let request = self.http.put(self.report.clone()).json(report);
        Ok(serde_json::from_slice(&body(request.timeout(ANSWER).send().await?).await?)?)
    }
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
