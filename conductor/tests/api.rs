//! The API over a real socket, with nodes that report.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use conductor::api::*;
use conductor::server::{Conductor, StartError};
use serde_json::{Value, json};

fn error(answer: &(u16, Value)) -> (u16, &str) {
    assert!(answer.1["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer:?}");
    assert!(answer.1["hint"].as_str().is_some_and(|text| !text.is_empty()), "{answer:?}");
    (answer.0, answer.1["error"].as_str().unwrap())
}

async fn volume_goes_from_nothing_to_exported_to_gone(home: Home) {
    let cluster = Cluster::on(home).await;
    let node = cluster.node("n1").await;
    let (status, made) =
        cluster.post("/api/v1/volumes", json!({"name": "v", "size_bytes": 10_000})).await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(made["volume"]["state"], "online", "the answer waited for the node");
    assert_eq!(made["volume"]["size_bytes"], 12_288);
    assert!(made["outcome"]["notes"][0].as_str().unwrap().contains("rounded up"));
    assert_eq!(made["outcome"]["waiting_for"], json!([]));

    assert_eq!(cluster.post("/api/v1/subsystems", json!({"nqn": NQN})).await.0, 200);
    let hosts = format!("/api/v1/subsystems/{NQN}/hosts");
    assert_eq!(cluster.post(&hosts, json!({"host": HOST})).await.0, 200);
    let namespaces = format!("/api/v1/subsystems/{NQN}/namespaces");
    let (status, added) = cluster.post(&namespaces, json!({"volume": "v"})).await;
    assert_eq!((status, &added["namespace"]["nsid"]), (200, &json!(1)), "{added}");

    let state = node.state();
    assert_eq!(state.revision, added["outcome"]["revision"].as_u64().unwrap());
    let subsystem = &state.subsystems[0];
    assert_eq!(subsystem.hosts, [HOST]);
    assert!(subsystem.serial.len() <= 20 && subsystem.serial.is_ascii());
    assert_eq!(subsystem.namespaces[0].uuid, state.volumes[0].volume);
    assert_eq!(subsystem.namespaces[0].size_bytes, 12_288);
    assert_eq!(state.portals[0].portal_id, 1);

    let grown = cluster.patch("/api/v1/volumes/v", json!({"size_bytes": 20_480})).await;
    assert_eq!(grown.1["volume"]["size_bytes"], 20_480);
    assert_eq!(node.state().subsystems[0].namespaces[0].size_bytes, 20_480);

    let refused = cluster.delete("/api/v1/volumes/v").await;
    assert_eq!(error(&refused), (409, "in_use"));
    assert!(refused.1["hint"].as_str().unwrap().contains("--nsid 1"));
    let refused = cluster.delete(&format!("/api/v1/subsystems/{NQN}")).await;
    assert_eq!(error(&refused), (409, "in_use"));

    assert_eq!(cluster.delete(&format!("{namespaces}/1")).await.0, 200);
    assert_eq!(cluster.delete("/api/v1/volumes/v").await.0, 200);
    eventually("the replica is deleted and forgotten", async || node.state().retired.is_empty())
        .await;
    assert_eq!(cluster.delete(&format!("/api/v1/subsystems/{NQN}")).await.0, 200);
    assert!(node.state().subsystems.is_empty());
}

async fn answer_names_the_node_that_has_not_applied_the_change_yet(home: Home) {
    let cluster =
        Cluster::on_with(home, |config| config.apply_wait = Duration::from_millis(200)).await;
    let node = cluster.node("slow").await;
    node.knobs.lock().idle = true;
    let (status, made) = cluster.post("/api/v1/subsystems", json!({"nqn": NQN})).await;
    assert_eq!((status, &made["outcome"]["waiting_for"]), (200, &json!(["slow"])));
    node.knobs.lock().idle = false;
    node.wait_applied(made["outcome"]["revision"].as_u64().unwrap()).await;
}

async fn node_that_is_gone_is_said_and_not_waited_for(home: Home) {
    let cluster = Cluster::on_with(home, |config| {
        config.node_timeout = Duration::from_millis(300);
        config.apply_wait = Duration::from_secs(60);
    })
    .await;
    let node = cluster.node("n1").await;
    cluster.post("/api/v1/volumes", json!({"name": "v", "size_bytes": 4096})).await;
    node.knobs.lock().silent = true;
    eventually("the node is down", async || {
        cluster.get("/api/v1/nodes/n1").await.1["state"] == "down"
    })
    .await;
    let made = in_time(
        "a change does not wait for a node that is down",
        cluster.post("/api/v1/subsystems", json!({"nqn": NQN})),
    )
    .await;
    assert!(made.1["outcome"]["notes"][0].as_str().unwrap().contains("n1 is not up"), "{made:?}");
    assert_eq!(cluster.get("/api/v1/volumes/v").await.1["state"], "unavailable");
    let refused = cluster.post("/api/v1/volumes", json!({"name": "w", "size_bytes": 4096})).await;
    assert_eq!(error(&refused), (409, "no_space"));
    let status = cluster.get("/api/v1/status").await.1;
    assert_eq!(status["healthy"], false);
    eventually("an event says so", async || {
        let events = cluster.get("/api/v1/events").await.1;
        let mut events = events["events"].as_array().unwrap().iter();
        events.any(|event| event["kind"] == "node_down" && event["severity"] == "warning")
    })
    .await;
}

async fn disks_that_changed_places_are_found_there_and_at_home_again(home: Home) {
    let cluster =
        Cluster::on_with(home, |config| config.node_timeout = Duration::from_millis(300)).await;
    let (a, b) = (disk(DiskKind::Store), disk(DiskKind::Store));
    let at_home = [("n1", vec![&a]), ("n2", vec![&b])];
    let swapped = [("n1", vec![&b]), ("n2", vec![&a])];
    let without_n1 = [("n2", vec![&a, &b])];
    for reports in [&at_home[..], &swapped, &at_home, &without_n1, &at_home] {
        let mut expected: Vec<(Value, &str)> = reports
            .iter()
            .flat_map(|(node, disks)| disks.iter().map(|disk| (json!(disk.uuid), *node)))
            .collect();
        expected.sort_by_key(|(disk, _)| disk.to_string());
        eventually("each disk is where it was reported last", async || {
            for (node, disks) in reports {
                // Refused as long as the other node is taken to have the disk: until that was silent.
                let path = format!("/api/v1/nodes/{node}/report");
                let report = report(node, disks.iter().map(|disk| (*disk).clone()).collect());
                cluster.put(&path, serde_json::to_value(report).unwrap()).await;
            }
            let disks = cluster.get("/api/v1/disks").await.1;
            let mut found: Vec<(Value, Value)> = disks
                .as_array()
                .unwrap()
                .iter()
                .map(|disk| (disk["uuid"].clone(), disk["node"].clone()))
                .collect();
            found.sort_by_key(|(disk, _)| disk.to_string());
            json!(found) == json!(expected)
        })
        .await;
    }
}

async fn what_the_node_could_not_do_is_in_the_answer_and_in_the_events(home: Home) {
    let cluster = Cluster::on(home).await;
    let node = cluster.node("n1").await;
    node.knobs.lock().fail = Some("disk on fire".to_owned());
    let (status, made) =
        cluster.post("/api/v1/volumes", json!({"name": "v", "size_bytes": 4096})).await;
    assert_eq!((status, &made["volume"]["state"]), (200, &json!("failed")), "{made}");
    assert!(made["outcome"]["problems"][0].as_str().unwrap().contains("disk on fire"));
    eventually("an event says so", async || {
        let events = cluster.get("/api/v1/events").await.1;
        events["events"].as_array().unwrap().iter().any(|event| event["kind"] == "replica_failed")
    })
    .await;
}

async fn null_disk_is_used_only_when_asked_for_or_alone(home: Home) {
    let cluster = Cluster::on(home).await;
    let disks = vec![disk(DiskKind::Null), disk(DiskKind::Store)];
    let (null, store) = (disks[0].clone(), disks[1].clone());
    let _node = FakeNode::start(&cluster.running.url(), "n1", disks);
    eventually("the disks are known", async || {
        cluster.get("/api/v1/disks").await.1.as_array().unwrap().len() == 2
    })
    .await;
    let on = async |name: &str, disk: Option<&str>| {
        let body = json!({"name": name, "size_bytes": 1u64 << 30, "disk": disk});
        cluster.post("/api/v1/volumes", body).await.1
    };
    let first = on("a", None).await;
    assert_eq!(first["volume"]["replicas"][0]["disk"], json!(store.uuid));
    let second = on("b", Some(&null.path)).await;
    assert_eq!(second["volume"]["replicas"][0]["disk"], json!(null.uuid));
    assert!(second["outcome"]["notes"][0].as_str().unwrap().contains("keeps nothing"));
}

async fn of_two_operators_one_is_told_that_the_other_was_first(home: Home) {
    let cluster = Cluster::on(home).await;
    let _node = cluster.node("n1").await;
    cluster.post("/api/v1/volumes", json!({"name": "v", "size_bytes": 4096})).await;
    let grow =
        |bytes: u64| cluster.patch("/api/v1/volumes/v", json!({"size_bytes": bytes, "version": 1}));
    let (one, two) = tokio::join!(grow(8192), grow(12_288));
    let mut statuses = [one.0, two.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{one:?} {two:?}");
    let loser = if one.0 == 409 { one } else { two };
    assert_eq!(error(&loser), (409, "conflict"));
    let stale = cluster.delete("/api/v1/volumes/v?version=1").await;
    assert_eq!(error(&stale), (409, "conflict"));
}

async fn node_state_waits_for_news_and_is_silent_without(home: Home) {
    let cluster = Cluster::on(home).await;
    let unknown = cluster.get("/api/v1/nodes/n1/state").await;
    assert_eq!(error(&unknown), (404, "not_found"));
    let joined = cluster.put("/api/v1/nodes/n1/report", json!(report("n1", vec![]))).await;
    assert_eq!(joined.0, 200, "{joined:?}");
    let revision = joined.1["revision"].as_u64().unwrap();
    assert!(joined.1["report_every_ms"].as_u64().unwrap() > 0);

    let quiet = cluster.get(&format!("/api/v1/nodes/n1/state?after={revision}&wait=0")).await;
    assert_eq!(quiet.0, 204);
    let ahead = format!("/api/v1/nodes/n1/state?after={}&wait=60", revision + 5);
    let ahead = cluster.get(&ahead);
    assert_eq!(in_time("a node ahead of us is told at once", ahead).await.0, 200);

    let path = format!("/api/v1/nodes/n1/state?after={revision}&wait=60");
    let change = cluster.http.post(cluster.url("/api/v1/subsystems")).json(&json!({"nqn": NQN}));
    let both = async { tokio::join!(cluster.get(&path), change.send()) };
    let ((status, state), _) = in_time("a change ends the wait", both).await;
    assert_eq!((status, state["revision"].as_u64()), (200, Some(revision + 1)));
}

async fn reports_that_cannot_be_are_refused_with_the_reason(home: Home) {
    let cluster = Cluster::on(home).await;
    let good = report("n1", vec![disk(DiskKind::Store)]);
    let mut cases = Vec::new();
    for (address, service, transport) in [
        ("0.0.0.0", "4420", "tcp"),
        ("::", "4420", "tcp"),
        ("node.example", "4420", "tcp"),
        ("127.0.0.1", "0", "tcp"),
        ("127.0.0.1", "65536", "tcp"),
        ("127.0.0.1", "4420", "carrier-pigeon"),
        ("127.0.0.1", "4420", "RDMA"),
    ] {
        let mut bad = good.clone();
        bad.portals[0] = PortalReport {
            transport: transport.to_owned(),
            address: address.to_owned(),
            service: service.to_owned(),
        };
        cases.push(bad);
    }
    cases.push(NodeReport { node: "n2".to_owned(), ..good.clone() });
    cases.push(NodeReport { disks: vec![good.disks[0].clone(); 2], ..good.clone() });
    cases.push(NodeReport { version: "x".repeat(5000), ..good.clone() });
    for bad in cases {
        let answer = cluster.put("/api/v1/nodes/n1/report", json!(bad)).await;
        assert_eq!(error(&answer), (400, "invalid"), "{bad:?}");
    }
    let named = cluster.put("/api/v1/nodes/N%201/report", json!(good)).await;
    assert_eq!(error(&named), (400, "invalid"));
    assert_eq!(cluster.get("/api/v1/nodes").await.1, json!([]));

    let mut odd = good;
    odd.portals[0].address = "2001:DB8:0::1".to_owned();
    odd.portals[0].transport = "rdma".to_owned();
    assert_eq!(cluster.put("/api/v1/nodes/n1/report", json!(odd)).await.0, 200);
    let node = cluster.get("/api/v1/nodes/n1").await.1;
    assert_eq!(node["portals"][0]["address"], "2001:db8::1");
    assert_eq!(node["portals"][0]["transport"], "rdma");
}

async fn every_error_has_a_code_a_message_and_a_hint(home: Home) {
    let cluster = Cluster::on(home).await;
    let create = "/api/v1/volumes";
    for (answer, expected) in [
        (cluster.get("/nowhere").await, (404, "not_found")),
        (cluster.put(create, json!({})).await, (404, "not_found")),
        (cluster.post(create, json!({"name": "v"})).await, (400, "invalid")),
        (cluster.post(create, json!({"name": "v", "size": 1})).await, (400, "invalid")),
        (cluster.post(create, json!({"name": "V", "size_bytes": 1})).await, (400, "invalid")),
        (cluster.post(create, json!({"name": "v", "size_bytes": 0})).await, (400, "invalid")),
        (
            cluster.post(create, json!({"name": "v", "size_bytes": 65u64 << 40})).await,
            (400, "invalid"),
        ),
        (cluster.post(create, json!({"name": "x".repeat(70_000)})).await, (413, "too_large")),
        (
            cluster.post("/api/v1/subsystems", json!({"nqn": "x".repeat(60_000)})).await,
            (400, "invalid"),
        ),
        (cluster.delete(&format!("/api/v1/subsystems/{NQN}/namespaces/x")).await, (400, "invalid")),
        (cluster.get("/api/v1/events?after=x").await, (400, "invalid")),
        (cluster.get("/api/v1/connect-info").await, (400, "invalid")),
    ] {
        assert_eq!(error(&answer), expected, "{answer:?}");
        assert!(answer.1.to_string().len() < 2000, "an error stays short");
    }
}

fn methods(item: &Value) -> Vec<&String> {
    item.as_object().unwrap().keys().filter(|key| *key != "parameters").collect()
}

async fn openapi_document_is_whole_and_every_call_in_it_answers(home: Home) {
    let cluster = Cluster::on(home).await;
    let (status, document) = cluster.get("/openapi.json").await;
    assert_eq!(status, 200);
    assert_eq!(document["openapi"], "3.1.0");
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut calls = 0;
    let mut names = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in methods(item) {
            calls += 1;
            let operation = &item[method];
            assert!(operation["summary"].is_string(), "{method} {path} says what it does");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for variable in path.split('{').skip(1).filter_map(|part| part.split('}').next()) {
                assert!(
                    parameters.iter().any(|p| p["in"] == "path" && p["name"] == variable),
                    "{method} {path} describes {variable}"
                );
            }
            names.insert(format!("{} {path}", method.to_uppercase()));
            let concrete = path.replace("{nsid}", "1").replace("{nqn}", NQN);
            let concrete = concrete.replace("{name}", "n").replace("{host}", "any");
            let concrete = concrete.replace("{uuid}", "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
            let method: reqwest::Method = method.to_uppercase().parse().unwrap();
            let answer =
                cluster.http.request(method.clone(), cluster.url(&concrete)).send().await.unwrap();
            let text = answer.text().await.unwrap();
            assert!(!text.contains("nothing at this address"), "{method} {path} is not served");
        }
    }
    assert_eq!(calls, names.len());
    for call in [
        "POST /api/v1/volumes",
        "PATCH /api/v1/volumes/{name}",
        "POST /api/v1/volumes/{name}/leader",
        "POST /api/v1/internal/volumes/{uuid}/claim",
        "POST /api/v1/nodes/{name}/drain",
        "DELETE /api/v1/subsystems/{nqn}/namespaces/{nsid}",
        "DELETE /api/v1/subsystems/{nqn}/hosts/{host}",
        "GET /api/v1/connect-info",
        "GET /api/v1/nodes/{name}/state",
        "PUT /api/v1/nodes/{name}/report",
        "GET /api/v1/disks",
        "GET /api/v1/events",
        "GET /api/v1/status",
        "GET /metrics",
        "GET /healthz",
        "GET /openapi.json",
    ] {
        assert!(names.contains(call), "{call} is described");
    }
    assert_eq!(calls, 39, "{names:#?}");
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            into.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_references(value, into)),
        _ => {}
    }
}

