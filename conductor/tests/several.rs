//! Several conductors as processes, with a real ZooKeeper: who is active, and who finds it.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use afs_coordination::{Coordination, NodeRecord, ZooKeeper, ZooKeeperConfig};
use common::*;
use conductor::api::*;
use conductor::db::MetaDb;
use conductor::server::{Conductor, StartError};
use nvmf_tests::process::{Tied, spawn, tied};
use nvmf_tests::zookeeper::{Server, server_for, shared_server_for};
use rustix::process::Signal;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_conductor");
const SESSION: Duration = Duration::from_millis(1500);

/// What a process of this program is to be instead of a test.
const MEMBER: &str = "AFS_TEST_CONDUCTOR";

/// One `conductor serve`.
struct Member {
    process: Tied,
    url: String,
}

impl Member {
    fn start(server: &Server, cluster: &str, folder: &Path, url: Option<&str>) -> Self {
        let api = match url {
            Some(url) => url.trim_start_matches("http://").to_owned(),
            None => TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string(),
        };
        let mut command = tied(PROGRAM);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CONDUCTOR_")) {
            command.env_remove(name);
        }
        command.args(["serve", "--api", &api, "--cluster", cluster, "--data"]).arg(folder);
        command.args(["--zookeeper", &server.address()]);
        command.args(["--zookeeper-session-timeout-ms", &SESSION.as_millis().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { process: spawn(command).unwrap(), url: format!("http://{api}") }
    }

    /// The same in a process of this very program, on PostgreSQL.
    fn on_postgres(server: &Server, cluster: &str, database: &str) -> Self {
        let api = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = tied(std::env::current_exe().unwrap());
        command.args(["--exact", "one_conductor_for_another_test"]);
        command.env(MEMBER, [&api, &server.address(), cluster, database].join(" "));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self { process: spawn(command).unwrap(), url: format!("http://{api}") }
    }

    async fn health(&self) -> String {
        match client().get(format!("{}/healthz", self.url)).send().await {
            Ok(answer) => {
                let answer: Value = answer.json().await.unwrap();
                answer["status"].as_str().unwrap_or("failed").to_owned()
            }
            Err(_) => "away".to_owned(),
        }
    }

    async fn until(&self, health: &str) -> Duration {
        let begin = Instant::now();
        eventually(health, async || self.health().await == health).await;
        begin.elapsed()
    }

    async fn metric(&self, name: &str) -> Option<String> {
        let page = client().get(format!("{}/metrics", self.url)).send().await.unwrap();
        let page = page.text().await.unwrap();
        page.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    }
}

/// The CLI, off the test's own thread.
async fn cli(api: &str, arguments: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.env_remove("CONDUCTOR_API").args(["--api", api]).args(arguments.split_whitespace());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn ok(api: &str, arguments: &str) -> String {
    let output = cli(api, arguments).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_conductor_is_replaced_and_everybody_finds_the_new_one() {
    let Some(server) =
        shared_server_for("a_killed_conductor_is_replaced_and_everybody_finds_the_new_one")
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let start = |url| Member::start(server, "killed", folder.path(), url);
    let mut first = start(None);
    first.until("ok").await;
    let mut second = start(None);
    second.until("standby").await;
    assert_eq!(first.metric("afs_conductor_active").await.as_deref(), Some("1"));
    assert_eq!(second.metric("afs_conductor_active").await.as_deref(), Some("0"));
    assert_eq!(second.metric("conductor_zookeeper_connected").await.as_deref(), Some("1"));

    // Whoever asks the one that stands by is led to the active one.
    let no_redirects = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let path = "/api/v1/volumes?x=1";
    let ask = || no_redirects.get(format!("{}{path}", second.url)).send();
    eventually("it knows the active one", async || ask().await.unwrap().status() == 307).await;
    let led = ask().await.unwrap();
    assert_eq!(led.headers()["location"], format!("{}{path}", first.url));
    let body: ErrorBody = led.json().await.unwrap();
    assert_eq!(body.error, ErrorCode::Standby);
    assert!(body.hint.contains(&first.url), "{}", body.hint);
    let node = FakeNode::start(&second.url, "n1", vec![disk(DiskKind::Store)]);
    node.wait_applied(1).await;
    ok(&second.url, "volume create v --size 1G").await;
    let status = ok(&second.url, "status").await;
    assert!(status.contains(&format!("{} on", first.url)), "{status}");
    assert!(status.contains("active") && status.contains("standby"), "{status}");

    first.process.kill().unwrap();
    let killed = Instant::now();
    // At once: it waits for the new one.
    let both = format!("{},{}", first.url, second.url);
    assert!(ok(&both, "volume list").await.contains("1G"));
    println!("fail-over took {:?} of a session of {SESSION:?}", killed.elapsed());
    assert!(ok(&second.url, "status").await.matches("standby").count() == 0);
    ok(&second.url, "volume create w --size 1G").await;
    let is_up = async || ok(&second.url, "node show n1").await.contains("up");
    eventually("the node reports to the new one", is_up).await;

    // The killed one comes back, stands by, and follows a planned stop without a time-out.
    let first = start(Some(&first.url));
    first.until("standby").await;
    ok(&first.url, "volume show w").await;
    second.process.terminate(DEADLINE).unwrap();
    let took = first.until("ok").await;
    assert!(took < SESSION, "a planned stop must not wait for a time-out: {took:?}");
    ok(&both, "volume show w").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_zookeeper_nobody_decides_and_after_it_one_does() {
    let Some(mut server) = server_for("without_zookeeper_nobody_decides_and_after_it_one_does")
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    server.stop().unwrap();
    let only = Member::start(&server, "outage", folder.path(), None);
    only.until("standby").await;
    server.resume().unwrap();
    only.until("ok").await;
    ok(&only.url, "volume list").await;

    server.stop().unwrap();
    only.until("standby").await;
    assert_eq!(only.metric("conductor_zookeeper_connected").await.as_deref(), Some("0"));
    let answer = client().get(format!("{}/api/v1/volumes", only.url)).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let body: ErrorBody = answer.json().await.unwrap();
    assert_eq!(body.error, ErrorCode::Standby);
    assert!(body.hint.contains("ZooKeeper"), "{}", body.hint);

    server.resume().unwrap();
    // The CLI waits for it.
    ok(&only.url, "volume list").await;
    assert_eq!(only.metric("conductor_zookeeper_connected").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_node_whose_registration_ends_is_down_long_before_its_reports_are_missed() {
    let name = "a_node_whose_registration_ends_is_down_long_before_its_reports_are_missed";
    let Some(server) = shared_server_for(name) else { return };
    let zookeeper = ZooKeeperConfig::new(&server.address(), "nodes").unwrap();
    let zookeeper = zookeeper.with_session_timeout(SESSION).unwrap();
    let cluster = Cluster::on_with(Home::sqlite(), |config| {
        config.zookeeper = Some(zookeeper.clone());
        config.node_timeout = DEADLINE * 10;
    })
    .await;
    eventually("it is active", async || cluster.running.is_active()).await;
    let node = cluster.node("n1").await;
    let registered = Coordination::ZooKeeper(ZooKeeper::start(zookeeper));
    registered.register(NodeRecord { name: "n1".to_owned(), ..NodeRecord::default() });
    // Seen by the conductor: an own watcher would not prove that.
    let state = async || cluster.get("/api/v1/nodes/n1").await.1["state"].clone();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(state().await, "up");

    node.knobs.lock().silent = true;
    tokio::time::sleep(Duration::from_millis(100)).await;
    registered.close().await;
    eventually("the node is down", async || state().await == "down").await;
    // What still reports is up, whatever ZooKeeper thinks.
    node.knobs.lock().silent = false;
    eventually("the node is up", async || state().await == "up").await;
    cluster.running.stop().await;
}

#[tokio::test]
async fn an_address_that_nobody_else_could_use_is_not_advertised() {
    let home = Home::sqlite();
    let mut config = config(&home);
    config.zookeeper = Some(ZooKeeperConfig::new("127.0.0.1:1", "c").unwrap());
    config.api_listen = "0.0.0.0:0".parse().unwrap();
    let error = Conductor::start(config.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::NotAnAddress { .. }), "{error}");
    assert!(error.to_string().contains("--advertise"));
    config.advertise = Some("http://192.0.2.1:1".to_owned());
    Conductor::start(config).await.unwrap().stop().await;
}

/// Both believe that they are active: each is the only one that it knows of.
#[tokio::test]
async fn of_two_that_think_that_they_are_active_the_older_one_is_refused() {
    let name = "of_two_that_think_that_they_are_active_the_older_one_is_refused";
    let Some(home) = Home::postgres(name) else { return };
    let older = Cluster::on(home).await;
    let body = |name: &str| serde_json::json!({"nqn": format!("nqn.2026-11.com.example:{name}")});
    assert_eq!(older.post("/api/v1/subsystems", body("a")).await.0, 200);
    let newer = Cluster::on(older.home.shared()).await;
    let (status, refused) = older.post("/api/v1/subsystems", body("b")).await;
    assert_eq!((status, &refused["error"]), (503, &serde_json::json!("standby")), "{refused}");
    assert_eq!(newer.post("/api/v1/subsystems", body("c")).await.0, 200);
    let list = newer.get("/api/v1/subsystems").await.1;
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
}

/// No test: see [`Member::on_postgres`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_conductor_for_another_test() {
    let Ok(member) = std::env::var(MEMBER) else { return };
    let parts: Vec<&str> = member.split(' ').collect();
    let &[api, zookeeper, cluster, database] = parts.as_slice() else { panic!("{member}") };
    let mut config = config(&Home::at(database));
    config.api_listen = api.parse().unwrap();
    let zookeeper = ZooKeeperConfig::new(zookeeper, cluster).unwrap();
    config.zookeeper = Some(zookeeper.with_session_timeout(SESSION).unwrap());
    let _running = Conductor::start(config).await.unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_conductor_is_replaced_and_decides_nothing_when_it_goes_on() {
    let name = "a_frozen_conductor_is_replaced_and_decides_nothing_when_it_goes_on";
    let Some(server) = shared_server_for(name) else { return };
    if !postgres::may_run(name) {
        return;
    }
    let database = postgres::database();
    let old = Member::on_postgres(server, "frozen", &database);
    old.until("ok").await;
    let new = Member::on_postgres(server, "frozen", &database);
    new.until("standby").await;
    ok(&new.url, "subsystem create nqn.2026-11.com.example:before").await;

    old.process.signal(Signal::STOP).unwrap();
    let took = new.until("ok").await;
    println!("fail-over from a frozen one took {took:?} of a session of {SESSION:?}");
    // The one that hangs does not keep a caller for long.
    let both = format!("{},{}", old.url, new.url);
    ok(&both, "subsystem create nqn.2026-11.com.example:meanwhile").await;

    // What reached it while it was frozen is the first that it does.
    let late = serde_json::json!({"nqn": "nqn.2026-11.com.example:late"});
    let no_redirects =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let late =
        no_redirects.build().unwrap().post(format!("{}/api/v1/subsystems", old.url)).json(&late);
    let late = tokio::spawn(late.send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    old.process.signal(Signal::CONT).unwrap();
    let late = in_time("an answer", late).await.unwrap().unwrap();
    let status = late.status().as_u16();
    let refused: ErrorBody = late.json().await.unwrap();
    println!("{status} {}", refused.message);
    assert!([503, 307].contains(&status), "{status}");
    assert_eq!(refused.error, ErrorCode::Standby);
    old.until("standby").await;
    assert_eq!(new.health().await, "ok", "the new one is not disturbed");
    let list = ok(&old.url, "subsystem list").await;
    assert!(list.contains("before") && list.contains("meanwhile"), "{list}");
    assert!(!list.contains("late"), "{list}");
}

#[tokio::test]
async fn a_conductor_whose_token_was_taken_ends_its_term_and_waits_for_its_next_turn() {
    let name = "a_conductor_whose_token_was_taken_ends_its_term_and_waits_for_its_next_turn";
    let Some(server) = shared_server_for(name) else { return };
    let Some(home) = Home::postgres(name) else { return };
    let cluster = Cluster::on_with(home, |config| {
        let zookeeper = ZooKeeperConfig::new(&server.address(), "fenced").unwrap();
        config.zookeeper = Some(zookeeper.with_session_timeout(SESSION).unwrap());
    })
    .await;
    eventually("it is active", async || cluster.running.is_active()).await;
    let body = |name: &str| serde_json::json!({"nqn": format!("nqn.2026-11.com.example:{name}")});
    let create = async |name| cluster.post("/api/v1/subsystems", body(name)).await;
    assert_eq!(create("a").await.0, 200);

    // As another conductor does that ZooKeeper has made the active one.
    let taken = MetaDb::open(&cluster.home.place).await.unwrap();
    let (status, refused) = create("b").await;
    assert_eq!((status, &refused["error"]), (503, &serde_json::json!("standby")), "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("taken over"), "{refused}");
    eventually("its term is over", async || !cluster.running.is_active()).await;
    taken.close().await;
    // Nobody else stands, so it is its turn again, with a token of its own.
    eventually("its next term", async || create("c").await.0 == 200).await;
    cluster.running.stop().await;
}
