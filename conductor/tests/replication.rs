//! Replicated volumes over the API and the CLI: made, led, degraded, moved away.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Output};
use std::time::Duration;

use afs_decisions::{NodeId, Role, VolumeConfig};
use common::*;
use conductor::api::*;
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(3);

async fn cluster(home: Home, nodes: u32) -> (Cluster, Vec<FakeNode>) {
    let cluster = Cluster::on_with(home, |config| config.node_timeout = TIMEOUT).await;
    let mut fakes = Vec::new();
    for n in 1..=nodes {
        fakes.push(cluster.node(&format!("n{n}")).await);
    }
    (cluster, fakes)
}

async fn volume(cluster: &Cluster) -> Volume {
    let (status, volume) = cluster.get("/api/v1/volumes/v").await;
    assert_eq!(status, 200, "{volume}");
    serde_json::from_value(volume).unwrap()
}

async fn make(cluster: &Cluster, body: Value) -> Volume {
    let (status, made) = cluster.post("/api/v1/volumes", body).await;
    assert_eq!(status, 200, "{made}");
    serde_json::from_value(made["volume"].clone()).unwrap()
}

/// Asks as a leader does.
async fn ask(cluster: &Cluster, volume: &Volume, what: &str, body: Value) -> DecisionAnswer {
    let path = format!("/api/v1/internal/volumes/{}/{what}", volume.uuid);
    let (status, answer) = cluster.post(&path, body).await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_value(answer).unwrap()
}

async fn claim(cluster: &Cluster, volume: &Volume, leader: NodeId) -> VolumeConfig {
    let answer = ask(cluster, volume, "claim", json!({"node": leader, "process": 7})).await;
    assert_eq!(answer.denied, None);
    answer.config
}

fn number(fakes: &[FakeNode], name: &str) -> NodeId {
    fakes[0].state().peers.iter().find(|peer| peer.name == name).unwrap().id
}

