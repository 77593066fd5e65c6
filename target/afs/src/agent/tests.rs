//! The agent against a conductor that does what the test says, over real HTTP.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, put};
use conductor::api::{ReportAnswer, StateNews, StateQuery, SubsystemNews};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(10);

pub(super) fn state(revision: u64) -> NodeState {
    NodeState {
        revision,
        node: "n1".to_owned(),
        cluster: Uuid::from_u128(7),
        volumes: vec![],
        retired: vec![],
        subsystems: vec![],
        portals: vec![],
        ..NodeState::default()
    }
}

/// All of a state.
fn whole(state: NodeState) -> StateNews {
    let subsystems = state.subsystems.into_iter().map(SubsystemNews::Whole).collect();
    StateNews {
        revision: state.revision,
        node: state.node,
        id: state.id,
        cluster: state.cluster,
        source: state.source,
        volumes: Some(state.volumes),
        retired: Some(state.retired),
        subsystems: Some(subsystems),
        portals: Some(state.portals),
        leads: Some(state.leads),
        peers: Some(state.peers),
    }
}

/// A node that only notes what it was told.
struct FakeNode {
    converged: watch::Sender<Vec<u64>>,
}

impl FakeNode {
    fn new() -> Arc<FakeNode> {
        Arc::new(FakeNode { converged: watch::Sender::new(vec![]) })
    }

    async fn wait_for(&self, revision: u64) {
        let mut converged = self.converged.subscribe();
        timeout(SOON, converged.wait_for(|all| all.last() == Some(&revision)))
            .await
            .unwrap()
            .unwrap();
    }
}

impl Converge for FakeNode {
    async fn converge(&self, state: &NodeState) {
        self.converged.send_modify(|all| all.push(state.revision));
    }

    fn report(&self, applied_revision: u64) -> NodeReport {
        NodeReport {
            node: "n1".to_owned(),
            applied_revision,
            portals: vec![],
            disks: vec![],
            volumes: vec![],
            deleted: vec![],
            http: None,
            version: String::new(),
            ..NodeReport::default()
        }
    }
}

/// A conductor with one node.
struct FakeConductor {
    state: watch::Sender<StateNews>,
    reports: watch::Sender<Vec<NodeReport>>,
}

impl FakeConductor {
    fn new(revision: u64) -> Arc<FakeConductor> {
        Arc::new(FakeConductor {
            state: watch::Sender::new(whole(state(revision))),
            reports: watch::Sender::new(vec![]),
        })
    }

    async fn listen(self: &Arc<Self>, address: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
        let router = axum::Router::new()
            .route("/api/v1/nodes/n1/state", get(give_state))
            .route("/api/v1/nodes/n1/report", put(take_report))
            .with_state(Arc::clone(self));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        (address, tokio::spawn(async { axum::serve(listener, router).await.unwrap() }))
    }

    async fn wait_for_applied(&self, revision: u64) {
        let mut reports = self.reports.subscribe();
        let applied = |all: &Vec<NodeReport>| {
            all.last().is_some_and(|last| last.applied_revision == revision)
        };
        timeout(SOON, reports.wait_for(applied)).await.unwrap().unwrap();
    }
}

