//! The API's client.

use std::time::Duration;

use conductor::api::ErrorBody;
use reqwest::{Method, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than any call may take, the waiting ones included.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// No query.
pub(super) const NO_QUERY: [(&str, String); 0] = [];

/// A conductor's API.
pub(super) struct Client {
    base: Url,
    http: reqwest::Client,
}

/// What the API answered to a call that it carried out.
pub(super) struct Reply {
    text: String,
}

impl Reply {
    /// The answer as one of the API's types.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.text)
            .map_err(Failure::other("the answer is none of a conductor of this version"))
    }
}

impl Client {
    /// A client of the conductor at this URL; `http://` may be left out.
    pub(super) fn new(url: &str) -> Result<Self, Failure> {
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let base = Url::parse(&full).map_err(|error| {
            Failure::Usage(format!("`{url}` is not the URL of a conductor: {error}"))
        })?;
        if base.scheme() != "http" || base.cannot_be_a_base() {
            let text = format!("`{url}` cannot be used: the conductor speaks plain HTTP, http://");
            return Err(Failure::Usage(text));
        }
        // The conductor is near; a proxy of the environment is for other things.
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .build()
            .map_err(Failure::other("cannot make an HTTP client"))?;
        Ok(Self { base, http })
    }

    pub(super) async fn get(&self, path: &[&str]) -> Result<Reply, Failure> {
        self.call(Method::GET, path, &NO_QUERY, None::<&()>).await
    }

    pub(super) async fn get_query(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Reply, Failure> {
        self.call(Method::GET, path, query, None::<&()>).await
    }

    pub(super) async fn post(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Reply, Failure> {
        self.call(Method::POST, path, &NO_QUERY, Some(body)).await
    }

    pub(super) async fn patch(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Reply, Failure> {
        self.call(Method::PATCH, path, &NO_QUERY, Some(body)).await
    }

    /// Deletes what has this version, or whatever is there.
    pub(super) async fn delete(
        &self,
        path: &[&str],
        version: Option<u64>,
    ) -> Result<Reply, Failure> {
        let query: Vec<_> =
            version.iter().map(|version| ("version", version.to_string())).collect();
        self.call(Method::DELETE, path, &query, None::<&()>).await
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<Reply, Failure> {
        let mut request = self.http.request(method, self.url(path, query)?);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.not_reached(&error))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| self.not_reached(&error))?;
        if status.is_success() {
            return Ok(Reply { text });
        }
        match serde_json::from_str::<ErrorBody>(&text) {
            Ok(body) => Err(Failure::Refused(body)),
            Err(_) => Err(Failure::Other(format!(
                "{} answered {status}, which is not how a conductor answers; check --api",
                self.base
            ))),
        }
    }

    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url, Failure> {
        // URLs drop such segments, and the call would go somewhere else.
        if let Some(bad) = path.iter().find(|segment| ["", ".", ".."].contains(*segment)) {
            return Err(Failure::Usage(format!("`{bad}` cannot be a name")));
        }
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    fn not_reached(&self, error: &reqwest::Error) -> Failure {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let url = self.base.as_str().trim_end_matches('/').to_owned();
        Failure::NotReached { url, reason: cause.to_string() }
    }
}