async fn metrics_of_two_conductors_in_one_process_stay_apart(home: Home) {
    let two = Cluster::on(home.another().await).await;
    let one = Cluster::on(home).await;
    let _node = one.node("n1").await;
    one.post("/api/v1/volumes", json!({"name": "v", "size_bytes": 4096})).await;
    let page = |cluster: &Cluster| {
        let request = cluster.http.get(cluster.url("/metrics")).send();
        async { request.await.unwrap().text().await.unwrap() }
    };
    let (first, second) = (page(&one).await, page(&two).await);
    for line in [
        "conductor_volumes 1",
        "conductor_volume_bytes 4096",
        "conductor_nodes{state=\"up\"} 1",
        "conductor_disks 1",
        "conductor_build_info{version=",
        "conductor_db_transaction_seconds_bucket{le=",
        "conductor_requests_total{route=\"/api/v1/volumes\",method=\"POST\",status=\"200\"} 1",
        "conductor_request_seconds_count{route=\"/api/v1/volumes\"",
    ] {
        assert!(first.contains(line), "{line} in:\n{first}");
    }
    assert!(second.contains("conductor_volumes 0"), "{second}");
    assert_eq!(one.get("/healthz").await.1["status"], "ok");
}

async fn stop_ends_waiting_calls_and_everything_is_there_after_a_restart(home: Home) {
    let cluster =
        Cluster::on_with(home, |config| config.node_timeout = Duration::from_secs(30)).await;
    let node = cluster.node("n1").await;
    cluster.post("/api/v1/volumes", json!({"name": "v", "size_bytes": 4096})).await;
    let before = cluster.get("/api/v1/volumes/v").await.1;
    drop(node);
    let Cluster { running, home, http } = cluster;
    let revision = before["version"].as_u64().unwrap() + 100;
    let url = format!("{}/api/v1/events?after={revision}&wait=60", running.url());
    let waiting = tokio::spawn(http.get(url).send());
    let address = running.address();
    // A call that is answered after the waiting one was sent shows that the latter has arrived.
    http.get(format!("http://{address}/healthz")).send().await.unwrap();
    let started = Instant::now();
    running.stop().await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    if let Ok(answer) = waiting.await.unwrap() {
        assert_eq!(answer.status(), 503);
    }
    let again = Conductor::start(config(&home)).await.unwrap();
    let text = http.get(format!("{}/api/v1/volumes/v", again.url())).send().await.unwrap();
    let after: Value = text.json().await.unwrap();
    assert_eq!((&after["uuid"], &after["nguid"]), (&before["uuid"], &before["nguid"]));
    again.stop().await;
}

