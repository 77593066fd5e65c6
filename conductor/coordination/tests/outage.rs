//! A ZooKeeper that is not there, stops, freezes and comes back. In one test, because each outage
//! would disturb the others.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use afs_coordination::*;
use common::*;
use nvmf_tests::zookeeper::server_for;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_back_after_every_kind_of_outage() {
    let Some(mut server) = server_for("everything_comes_back_after_every_kind_of_outage") else {
        return;
    };

    // Not there at the start.
    server.stop().unwrap();
    let first = conductor(config(&server, "c"), "http://1");
    let node_one = join(config(&server, "c").watching_nodes(false));
    node_one.register(node("n1", "here"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(*first.link().borrow(), Link::Away);
    assert_eq!(*first.role().borrow(), Role::Lost);
    server.resume().unwrap();
    until_role(&first, Role::Active).await;
    until("the node", first.nodes(), |seen| seen.current && seen.nodes.len() == 1).await;
    let second = conductor(config(&server, "c"), "http://2");
    until_role(&second, Role::Standby).await;

    // Away and back within the session: the same queue again.
    server.stop().unwrap();
    let lost = until_role(&first, Role::Lost).await;
    assert!(lost < SESSION, "stepped down only after {lost:?}");
    until_role(&second, Role::Lost).await;
    until("not known any more", first.nodes(), |seen| !seen.current).await;
    assert_eq!(apis(&second), ["http://1", "http://2"], "the last known ones are still a hint");
    server.resume().unwrap();
    until("the link", first.link(), |link| *link == Link::Connected).await;
    until("one is active", first.conductors(), |seen| seen.0.len() == 2).await;
    one_of_both_is_active(&first, &second).await;

    // Frozen for longer than any session: whoever was active steps down before the session is
    // over, and everybody comes back with new ones.
    server.freeze().unwrap();
    let lost = until_role(&first, Role::Lost).await;
    until_role(&second, Role::Lost).await;
    assert!(lost < SESSION, "stepped down only after {lost:?}");
    tokio::time::sleep(SESSION * 2).await;
    server.thaw().unwrap();
    one_of_both_is_active(&first, &second).await;
    until("both stand again", first.conductors(), |seen| seen.0.len() == 2).await;
    until("the node", first.nodes(), |seen| seen.current && seen.nodes.len() == 1).await;

    // A stop is quick also when there is nobody to tell.
    server.stop().unwrap();
    until_role(&first, Role::Lost).await;
    tokio::time::timeout(Duration::from_secs(2), first.close()).await.unwrap();
}

async fn one_of_both_is_active(first: &Coordination, second: &Coordination) {
    let other = tokio::select! {
        _ = until_role(first, Role::Active) => second,
        _ = until_role(second, Role::Active) => first,
    };
    until_role(other, Role::Standby).await;
}
