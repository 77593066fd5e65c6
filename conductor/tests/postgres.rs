//! A conductor and its PostgreSQL: starts, stops, and what is said when it is not as it should be.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::postgres::{GUARDED, Server, may_run, shared};
use common::*;
use conductor::server::{Conductor, StartError};
use serde_json::json;
use sqlx::Executor;

#[tokio::test]
async fn conductor_goes_on_by_itself_when_its_database_is_back() {
    if !may_run("conductor_goes_on_by_itself") {
        return;
    }
    let mut server = Server::start().unwrap();
    let home = Home::at(&postgres::database_on(&server));
    // Longer than the database is away, so that only reports count.
    let cluster =
        Cluster::on_with(home, |config| config.node_timeout = Duration::from_secs(60)).await;
    let node = cluster.node("n1").await;
    let create = async |name: &str| {
        cluster.post("/api/v1/volumes", json!({"name": name, "size_bytes": 4096})).await
    };
    assert_eq!(create("before").await.0, 200);

    server.stop().unwrap();
    // The report of a node may be refused like any other decision.
    node.knobs.lock().silent = true;
    let (status, refused) = create("during").await;
    assert_eq!((status, &refused["error"]), (503, &json!("unavailable")), "{refused}");
    assert!(refused["hint"].as_str().unwrap().contains("nothing was decided"), "{refused}");
    assert_eq!(cluster.get("/healthz").await.0, 503);

    server.go_on().unwrap();
    eventually("the database is found again", async || cluster.get("/healthz").await.0 == 200)
        .await;
    node.knobs.lock().silent = false;
    let (status, made) = create("after").await;
    assert_eq!((status, &made["volume"]["state"]), (200, &json!("online")), "{made}");
    assert_eq!(cluster.get("/api/v1/volumes/before").await.0, 200);
    assert_eq!(cluster.get("/api/v1/volumes/during").await.0, 404);
    cluster.running.stop().await;
}

#[tokio::test]
async fn conductor_that_starts_before_its_database_waits_for_it() {
    if !may_run("conductor_that_starts_before_its_database") {
        return;
    }
    let mut server = Server::start().unwrap();
    let home = Home::at(&postgres::database_on(&server));
    server.stop().unwrap();
    let start = Conductor::start(config(&home));
    tokio::pin!(start);
    let soon = tokio::time::timeout(Duration::from_millis(300), &mut start).await;
    assert!(soon.is_err(), "it waits");
    server.go_on().unwrap();
    let running = in_time("it starts with its database", start).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn database_that_cannot_be_used_is_a_clear_error() {
    if !may_run("database_that_cannot_be_used") {
        return;
    }
    let server = shared();
    let name = server.new_database().unwrap();
    let mut connection = postgres::connect(server, "postgres").await;
    for statement in [
        format!("CREATE ROLE {GUARDED} LOGIN PASSWORD 'right'"),
        "CREATE ROLE stranger LOGIN".to_owned(),
    ] {
        connection.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
    for (url, parts) in [
        (server.url("nowhere"), ["nowhere", "createdb"]),
        (server.url_as("nobody", &name), ["nobody", "pg_hba.conf"]),
        (server.url_as(&format!("{GUARDED}:wrong"), &name), [GUARDED, "PGPASSWORD"]),
        (server.url_as("stranger", &name), ["permission denied", "own the database"]),
    ] {
        let error = in_time("it fails at once", Conductor::start(config(&Home::at(&url)))).await;
        let error = error.unwrap_err();
        assert!(matches!(error, StartError::MetaDb(_)), "{error}");
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{url}: {text}");
        assert!(!text.contains("wrong"), "the password is not shown: {text}");
    }
}

#[tokio::test]
async fn conductor_that_was_taken_over_from_serves_no_more_and_says_so() {
    if !may_run("conductor_that_was_taken_over_from") {
        return;
    }
    let old = Cluster::on(Home::at(&postgres::database())).await;
    let node = old.node("n1").await;
    drop(node);
    let new = Conductor::start(config(&old.home)).await.unwrap();
    let refused = old.post("/api/v1/subsystems", json!({"nqn": NQN})).await;
    assert_eq!((refused.0, &refused.1["error"]), (503, &json!("standby")), "{refused:?}");
    assert!(refused.1["message"].as_str().unwrap().contains("taken over"), "{refused:?}");
    for path in ["/healthz", "/api/v1/volumes", "/api/v1/nodes/n1/state"] {
        assert_eq!(old.get(path).await.0, 503, "{path}");
    }
    let url = format!("{}/api/v1/nodes", new.url());
    let nodes = client().get(url).send().await.unwrap().text().await.unwrap();
    assert!(nodes.contains("n1"), "{nodes}");
    new.stop().await;
    old.running.stop().await;
}