async fn cli(cluster: &Cluster, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conductor"));
    command.env_remove("CONDUCTOR_API").args(["--api", &cluster.running.url()]);
    command.args(arguments.split(' '));
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn says(cluster: &Cluster, arguments: &str, parts: &[&str]) {
    let output = cli(cluster, arguments).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    for part in parts {
        assert!(text.contains(part), "{arguments}: no `{part}` in\n{text}");
    }
}

async fn replicated_volume_is_made_claimed_degraded_and_whole_again(home: Home) {
    let (cluster, fakes) = cluster(home, 3).await;
    let made = make(&cluster, json!({"name": "v", "size_bytes": 3u64 << 30, "replicas": 3})).await;
    assert_eq!((made.copies, made.min_in_sync, made.shards, made.claimed), (3, 2, 1, false));
    assert_eq!(made.state, VolumeState::Online);
    let leader = number(&fakes, made.leader.as_deref().unwrap());

    let config = claim(&cluster, &made, leader).await;
    assert_eq!((config.epoch, config.leader), (2, Some(leader)));
    let victim = *config.shards[0].members.iter().find(|it| it.node != leader).unwrap();
    let accuse = json!({"node": leader, "process": 7, "epoch": 2, "shard": 0,
        "replica": victim.replica, "unreachable": false});
    let dropped = ask(&cluster, &made, "accuse", accuse.clone()).await;
    assert_eq!((dropped.denied, dropped.config.epoch), (None, 3));
    let again = ask(&cluster, &made, "accuse", accuse).await;
    assert!(again.denied.is_some());
    assert_eq!(again.config, dropped.config);

    let degraded = volume(&cluster).await;
    assert_eq!((degraded.state, degraded.epoch), (VolumeState::Degraded, 3));
    let status: Status = serde_json::from_value(cluster.get("/api/v1/status").await.1).unwrap();
    assert_eq!((status.data_safe, status.healthy, status.volumes_degraded), (false, false, 1));
    assert!(status.data[0].contains("volume v serves with fewer replicas"), "{:?}", status.data);

    let admit = json!({"node": leader, "process": 7, "epoch": 3, "shard": 0,
        "replica": victim.replica});
    let admitted = ask(&cluster, &made, "admit", admit).await;
    assert!(admitted.config.members().all(|(_, it)| it.role == Role::InSync));
    let renew = json!({"node": leader, "process": 7, "epoch": 4});
    let renewed = ask(&cluster, &made, "renew", renew).await;
    assert_eq!((renewed.config.epoch, renewed.config.reign), (5, 5));
    assert_eq!(volume(&cluster).await.state, VolumeState::Online);
    let status = cluster.get("/api/v1/status").await.1;
    assert_eq!(status["data_safe"], true, "{status}");
}

async fn node_that_goes_down_loses_its_volumes_to_another(home: Home) {
    let (cluster, fakes) = cluster(home, 3).await;
    let made = make(&cluster, json!({"name": "v", "size_bytes": 4096, "replicas": 3})).await;
    let alone = json!({"name": "alone", "size_bytes": 4096});
    cluster.post("/api/v1/volumes", alone).await;
    let leader = made.leader.clone().unwrap();
    claim(&cluster, &made, number(&fakes, &leader)).await;
    let at = leader.trim_start_matches('n').parse::<usize>().unwrap() - 1;
    fakes[at].knobs.lock().silent = true;
    eventually("another node leads", async || {
        let volume = volume(&cluster).await;
        volume.leader.as_ref() != Some(&leader) && volume.epoch == 3 && !volume.claimed
    })
    .await;
    let now = volume(&cluster).await;
    assert_eq!(now.state, VolumeState::Degraded);
    let replica = now.replicas.iter().find(|it| it.node == leader).unwrap();
    assert!(!replica.in_sync, "the new leader does not wait for it");
    let events = cluster.get("/api/v1/events").await.1.to_string();
    assert!(events.contains("leader_elected"), "{events}");
}

async fn leader_that_hears_nobody_is_not_believed_and_another_one_leads(home: Home) {
    let (cluster, fakes) = cluster(home, 3).await;
    let made = make(&cluster, json!({"name": "v", "size_bytes": 4096, "replicas": 3})).await;
    let name = made.leader.clone().unwrap();
    let leader = number(&fakes, &name);
    let config = claim(&cluster, &made, leader).await;
    let others: Vec<_> =
        config.members().map(|(_, it)| *it).filter(|it| it.node != leader).collect();
    // Were it believed about the first, the two that are left could serve nobody.
    let accuse = json!({"node": leader, "process": 7, "epoch": 2, "shard": 0,
        "replica": others[0].replica, "unreachable": true,
        "unheard": [others[0].node, others[1].node]});
    let answer = ask(&cluster, &made, "accuse", accuse).await;
    assert!(answer.denied.is_some(), "{:?}", answer.config);
    eventually("another node leads", async || {
        volume(&cluster).await.leader.as_ref() != Some(&name)
    })
    .await;
    assert!(volume(&cluster).await.replicas.iter().all(|replica| replica.in_sync));
}

async fn deposed_leader_that_hears_nobody_is_no_witness(home: Home) {
    let (cluster, fakes) = cluster(home, 3).await;
    let v = make(&cluster, json!({"name": "v", "size_bytes": 4096, "replicas": 3})).await;
    let w = make(&cluster, json!({"name": "w", "size_bytes": 4096, "replicas": 3})).await;
    let nodes = ["n1", "n2", "n3"].map(|name| number(&fakes, name));
    let lead = async |volume: &str, node: &str| {
        let path = format!("/api/v1/volumes/{volume}/leader");
        let (status, answer) = cluster.post(&path, json!({ "node": node })).await;
        assert_eq!(status, 200, "{answer}");
    };
    let hears_nobody = async |volume: &Volume, config: &VolumeConfig, at: usize| {
        let others: Vec<NodeId> = nodes.iter().copied().filter(|it| *it != nodes[at]).collect();
        let other = config.members().find(|(_, it)| it.node == others[0]).unwrap().1.replica;
        let accuse = json!({"node": nodes[at], "process": 7, "epoch": config.epoch, "shard": 0,
            "replica": other, "unreachable": true, "unheard": others});
        ask(&cluster, volume, "accuse", accuse).await
    };
    // It led, stood still, was replaced, and finds everybody silent before it hears of that.
    lead("v", "n1").await;
    let before = claim(&cluster, &v, nodes[0]).await;
    lead("v", "n2").await;
    assert!(hears_nobody(&v, &before, 0).await.denied.is_some());
    lead("v", "n1").await;
    let led = claim(&cluster, &v, nodes[0]).await;
    // The next look at who should lead takes a volume away from a leader that is really alone.
    lead("w", "n2").await;
    let config = claim(&cluster, &w, nodes[1]).await;
    assert!(hears_nobody(&w, &config, 1).await.denied.is_some());
    eventually("another node leads w", async || {
        cluster.get("/api/v1/volumes/w").await.1["leader"] != "n2"
    })
    .await;
    let now = volume(&cluster).await;
    assert_eq!((now.leader.as_deref(), now.epoch), (Some("n1"), led.epoch));
}

async fn drained_node_hands_over_its_volume_and_its_replica(home: Home) {
    let (cluster, fakes) = cluster(home, 4).await;
    let made = make(&cluster, json!({"name": "v", "size_bytes": 4096, "replicas": 3})).await;
    let leader = made.leader.clone().unwrap();
    claim(&cluster, &made, number(&fakes, &leader)).await;
    let drained = cluster.post(&format!("/api/v1/nodes/{leader}/drain"), json!({})).await;
    assert_eq!(drained.0, 200, "{drained:?}");
    eventually("another node leads", async || {
        volume(&cluster).await.leader.as_ref() != Some(&leader)
    })
    .await;
    let next = volume(&cluster).await.leader.unwrap();
    let config = claim(&cluster, &made, number(&fakes, &next)).await;
    eventually("a fourth replica is made", async || volume(&cluster).await.replicas.len() == 4)
        .await;
    let now = volume(&cluster).await;
    let added = now.replicas.iter().find(|replica| !replica.in_sync).unwrap();
    let admit = json!({"node": config.leader, "process": 7, "epoch": now.epoch, "shard": 0,
        "replica": added.uuid});
    assert_eq!(ask(&cluster, &made, "admit", admit).await.denied, None);
    eventually("the old one goes", async || {
        let volume = volume(&cluster).await;
        volume.replicas.len() == 3 && volume.replicas.iter().all(|it| it.node != leader)
    })
    .await;
    assert_eq!(volume(&cluster).await.state, VolumeState::Online);
    let refused = cluster.delete(&format!("/api/v1/nodes/{leader}")).await;
    assert_eq!((refused.0, &refused.1["error"]), (409, &json!("in_use")), "it still reports");
    let at = leader.trim_start_matches('n').parse::<usize>().unwrap() - 1;
    fakes[at].knobs.lock().silent = true;
    eventually("it is down", async || {
        cluster.get(&format!("/api/v1/nodes/{leader}")).await.1["state"] == "down"
    })
    .await;
    let removed = cluster.delete(&format!("/api/v1/nodes/{leader}")).await;
    assert_eq!(removed.0, 200, "{removed:?}");
    assert_eq!(cluster.get("/api/v1/nodes").await.1.as_array().unwrap().len(), 3);
}

async fn replication_that_cannot_be_is_refused(home: Home) {
    let (cluster, _fakes) = cluster(home, 2).await;
    for (extra, expected) in [
        (json!({"replicas": 3}), (409, "no_space")),
        (json!({"replicas": 0}), (400, "invalid")),
        (json!({"replicas": 6}), (400, "invalid")),
        (json!({"replicas": 2, "min_in_sync": 3}), (400, "invalid")),
        (json!({"replicas": 2, "min_in_sync": 0}), (400, "invalid")),
        (json!({"replicas": 2, "shard_bytes": 4096}), (400, "invalid")),
        (
            json!({"replicas": 2, "shard_bytes": 1 << 30, "size_bytes": 2u64 << 40}),
            (400, "invalid"),
        ),
        (json!({"replicas": 2, "disk": "/x"}), (400, "invalid")),
    ] {
        let mut body = json!({"name": "v", "size_bytes": 4096});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let (status, answer) = cluster.post("/api/v1/volumes", body).await;
        assert_eq!((status, answer["error"].as_str().unwrap()), expected, "{answer}");
    }
}

async fn cli_shows_where_the_data_is_and_whether_it_is_safe(home: Home) {
    let (cluster, fakes) = cluster(home, 3).await;
    says(
        &cluster,
        "volume create v --size 5G --replicas 3 --min-in-sync 1 --shard-size 2G",
        &["volume v made: 5G, online"],
    )
    .await;
    says(&cluster, "volume list", &["3 of 3", "online"]).await;
    let show = ["has not claimed", "fewer than 1 in sync", "3 of 2G", "IN SYNC", "SHARD", "n3"];
    says(&cluster, "volume show v", &show).await;
    says(&cluster, "status", &["safe: every volume has all its replicas in sync"]).await;
    let leader = volume(&cluster).await.leader.unwrap();
    let other = if leader == "n1" { "n2" } else { "n1" };
    let moved = format!("node {other} is to lead volume v");
    says(&cluster, &format!("volume lead v --on {other}"), &[&moved]).await;
    says(&cluster, "volume min-in-sync v 2", &["volume v changed"]).await;
    let replica = volume(&cluster).await.replicas[0].uuid;
    let force = format!("volume force v --replica {replica} --data-may-be-lost");
    says(&cluster, &force, &["volume v forced"]).await;
    says(&cluster, "status", &["NO", "volume v", "replica(s) missing"]).await;
    let careless = cli(&cluster, &format!("volume force v --replica {replica}")).await;
    assert_eq!(careless.status.code(), Some(2));

    says(&cluster, "node list", &["REPLICAS", "LEADS", "n2"]).await;
    says(&cluster, "node drain n3", &["node n3 is being emptied"]).await;
    says(&cluster, "node show n3", &["up, draining", "number", "rack"]).await;
    says(&cluster, "node resume n3", &["node n3 takes part again"]).await;
    let disk = fakes[0].state().volumes[0].disk;
    says(&cluster, &format!("disk retire {disk}"), &["is being emptied"]).await;
    says(&cluster, &format!("disk show {disk}"), &["online, being emptied", "1T"]).await;
    says(&cluster, &format!("disk restore {disk}"), &["is used again"]).await;
    says(&cluster, "events", &["leader_moved", "replica_forced", "disk_retired"]).await;
}

postgres::on_both!(
    replicated_volume_is_made_claimed_degraded_and_whole_again,
    node_that_goes_down_loses_its_volumes_to_another,
    drained_node_hands_over_its_volume_and_its_replica,
    leader_that_hears_nobody_is_not_believed_and_another_one_leads,
    deposed_leader_that_hears_nobody_is_no_witness,
    replication_that_cannot_be_is_refused,
    cli_shows_where_the_data_is_and_whether_it_is_safe,
);