#[tokio::test]
async fn folder_or_port_in_use_is_a_clear_error() {
    let cluster = Cluster::start().await;
    let same_folder = Conductor::start(config(&cluster.home)).await.unwrap_err();
    assert!(matches!(same_folder, StartError::MetaDb(_)), "{same_folder}");
    assert!(same_folder.to_string().contains("in use by another"), "{same_folder}");
    let other = Home::sqlite();
    let mut same_port = config(&other);
    same_port.api_listen = cluster.running.address();
    let same_port = Conductor::start(same_port).await.unwrap_err();
    assert!(matches!(same_port, StartError::Listen { .. }), "{same_port}");
    assert!(same_port.to_string().contains("--api"), "{same_port}");
}

async fn second_namespace_of_a_volume_is_refused_and_a_former_nsid_comes_back(home: Home) {
    let cluster = Cluster::on(home).await;
    let _node = cluster.node("n1").await;
    let other = "nqn.2026-11.com.example:b";
    for name in ["v", "w"] {
        cluster.post("/api/v1/volumes", json!({"name": name, "size_bytes": 4096})).await;
    }
    for nqn in [NQN, other] {
        cluster.post("/api/v1/subsystems", json!({"nqn": nqn})).await;
    }
    let namespaces = |nqn: &str| format!("/api/v1/subsystems/{nqn}/namespaces");
    assert_eq!(cluster.post(&namespaces(NQN), json!({"volume": "v"})).await.0, 200);
    for nqn in [NQN, other] {
        let again = cluster.post(&namespaces(nqn), json!({"volume": "v"})).await;
        assert_eq!(error(&again), (409, "in_use"));
    }
    cluster.delete(&format!("{}/1", namespaces(NQN))).await;
    let taken = cluster.post(&namespaces(NQN), json!({"volume": "w", "nsid": 1})).await;
    assert_eq!(error(&taken), (409, "in_use"));
    let next = cluster.post(&namespaces(NQN), json!({"volume": "w"})).await;
    assert_eq!(next.1["namespace"]["nsid"], 2);
    let back = cluster.post(&namespaces(NQN), json!({"volume": "v"})).await;
    assert_eq!(back.1["namespace"]["nsid"], 1);
}