async fn give_state(
    State(conductor): State<Arc<FakeConductor>>,
    Query(query): Query<StateQuery>,
) -> Response {
    if conductor.reports.borrow().is_empty() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let mut news = conductor.state.subscribe();
    // Whoever knows nothing is told everything.
    if query.after.is_none() && news.borrow().volumes.is_none() {
        let revision = news.borrow().revision + 1;
        conductor.state.send_replace(whole(state(revision)));
    }
    let wait = Duration::from_secs(query.wait.unwrap_or(0));
    match timeout(wait, news.wait_for(|news| Some(news.revision) != query.after)).await {
        Ok(news) => Json(news.unwrap().clone()).into_response(),
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn take_report(
    State(conductor): State<Arc<FakeConductor>>,
    Json(report): Json<NodeReport>,
) -> Json<ReportAnswer> {
    conductor.reports.send_modify(|all| all.push(report));
    let state = conductor.state.borrow();
    Json(ReportAnswer { revision: state.revision, report_every_ms: 3000, cluster: state.cluster })
}

struct RunningAgent {
    agent: Arc<Agent<FakeNode>>,
    node: Arc<FakeNode>,
    task: JoinHandle<()>,
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start(conductor: SocketAddr, data: &Path) -> RunningAgent {
    start_with(format!("http://{conductor}"), None, data)
}

fn start_with(
    conductor: String,
    found: Option<watch::Receiver<Conductors>>,
    data: &Path,
) -> RunningAgent {
    let config = AgentConfig { node: "n1".to_owned(), conductor, found, data: data.to_owned() };
    let node = FakeNode::new();
    let agent = Agent::new(config, Arc::clone(&node)).unwrap();
    let task = tokio::spawn(Arc::clone(&agent).run());
    RunningAgent { agent, node, task }
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test]
async fn each_revision_is_put_into_effect_and_reported_at_once() {
    let data = tempfile::tempdir().unwrap();
    let conductor = FakeConductor::new(5);
    let (address, _server) = conductor.listen(anywhere()).await;
    let running = start(address, data.path());
    running.node.wait_for(5).await;
    conductor.wait_for_applied(5).await;
    // Lower than before, as after a restore of MetaDB: it counts all the same.
    for revision in [6, 9, 4] {
        conductor.state.send_replace(whole(state(revision)));
        running.node.wait_for(revision).await;
        conductor.wait_for_applied(revision).await;
    }
    assert_eq!(*running.agent.applied().borrow(), Some(4));
    assert_eq!(*running.node.converged.borrow(), [5, 6, 9, 4]);
}

#[tokio::test]
async fn what_is_not_said_is_as_it_was_and_who_does_not_know_it_asks_for_all() {
    let data = tempfile::tempdir().unwrap();
    let conductor = FakeConductor::new(5);
    let told = NodeState { retired: vec![Uuid::from_u128(9)], ..state(5) };
    conductor.state.send_replace(whole(told.clone()));
    let (address, _server) = conductor.listen(anywhere()).await;
    let running = start(address, data.path());
    running.node.wait_for(5).await;
    let nothing_new = StateNews { revision: 6, node: told.node.clone(), ..StateNews::default() };
    let nothing_new = StateNews { cluster: told.cluster, source: told.source, ..nothing_new };
    conductor.state.send_replace(nothing_new.clone());
    running.node.wait_for(6).await;
    let saved = saved::load(data.path()).unwrap();
    assert_eq!(saved, Some(NodeState { revision: 6, ..told }));

    // A conductor that took over does not know what was said before.
    let source = Uuid::from_u128(3);
    conductor.state.send_replace(StateNews { revision: 7, source, ..nothing_new });
    running.node.wait_for(8).await;
    assert_eq!(*running.node.converged.borrow(), [5, 6, 8]);
    assert_eq!(saved::load(data.path()).unwrap(), Some(state(8)));
}

#[tokio::test]
async fn restart_without_conductor_serves_what_was_saved_and_follows_when_it_is_back() {
    let data = tempfile::tempdir().unwrap();
    let conductor = FakeConductor::new(5);
    let (address, server) = conductor.listen(anywhere()).await;
    let first = start(address, data.path());
    first.node.wait_for(5).await;
    drop(first);
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());

    let second = start(address, data.path());
    second.node.wait_for(5).await;
    let back = FakeConductor::new(6);
    let (_, _server) = back.listen(address).await;
    second.node.wait_for(6).await;
    back.wait_for_applied(6).await;
}

#[tokio::test]
async fn nothing_is_put_into_effect_before_the_first_answer() {
    let data = tempfile::tempdir().unwrap();
    let reserved = TcpListener::bind(anywhere()).await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let running = start(address, data.path());
    let mut applied = running.agent.applied();
    assert!(timeout(Duration::from_millis(300), applied.changed()).await.is_err());
    let conductor = FakeConductor::new(1);
    let (_, _server) = conductor.listen(address).await;
    running.node.wait_for(1).await;
}

#[tokio::test]
async fn a_conductor_of_another_cluster_is_not_obeyed() {
    let data = tempfile::tempdir().unwrap();
    saved::save(data.path(), &state(5)).unwrap();
    let conductor = FakeConductor::new(6);
    conductor.state.send_modify(|state| state.cluster = Uuid::from_u128(8));
    let (address, _server) = conductor.listen(anywhere()).await;
    let running = start(address, data.path());
    let mut reports = conductor.reports.subscribe();
    timeout(SOON, reports.wait_for(|all| all.len() >= 2)).await.unwrap().unwrap();
    running.node.wait_for(5).await;
    assert_eq!(saved::load(data.path()).unwrap(), Some(state(5)));
    conductor.state.send_replace(whole(state(7)));
    running.node.wait_for(7).await;
    assert_eq!(*running.node.converged.borrow(), [5, 7]);
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_with_an_example() {
    for url in ["127.0.0.1:49180", "ftp://x", "http://127.0.0.1:1,x"] {
        let config = AgentConfig {
            node: "n1".to_owned(),
            conductor: url.to_owned(),
            found: None,
            data: "/".into(),
        };
        let error = Agent::new(config, FakeNode::new()).err().unwrap().to_string();
        assert!(error.contains("http://127.0.0.1:49180"), "{error}");
    }
}

/// Leads to `active`, as a conductor that stands by does.
async fn standby(active: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let lead = move |uri: axum::http::Uri| async move {
        axum::response::Redirect::temporary(&format!("http://{active}{uri}"))
    };
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(lead);
    (address, tokio::spawn(async { axum::serve(listener, router).await.unwrap() }))
}

#[tokio::test]
async fn the_active_conductor_is_found_through_one_that_stands_by_and_one_that_is_gone() {
    let data = tempfile::tempdir().unwrap();
    let reserved = TcpListener::bind(anywhere()).await.unwrap();
    let gone = reserved.local_addr().unwrap();
    drop(reserved);
    let first = FakeConductor::new(5);
    let (first_address, first_server) = first.listen(anywhere()).await;
    let (led, _server) = standby(first_address).await;
    let running = start_with(format!("http://{gone},http://{led}"), None, data.path());
    running.node.wait_for(5).await;
    first.wait_for_applied(5).await;

    // The active one dies; the one that led to it leads to its successor now.
    first_server.abort();
    let _ = first_server.await;
    _server.abort();
    let _ = _server.await;
    let second = FakeConductor::new(6);
    let (_, _second) = second.listen(led).await;
    running.node.wait_for(6).await;
    second.wait_for_applied(6).await;
}

#[tokio::test]
async fn what_zookeeper_says_ends_the_wait_for_a_conductor_that_hangs() {
    let data = tempfile::tempdir().unwrap();
    let hanging = TcpListener::bind(anywhere()).await.unwrap();
    let found = watch::Sender::new(Conductors::default());
    let configured = format!("http://{}", hanging.local_addr().unwrap());
    let running = start_with(configured, Some(found.subscribe()), data.path());
    let (_silent, _) = hanging.accept().await.unwrap();
    let active = FakeConductor::new(5);
    let (address, _server) = active.listen(anywhere()).await;
    let record = afs_coordination::ConductorRecord {
        api: format!("http://{address}"),
        host: String::new(),
        software: String::new(),
        token: Some(2),
    };
    let begin = std::time::Instant::now();
    found.send_replace(Conductors(Arc::new(vec![record])));
    running.node.wait_for(5).await;
    active.wait_for_applied(5).await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}
