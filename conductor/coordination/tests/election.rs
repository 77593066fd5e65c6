//! Election and registration against a real ZooKeeper that stays up.
#![allow(clippy::unwrap_used)]

mod common;

use afs_coordination::*;
use common::*;
use nvmf_tests::zookeeper::shared_server_for;
use zookeeper_client::Client;

#[tokio::test]
async fn the_first_conductor_is_active_and_the_next_follows_it() {
    let Some(server) = shared_server_for("the_first_conductor_is_active_and_the_next_follows_it")
    else {
        return;
    };
    let config = || config(server, "queue");
    let first = conductor(config(), "http://1");
    until_role(&first, Role::Active).await;
    let second = conductor(config(), "http://2");
    let third = conductor(config(), "http://3");
    until_role(&second, Role::Standby).await;
    until_role(&third, Role::Standby).await;

    // Nobody calls the first one active before it says that it took over.
    assert_eq!(second.conductors().borrow().active(), None);
    first.took_over(5);
    let is_active = |api: &'static str| {
        move |seen: &Conductors| seen.active().is_some_and(|active| active.api == api)
    };
    until("the token of the first", third.conductors(), is_active("http://1")).await;

    first.close().await;
    assert_eq!(*first.role().borrow(), Role::Lost);
    let took = tokio::select! {
        took = until_role(&second, Role::Active) => took,
        took = until_role(&third, Role::Active) => took,
    };
    assert!(took < SESSION / 2, "a planned stop must not wait for a time-out: {took:?}");
    until("two are left", second.conductors(), |seen| seen.0.len() == 2).await;
    let active = if *second.role().borrow() == Role::Active { &second } else { &third };
    let other = if std::ptr::eq(active, &second) { &third } else { &second };
    active.took_over(6);
    until("the token of the next", other.conductors(), |seen| seen.active().is_some()).await;

    // One that cannot decide lets the other one try.
    active.stand_aside();
    until_role(other, Role::Active).await;
    until_role(active, Role::Standby).await;
    assert_eq!(other.conductors().borrow().active(), None, "a token is for one turn");
}

#[tokio::test]
async fn a_node_that_only_looks_finds_the_active_conductor() {
    let Some(server) = shared_server_for("a_node_that_only_looks_finds_the_active_conductor")
    else {
        return;
    };
    let config = || config(server, "looks");
    let looking = join(config().watching_nodes(false));
    let active = conductor(config(), "http://1");
    until_role(&active, Role::Active).await;
    active.took_over(1);
    until("it is seen", looking.conductors(), |seen| seen.active().is_some()).await;
    assert_eq!(*looking.role().borrow(), Role::Lost);
    assert_eq!(apis(&looking), ["http://1"], "who only looks does not stand");
    active.stepped_down();
    until("nobody decides", looking.conductors(), |seen| seen.active().is_none()).await;
}

#[tokio::test]
async fn nodes_appear_change_and_disappear() {
    let Some(server) = shared_server_for("nodes_appear_change_and_disappear") else { return };
    let config = || config(server, "nodes");
    let watching = join(config());
    until("an empty list", watching.nodes(), |seen| seen.current && seen.nodes.is_empty()).await;
    let one = join(config().watching_nodes(false));
    one.register(node("n1", "here"));
    let two = join(config().watching_nodes(false));
    two.register(node("n2", "there"));
    until("both", watching.nodes(), |seen| seen.nodes.len() == 2).await;

    let changed = NodeRecord { capacity_bytes: 7, ..node("n1", "here") };
    one.register(changed.clone());
    let is_changed = |seen: &Nodes| seen.nodes.get("n1") == Some(&Some(changed.clone()));
    until("what changed", watching.nodes(), is_changed).await;

    two.close().await;
    let took = until("it is gone", watching.nodes(), |seen| seen.nodes.len() == 1).await;
    assert!(took < SESSION / 2, "a planned stop must not wait for a time-out: {took:?}");
}

