//! The `conductor` program as a user runs it.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use common::*;
use conductor::api::*;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_conductor");

fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    // The settings of whoever runs the tests are none of their business.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CONDUCTOR_")) {
        command.env_remove(name);
    }
    command
}

/// Runs the CLI against a cluster, off the test's own thread.
async fn run(cluster: &Cluster, arguments: &str) -> Output {
    let mut command = command();
    command.arg("--api").arg(cluster.running.url()).args(arguments.split_whitespace());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn ok(cluster: &Cluster, arguments: &str) -> String {
    let output = run(cluster, arguments).await;
    assert!(output.status.success(), "{arguments}: {}", text(&output.stderr));
    text(&output.stdout)
}

async fn refused(cluster: &Cluster, arguments: &str, code: i32) -> String {
    let output = run(cluster, arguments).await;
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments}: {}", text(&output.stdout));
    stderr
}

fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} in:\n{text}");
    }
}

#[tokio::test]
async fn user_goes_from_nothing_to_connect_lines_and_back() {
    let cluster = Cluster::start().await;
    let _node = cluster.node("n1").await;
    contains_all(&ok(&cluster, "volume create db --size 10G").await, &["db made: 10G, online"]);
    contains_all(&ok(&cluster, "volume list").await, &["db", "10G", "online", "n1"]);
    ok(&cluster, &format!("subsystem create {NQN}")).await;
    let added = run(&cluster, &format!("namespace add {NQN} --volume db")).await;
    contains_all(&text(&added.stdout), &["volume db is namespace 1 of"]);
    contains_all(&text(&added.stderr), &["note:", "host allow"]);
    ok(&cluster, &format!("host allow {NQN} {HOST}")).await;
    contains_all(&ok(&cluster, "host list").await, &[NQN, HOST]);
    let show = ok(&cluster, &format!("subsystem show {NQN}")).await;
    contains_all(&show, &["serial", "AFS", HOST, "db", "10G"]);

    let lines = ok(&cluster, &format!("connect-info {NQN} {HOST}")).await;
    let connect = format!(
        "nvme connect -t tcp -a 127.0.0.1 -s 4420 -n {NQN} --hostnqn={HOST} \
         --reconnect-delay=2 --keep-alive-tmo=5 --ctrl-loss-tmo=-1"
    );
    contains_all(&lines, &["modprobe nvme-tcp", "nvme discover -t tcp", &connect]);
    assert!(lines.lines().all(|line| line.starts_with("nvme ") || line.starts_with("modprobe ")));

    contains_all(&ok(&cluster, "volume resize db --size 20G").await, &["resized: 20G"]);
    contains_all(&ok(&cluster, "volume show db").await, &["20G", NQN, "uuid", "nguid"]);
    contains_all(&ok(&cluster, "node list").await, &["n1", "up", "tcp://127.0.0.1:4420"]);
    contains_all(&ok(&cluster, "node show n1").await, &["127.0.0.1:49181", "store"]);
    contains_all(&ok(&cluster, "disk list").await, &["store", "1T", "20G", "online"]);
    contains_all(&ok(&cluster, "status").await, &["healthy", "yes", "1 of 1 up"]);

    ok(&cluster, &format!("namespace remove {NQN} --volume db")).await;
    ok(&cluster, &format!("host deny {NQN} {HOST}")).await;
    ok(&cluster, &format!("subsystem delete {NQN}")).await;
    ok(&cluster, "volume delete db").await;
    let events = ok(&cluster, "events").await;
    let kinds = ["volume_created", "namespace_added", "host_allowed", "volume_deleted"];
    contains_all(&events, &kinds);
}

#[tokio::test]
async fn json_output_is_what_the_api_answered() {
    let cluster = Cluster::start().await;
    let _node = cluster.node("n1").await;
    let made = ok(&cluster, "--output json volume create v --size 5000").await;
    let made: VolumeChanged = serde_json::from_str(&made).unwrap();
    assert_eq!(made.volume.unwrap().size_bytes, 8192);
    let list: Value =
        serde_json::from_str(&ok(&cluster, "volume list --output json").await).unwrap();
    assert_eq!(list, cluster.get("/api/v1/volumes").await.1);
    for arguments in ["subsystem list", "node list", "disk list", "events", "status", "host list"] {
        let output = ok(&cluster, &format!("--output json {arguments}")).await;
        serde_json::from_str::<Value>(&output).unwrap();
    }
}

#[tokio::test]
async fn refusals_name_the_next_step_and_exit_with_1() {
    let cluster = Cluster::start().await;
    let _node = cluster.node("n1").await;
    ok(&cluster, "volume create database --size 10G").await;
    ok(&cluster, &format!("subsystem create {NQN}")).await;
    ok(&cluster, &format!("namespace add {NQN} --volume database")).await;
    for (arguments, parts) in [
        ("volume create database --size 1G", &["already", "another name"][..]),
        ("volume create Database --size 1G", &["`Database`", "a-z"]),
        ("volume create v --size 65T", &["largest volume, 64T"]),
        ("volume create v --size 0", &["size 0"]),
        ("volume create v --size 1G --disk /none", &["no disk `/none`", "disk list"]),
        ("volume show databse", &["no volume `databse`", "did you mean `database`?"]),
        ("volume resize database --size 1G", &["cannot shrink", "copy"]),
        ("volume delete database", &["in use", "namespace remove", "--nsid 1"]),
        ("subsystem create database", &["nqn.YYYY-MM", "example"]),
        (
            "subsystem create nqn.2014-08.org.nvmexpress.discovery",
            &["discovery service", "nqn.2026-11.com.example"],
        ),
        ("subsystem delete nqn.2026-11.com.example:a", &["still has 1 namespace"]),
        ("subsystem show nqn.2026-11.com.example:A", &["did you mean"]),
        ("namespace add nqn.2026-11.com.example:a --volume database", &["already"]),
        ("namespace add nqn.2026-11.com.example:a --volume x --nsid 1025", &["1 to 1024"]),
        ("namespace remove nqn.2026-11.com.example:a --nsid 7", &["no namespace `7`", "show"]),
        ("namespace remove nqn.2026-11.com.example:a --volume nix", &["no volume `nix`"]),
        ("host allow nqn.2026-11.com.example:a me", &["`me` is not an NQN"]),
        ("host deny nqn.2026-11.com.example:a nqn.2026-11.com.example:h", &["host list"]),
        ("node show n2", &["did you mean `n1`?"]),
    ] {
        contains_all(&refused(&cluster, arguments, 1).await, parts);
    }
}

