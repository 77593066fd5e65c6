//! The API's client.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use conductor::api::{ErrorBody, ErrorCode};
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than any call may take, the waiting ones included.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// No query.
pub(super) const NO_QUERY: [(&str, String); 0] = [];

/// How long to look for an active conductor while there is none. A fail-over takes less.
const SEEK: Duration = Duration::from_secs(8);
const SEEK_PAUSE: Duration = Duration::from_millis(250);
/// How long one of several conductors may take to say that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The API of a conductor, or of several of which one is active.
pub(super) struct Client {
    /// The first one is asked; it leads to the active one.
    bases: RefCell<Vec<Url>>,
    http: reqwest::Client,
}

/// Why an attempt did not succeed.
enum Missed {
    /// Nothing was carried out; another conductor may do it, perhaps in a moment.
    Elsewhere(Failure),
    /// Nobody listens there, so nothing was carried out.
    NotThere(Failure),
    /// An answer, or an end of which it is not known what was carried out.
    Final(Failure),
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
    /// A client of the conductors at these URLs, with commas between them; `http://` may be left
    /// out.
    pub(super) fn new(urls: &str) -> Result<Self, Failure> {
        let bases = urls.split(',').map(|url| base(url.trim())).collect::<Result<Vec<_>, _>>()?;
        // The conductor is near; a proxy of the environment is for other things.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .tls_certs_only([])
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .build()
            .map_err(Failure::other("cannot make an HTTP client"))?;
        Ok(Self { bases: RefCell::new(bases), http })
    }

    /// Of several conductors, puts one first that answers: one that hangs would hold up a call for
    /// long.
    pub(super) async fn find(&self) {
        let bases = self.bases.borrow().clone();
        if bases.len() < 2 {
            return;
        }
        for (index, base) in bases.iter().enumerate() {
            let Ok(url) = base.join("/healthz") else { continue };
            if self.http.get(url).timeout(PROBE_TIMEOUT).send().await.is_ok() {
                self.bases.borrow_mut().swap(0, index);
                return;
            }
        }
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
        let begin = Instant::now();
        loop {
            let mut elsewhere = None;
            let mut not_there = None;
            let bases = self.bases.borrow().clone();
            for (index, base) in bases.iter().enumerate() {
                match self.attempt(base, &method, path, query, body).await {
                    Ok(reply) => {
                        self.bases.borrow_mut().swap(0, index);
                        return Ok(reply);
                    }
                    Err(Missed::Final(failure)) => return Err(failure),
                    Err(Missed::Elsewhere(failure)) => elsewhere = Some(failure),
                    Err(Missed::NotThere(failure)) => not_there = not_there.or(Some(failure)),
                }
            }
            match (elsewhere, not_there) {
                (Some(_), _) if begin.elapsed() < SEEK => tokio::time::sleep(SEEK_PAUSE).await,
                (Some(failure), _) | (None, Some(failure)) => return Err(failure),
                (None, None) => return Err(Failure::Usage("no conductor to ask".to_owned())),
            }
        }
    }

    async fn send(
        &self,
        method: &Method,
        url: Url,
        body: Option<&impl Serialize>,
    ) -> Result<Response, reqwest::Error> {
        let mut request = self.http.request(method.clone(), url);
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await
    }

    /// One call of one conductor, and of the active one when that one knows it.
    async fn attempt(
        &self,
        base: &Url,
        method: &Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<Reply, Missed> {
        let url = url(base, path, query).map_err(Missed::Final)?;
        let response = self.send(method, url, body).await.map_err(|error| {
            let failure = not_reached(base, &error);
            if error.is_connect() { Missed::NotThere(failure) } else { Missed::Final(failure) }
        })?;
        let response = match led_to(&response) {
            None => response,
            // One that is gone has a successor soon.
            Some(url) => self.send(method, url.clone(), body).await.map_err(|error| {
                let failure = not_reached(&url, &error);
                if error.is_connect() { Missed::Elsewhere(failure) } else { Missed::Final(failure) }
            })?,
        };
        let status = response.status();
        let text =
            response.text().await.map_err(|error| Missed::Final(not_reached(base, &error)))?;
        if status.is_success() {
            return Ok(Reply { text });
        }
        match serde_json::from_str::<ErrorBody>(&text) {
            Ok(body) if body.error == ErrorCode::Standby => {
                Err(Missed::Elsewhere(Failure::Refused(body)))
            }
            Ok(body) => Err(Missed::Final(Failure::Refused(body))),
            Err(_) => Err(Missed::Final(Failure::Other(format!(
                "{base} answered {status}, which is not how a conductor answers; check --api"
            )))),
        }
    }
}

fn base(url: &str) -> Result<Url, Failure> {
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let base = Url::parse(&full).map_err(|error| {
        Failure::Usage(format!("`{url}` is not the URL of a conductor: {error}"))
    })?;
    if base.scheme() != "http" || base.cannot_be_a_base() {
        let text = format!("`{url}` cannot be used: the conductor speaks plain HTTP, http://");
        return Err(Failure::Usage(text));
    }
    Ok(base)
}

fn url(base: &Url, path: &[&str], query: &[(&str, String)]) -> Result<Url, Failure> {
    // URLs drop such segments, and the call would go somewhere else.
    if let Some(bad) = path.iter().find(|segment| ["", ".", ".."].contains(*segment)) {
        return Err(Failure::Usage(format!("`{bad}` cannot be a name")));
    }
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["api", "v1"]).extend(path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

/// Where a conductor that stands by says that the active one is.
fn led_to(response: &Response) -> Option<Url> {
    if response.status() != StatusCode::TEMPORARY_REDIRECT {
        return None;
    }
    response.url().join(response.headers().get(LOCATION)?.to_str().ok()?).ok()
}

fn not_reached(base: &Url, error: &reqwest::Error) -> Failure {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let url = base.as_str().split("/api/v1").next().unwrap_or_default();
    let url = url.trim_end_matches('/').to_owned();
    Failure::NotReached { url, reason: cause.to_string() }
}