#[tokio::test]
async fn a_restarted_node_takes_over_from_its_earlier_life_and_a_namesake_waits() {
    let Some(server) =
        shared_server_for("a_restarted_node_takes_over_from_its_earlier_life_and_a_namesake_waits")
    else {
        return;
    };
    let config = || config(server, "lives");
    let watching = join(config());
    let mut nodes = watching.nodes();
    let before = join(config());
    before.register(node("n1", "here"));
    until("it is there", watching.nodes(), |seen| seen.nodes.len() == 1).await;
    nodes.mark_unchanged();

    let after = join(config());
    let again = NodeRecord { capacity_bytes: 1, ..node("n1", "here") };
    after.register(again.clone());
    until("its new life", watching.nodes(), |seen| {
        seen.nodes.get("n1").and_then(Option::as_ref) == Some(&again)
    })
    .await;
    let namesake = join(config());
    namesake.register(node("n1", "elsewhere"));
    // The end of the earlier life takes nothing from the new one.
    before.close().await;
    tokio::time::sleep(SESSION / 2).await;
    let place = || nodes.borrow().nodes["n1"].clone().unwrap().place;
    assert_eq!(place(), "here");
    after.close().await;
    until("the namesake", watching.nodes(), |seen| {
        let record = seen.nodes.get("n1").and_then(Option::as_ref);
        record.is_some_and(|record| record.place == "elsewhere")
    })
    .await;
}

#[tokio::test]
async fn entries_are_open_only_to_holders_of_the_secret() {
    let Some(server) = shared_server_for("entries_are_open_only_to_holders_of_the_secret") else {
        return;
    };
    let chroot = format!("{}/deep/er", server.address());
    let config = |secret: Option<&str>| {
        let config = ZooKeeperConfig::new(&chroot, "secret").unwrap();
        let config = config.with_session_timeout(SESSION).unwrap().watching_nodes(true);
        match secret {
            Some(secret) => config.with_secret(secret).unwrap(),
            None => config,
        }
    };
    let member = conductor(config(Some("right")), "http://1");
    until_role(&member, Role::Active).await;
    let second = join(config(Some("right")));
    until("members see each other", second.conductors(), |seen| seen.0.len() == 1).await;

    let wrong = conductor(config(Some("wrong")), "http://2");
    let without = conductor(config(None), "http://3");
    tokio::time::sleep(SESSION).await;
    for outsider in [&wrong, &without] {
        assert_eq!(*outsider.role().borrow(), Role::Lost);
        assert_eq!(*outsider.link().borrow(), Link::Away);
    }
    assert_eq!(apis(&second), ["http://1"]);

    let anyone = Client::connect(&server.address()).await.unwrap();
    let root = "/deep/er/afs/secret";
    assert!(anyone.list_children(root).await.is_err());
    assert!(anyone.delete(&format!("{root}/nodes"), None).await.is_err());
    // Other clusters with other secrets have their place beside it.
    let other = ZooKeeperConfig::new(&chroot, "other").unwrap().with_secret("theirs").unwrap();
    let other = conductor(other, "http://9");
    until_role(&other, Role::Active).await;
}

#[tokio::test]
async fn an_entry_that_somebody_removed_is_made_again() {
    let Some(server) = shared_server_for("an_entry_that_somebody_removed_is_made_again") else {
        return;
    };
    let only = conductor(config(server, "removed"), "http://1");
    until_role(&only, Role::Active).await;
    let role = only.role();
    let anyone = Client::connect(&server.address()).await.unwrap();
    let queue = "/afs/removed/conductors";
    let entries = anyone.list_children(queue).await.unwrap();
    anyone.delete(&format!("{queue}/{}", entries[0]), None).await.unwrap();
    until("a new entry", only.conductors(), |seen| seen.0.is_empty()).await;
    until("a new entry", only.conductors(), |seen| seen.0.len() == 1).await;
    until_role(&only, Role::Active).await;
    assert_ne!(anyone.list_children(queue).await.unwrap(), entries);
    drop(role);
}
