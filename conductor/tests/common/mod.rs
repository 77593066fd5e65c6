//! A conductor on a socket of its own, and a node that does what it is told.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its own part")]

pub mod postgres;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conductor::api::*;
use conductor::db::{Place, PostgresUrl};
use conductor::server::{Conductor, ConductorConfig, Running};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

pub const NQN: &str = "nqn.2026-11.com.example:a";
pub const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000001";
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Where a test's MetaDB is.
pub struct Home {
    pub place: Place,
    _folder: Option<TempDir>,
}

impl Home {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { place: folder.path().into(), _folder: Some(folder) }
    }

    pub fn postgres(test: &str) -> Option<Self> {
        if !postgres::may_run(test) {
            return None;
        }
        Some(Self::at(&postgres::database()))
    }

    pub fn at(url: &str) -> Self {
        Self { place: url.parse::<PostgresUrl>().unwrap().into(), _folder: None }
    }

    /// The same one, for a second conductor.
    pub fn shared(&self) -> Self {
        Self { place: self.place.clone(), _folder: None }
    }

    /// A second one of the same kind.
    pub async fn another(&self) -> Self {
        match self.place {
            Place::Folder(_) => Self::sqlite(),
            Place::Postgres(_) => Self::at(&postgres::database()),
        }
    }
}

/// A conductor for one test.
pub struct Cluster {
    pub running: Running,
    pub home: Home,
    pub http: reqwest::Client,
}

pub fn config(home: &Home) -> ConductorConfig {
    ConductorConfig::new(home.place.clone(), "127.0.0.1:0".parse().unwrap())
}

impl Cluster {
    pub async fn start() -> Self {
        Self::on(Home::sqlite()).await
    }

    pub async fn on(home: Home) -> Self {
        Self::on_with(home, |_| {}).await
    }

    pub async fn on_with(home: Home, change: impl FnOnce(&mut ConductorConfig)) -> Self {
        let mut config = config(&home);
        change(&mut config);
        let running = Conductor::start(config).await.unwrap();
        Self { running, home, http: client() }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.url())
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        read(self.http.get(self.url(path)).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        read(self.http.post(self.url(path)).json(&body).send().await.unwrap()).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> (u16, Value) {
        read(self.http.patch(self.url(path)).json(&body).send().await.unwrap()).await
    }

    pub async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        read(self.http.put(self.url(path)).json(&body).send().await.unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        read(self.http.delete(self.url(path)).send().await.unwrap()).await
    }

    /// A node with one store disk that converges at once.
    pub async fn node(&self, name: &str) -> FakeNode {
        let node = FakeNode::start(&self.running.url(), name, vec![disk(DiskKind::Store)]);
        node.wait_applied(1).await;
        node
    }
}

pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn read(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub fn disk(kind: DiskKind) -> DiskReport {
    DiskReport {
        uuid: Uuid::new_v4(),
        kind,
        path: format!("/{}", Uuid::new_v4()),
        total_bytes: 1 << 40,
        free_bytes: 1 << 40,
        state: DiskState::Online,
        error: None,
    }
}

pub fn report(node: &str, disks: Vec<DiskReport>) -> NodeReport {
    NodeReport {
        node: node.to_owned(),
        applied_revision: 0,
        portals: vec![PortalReport {
            transport: "tcp".to_owned(),
            address: "127.0.0.1".to_owned(),
            service: "4420".to_owned(),
        }],
        disks,
        volumes: Vec::new(),
        deleted: Vec::new(),
        http: Some("127.0.0.1:49181".to_owned()),
        version: "test".to_owned(),
        ..NodeReport::default()
    }
}

/// What a test tells a node to do wrong.
#[derive(Default)]
pub struct Knobs {
    pub silent: bool,
    pub idle: bool,
    pub fail: Option<String>,
}

/// A node without disks or hosts: it says that it did what it was told.
pub struct FakeNode {
    pub knobs: Arc<Mutex<Knobs>>,
    state: Arc<Mutex<Option<NodeState>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeNode {
    pub fn start(url: &str, name: &str, disks: Vec<DiskReport>) -> Self {
        let knobs = Arc::new(Mutex::new(Knobs::default()));
        let state = Arc::new(Mutex::new(None));
        let base = format!("{url}/api/v1/nodes/{name}");
        let task = tokio::spawn(run(base, report(name, disks), knobs.clone(), state.clone()));
        Self { knobs, state, task }
    }

    pub fn state(&self) -> NodeState {
        self.state.lock().clone().unwrap()
    }

    pub async fn wait_applied(&self, revision: u64) {
        eventually("the node applies the revision", async || {
            self.state.lock().as_ref().is_some_and(|state| state.revision >= revision)
        })
        .await;
    }
}

async fn run(
    base: String,
    mut report: NodeReport,
    knobs: Arc<Mutex<Knobs>>,
    seen: Arc<Mutex<Option<NodeState>>>,
) {
    let http = client();
    let pause = Duration::from_millis(20);
    let mut known: Option<NodeState> = None;
    loop {
        if knobs.lock().silent {
            tokio::time::sleep(pause).await;
            continue;
        }
        let Ok(answer) = http.put(format!("{base}/report")).json(&report).send().await else {
            tokio::time::sleep(pause).await;
            continue;
        };
        if answer.status() == 503 {
            tokio::time::sleep(pause).await;
            continue;
        }
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        let wait = u8::from(!knobs.lock().idle);
        let source = known.as_ref().map_or(Uuid::nil(), |known| known.source);
        let after = report.applied_revision;
        let url = format!("{base}/state?after={after}&source={source}&wait={wait}");
        let answer = http.get(url).send().await;
        // A knob that was turned during the wait counts.
        let (idle, fail) = {
            let knobs = knobs.lock();
            (knobs.idle, knobs.fail.clone())
        };
        match answer {
            Ok(answer) if answer.status() == 200 && !idle => {
                let news: StateNews = answer.json().await.unwrap();
                let state = news.after(known.as_ref()).unwrap();
                known = Some(state.clone());
                report.applied_revision = state.revision;
                report.deleted = state.retired.clone();
                report.volumes = state.volumes.iter().map(|v| converge(v, &fail)).collect();
                *seen.lock() = Some(state);
            }
            _ => tokio::time::sleep(pause).await,
        }
    }
}

fn converge(volume: &VolumeAssignment, fail: &Option<String>) -> VolumeReport {
    let state = if fail.is_some() { ReplicaState::Failed } else { ReplicaState::Ready };
    VolumeReport {
        volume: volume.volume,
        replica: volume.replica,
        allocated_bytes: 4096,
        state,
        error: fail.clone(),
        promised: 0,
    }
}

/// Waits for something to become true.
pub async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Fails rather than hang.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}