async fn older_copy_of_metadb_is_a_problem_in_the_status(home: Home) {
    let cluster = Cluster::on(home).await;
    let mut ahead = report("n1", vec![]);
    ahead.applied_revision = 1000;
    let answer = cluster.put("/api/v1/nodes/n1/report", json!(ahead)).await;
    assert_eq!((answer.0, &answer.1["revision"]), (200, &json!(1001)), "{answer:?}");
    let status = cluster.get("/api/v1/status").await.1;
    assert_eq!(status["healthy"], json!(false));
    assert!(status["problems"][0].as_str().unwrap().contains("older copy"), "{status}");
    ahead.applied_revision = u64::MAX;
    let absurd = cluster.put("/api/v1/nodes/n1/report", json!(ahead)).await;
    assert_eq!(error(&absurd), (400, "invalid"));
}

postgres::on_both!(
    older_copy_of_metadb_is_a_problem_in_the_status,
    volume_goes_from_nothing_to_exported_to_gone,
    answer_names_the_node_that_has_not_applied_the_change_yet,
    node_that_is_gone_is_said_and_not_waited_for,
    disks_that_changed_places_are_found_there_and_at_home_again,
    what_the_node_could_not_do_is_in_the_answer_and_in_the_events,
    null_disk_is_used_only_when_asked_for_or_alone,
    of_two_operators_one_is_told_that_the_other_was_first,
    node_state_waits_for_news_and_is_silent_without,
    reports_that_cannot_be_are_refused_with_the_reason,
    every_error_has_a_code_a_message_and_a_hint,
    openapi_document_is_whole_and_every_call_in_it_answers,
    metrics_of_two_conductors_in_one_process_stay_apart,
    stop_ends_waiting_calls_and_everything_is_there_after_a_restart,
    second_namespace_of_a_volume_is_refused_and_a_former_nsid_comes_back,
);