#[tokio::test]
async fn wrong_usage_exits_with_2_and_no_conductor_with_3() {
    let cluster = Cluster::start().await;
    for arguments in [
        "volume create v",
        "volume create v --size ten",
        "volume shw v",
        "namespace remove nqn.2026-11.com.example:a",
        "namespace remove nqn.2026-11.com.example:a --nsid 1 --volume v",
        "volume show ..",
        "--output yaml status",
    ] {
        refused(&cluster, arguments, 2).await;
    }
    contains_all(&refused(&cluster, "--api https://127.0.0.1 status", 2).await, &["plain HTTP"]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let missing = refused(&cluster, &format!("--api {free} status"), 3).await;
    contains_all(&missing, &["cannot reach", "conductor serve", "--api"]);
}

#[tokio::test]
async fn change_that_the_node_could_not_make_exits_with_1() {
    let cluster = Cluster::start().await;
    let node = cluster.node("n1").await;
    node.knobs.lock().fail = Some("disk on fire".to_owned());
    let output = run(&cluster, "volume create v --size 1G").await;
    assert_eq!(output.status.code(), Some(1));
    contains_all(&text(&output.stderr), &["disk on fire", "conductor events"]);
}

#[tokio::test]
async fn events_follow_prints_what_happens_next() {
    let cluster = Cluster::start().await;
    let mut command = command();
    command.args(["--api", &cluster.running.url(), "events", "--follow"]);
    let mut child = Stopped(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    ok(&cluster, &format!("subsystem create {NQN}")).await;
    let read = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap());
    let line = in_time("the event is printed", read).await.unwrap();
    contains_all(&line, &["subsystem_created", NQN]);
}

/// A process that ends with the test.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(arguments: &[&str]) -> Output {
    command().arg("serve").args(arguments).output().unwrap()
}

/// Starts a daemon on a free port and returns it with its address.
fn daemon(arguments: &[&str]) -> (Stopped, String) {
    let mut command = command();
    command.arg("serve").args(arguments).args(["--api", "127.0.0.1:0", "--log-format=json"]);
    let mut child = Stopped(command.stderr(Stdio::piped()).spawn().unwrap());
    for line in BufReader::new(child.0.stderr.take().unwrap()).lines() {
        let entry: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if let Some(address) = entry["fields"]["address"].as_str() {
            return (child, address.to_owned());
        }
    }
    panic!("the daemon ended")
}

#[test]
fn daemon_serves_its_config_file_and_ends_cleanly_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("conductor.toml");
    std::fs::write(&file, format!("data = {:?}\nnode_timeout_seconds = 3", data)).unwrap();
    let (mut child, address) = daemon(&["--config", file.to_str().unwrap()]);
    let status = command().args(["--api", &address, "status"]).output().unwrap();
    assert!(status.status.success(), "{}", text(&status.stderr));
    assert!(data.join("conductor.sqlite").exists());

    let second = serve(&["--data", data.to_str().unwrap(), "--api", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    let holder = format!("(pid {})", child.0.id());
    contains_all(&text(&second.stderr), &["in use by another", &holder]);

    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.0.wait().unwrap().success());
    let (_child, _) = daemon(&["--data", data.to_str().unwrap()]);
}

#[test]
fn wrong_config_key_is_named_with_the_near_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("conductor.toml");
    for (content, parts) in [
        ("dtaa = '/x'", &["`dtaa`", "did you mean `data`?", "conductor.toml"][..]),
        ("api = 'here'", &["api", "conductor.toml"]),
        ("data", &["conductor.toml"]),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = serve(&["--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{content}");
        contains_all(&text(&output.stderr), parts);
    }
    let missing = serve(&["--config", "/nowhere/conductor.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    contains_all(&text(&missing.stderr), &["cannot read", "/nowhere/conductor.toml"]);
}

#[test]
fn port_in_use_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = folder.path().to_str().unwrap();
    let output = serve(&["--data", data, "--api", &address]);
    assert_eq!(output.status.code(), Some(1));
    contains_all(&text(&output.stderr), &[&address, "in use", "--api"]);
}

#[test]
fn daemon_that_waits_for_its_database_says_so_and_ends_on_sigterm() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = command();
    command.args(["serve", "--api", "127.0.0.1:0", "--log-format=json"]);
    command.env("CONDUCTOR_DATABASE", format!("postgres://afs:secret@{free}/afs"));
    let mut child = Stopped(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    contains_all(&line, &["cannot reach", &free.to_string(), "trying again"]);
    assert!(!line.contains("secret"), "{line}");
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.0.wait().unwrap().success());

    let wrong = serve(&["--database", "mysql://db.example/afs"]);
    assert_eq!(wrong.status.code(), Some(2));
    contains_all(&text(&wrong.stderr), &["postgres://"]);
}
