//! The conductor's own metrics, as Prometheus text at `/metrics`.
//!
//! The recorder is this conductor's alone and is not installed for the process, so that a node's
//! metrics in the same process stay apart.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::ApiState;
use super::answer::{ApiError, WasFenced};
use super::front::Front;
use super::view::View;
use crate::api::NodeLiveness;

/// From a read out of cache to a change that waits for nodes.
const BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

const METADATA: Metadata<'static> = Metadata::new("conductor", Level::INFO, Some("conductor"));

/// Names, units and meanings, in the order of the page.
const GAUGES: [(&str, &str); 12] = [
    ("conductor_build_info", "Always 1; the label tells the version"),
    ("afs_conductor_active", "1 while this conductor decides, 0 while it stands by"),
    ("conductor_zookeeper_connected", "1 while ZooKeeper is there; absent where none is used"),
    ("conductor_revision", "Decisions made so far"),
    ("conductor_volumes", "Volumes"),
    ("conductor_volume_bytes", "Sum of the sizes of all volumes"),
    ("conductor_subsystems", "Subsystems"),
    ("conductor_namespaces", "Namespaces"),
    ("conductor_nodes", "Nodes by state"),
    ("conductor_disks", "Disks"),
    ("conductor_disk_total_bytes", "Bytes on all disks whose nodes are up"),
    ("conductor_disk_free_bytes", "Bytes not allocated on all disks whose nodes are up"),
];

/// The recorder and what renders it.
pub(super) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let builder = PrometheusBuilder::new();
        let with_buckets = builder.set_buckets(&BUCKETS);
        // It fails only for no buckets; then histograms would show as summaries.
        let builder = with_buckets.unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        describe(&recorder);
        let metrics = Self { recorder, handle };
        let version = Label::new("version", env!("CARGO_PKG_VERSION"));
        metrics.gauge("conductor_build_info", vec![version], 1);
        metrics
    }

    /// Where MetaDB records its decisions.
    pub(super) fn transaction_seconds(&self) -> Histogram {
        let key = Key::from_name("conductor_db_transaction_seconds");
        self.recorder.register_histogram(&key, &METADATA)
    }

    /// Folds samples into their buckets, so that they take no memory while nobody scrapes.
    pub(super) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    #[allow(clippy::cast_precision_loss, reason = "Prometheus knows only floating point")]
    fn gauge(&self, name: &'static str, labels: Vec<Label>, value: u64) {
        let key = Key::from_parts(name, labels);
        self.recorder.register_gauge(&key, &METADATA).set(value as f64);
    }

    fn request(&self, labels: Vec<Label>, took: Duration) {
        let total = Key::from_parts("conductor_requests_total", labels.clone());
        self.recorder.register_counter(&total, &METADATA).increment(1);
        let seconds = Key::from_parts("conductor_request_seconds", labels);
        self.recorder.register_histogram(&seconds, &METADATA).record(took.as_secs_f64());
    }

    /// The page.
    fn render(&self, front: &Front, view: Option<&View>) -> String {
        self.gauge("afs_conductor_active", Vec::new(), u64::from(view.is_some()));
        if let Some(connected) = front.zookeeper_connected() {
            self.gauge("conductor_zookeeper_connected", Vec::new(), u64::from(connected));
        }
        if let Some(view) = view {
            self.set(view);
        }
        self.handle.render()
    }

    /// The cluster as it is now. Who stands by shows it as it was at the end of its term.
    fn set(&self, view: &View) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let rows = &view.rows;
        self.gauge("conductor_revision", Vec::new(), rows.revision);
        self.gauge("conductor_volumes", Vec::new(), count(rows.volumes.len()));
        let bytes = rows.volumes.iter().map(|volume| volume.size_bytes).sum();
        self.gauge("conductor_volume_bytes", Vec::new(), bytes);
        self.gauge("conductor_subsystems", Vec::new(), count(rows.subsystems.len()));
        self.gauge("conductor_namespaces", Vec::new(), count(rows.namespaces.len()));
        for (state, word) in [
            (NodeLiveness::Up, "up"),
            (NodeLiveness::Down, "down"),
            (NodeLiveness::Unknown, "unknown"),
        ] {
            let nodes = view.live.values().filter(|node| node.liveness == state).count();
            self.gauge("conductor_nodes", vec![Label::new("state", word)], count(nodes));
        }
        let space = view.space();
        self.gauge("conductor_disks", Vec::new(), count(rows.disks.len()));
        self.gauge("conductor_disk_total_bytes", Vec::new(), space.total_bytes);
        self.gauge("conductor_disk_free_bytes", Vec::new(), space.free_bytes);
    }
}

fn describe(recorder: &PrometheusRecorder) {
    for (name, meaning) in GAUGES {
        recorder.describe_gauge(name.into(), None, meaning.into());
    }
    let requests = "Calls of the API by route, method and status";
    recorder.describe_counter("conductor_requests_total".into(), None, requests.into());
    let seconds = "Duration of calls; waiting calls of nodes and `events --follow` included";
    let unit = Some(Unit::Seconds);
    recorder.describe_histogram("conductor_request_seconds".into(), unit, seconds.into());
    let seconds = "Duration of MetaDB decisions, from asking for the lock to durable";
    recorder.describe_histogram("conductor_db_transaction_seconds".into(), unit, seconds.into());
}

/// Counts and times every call.
pub(super) async fn measure(
    State(front): State<ApiState>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    // The route, never the path itself: the number of series stays bounded.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let response = next.run(request).await;
    let labels = vec![
        Label::new("route", route),
        Label::new("method", method_word(&method)),
        Label::new("status", response.status().as_str().to_owned()),
    ];
    front.metrics.request(labels, started.elapsed());
    if response.extensions().get::<WasFenced>().is_some()
        && let Some(term) = front.term()
    {
        term.fenced();
    }
    response
}

/// A client may invent methods; the label does not follow.
fn method_word(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// Metrics
///
/// In the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(front): State<ApiState>) -> Result<String, ApiError> {
    let view = match front.term() {
        Some(shared) => Some(shared.view().await?),
        None => None,
    };
    Ok(front.metrics.render(&front, view.as_ref()))
}
