//! Nodes that stand still and go on.

use std::time::{Duration, Instant};

use crate::common::{SOON, wait_for};
use crate::host::{Host, Path};
use crate::rig::Cluster;

const FROZEN: Duration = Duration::from_secs(30);
/// After this time a node fails an I/O for which there is no leader.
const HOSTS_PATIENCE: Duration = Duration::from_secs(20);
/// Longer than the time after which a reactor that stood still gives up its hosts' connections; a host that does not see its
/// connection end waits longer than that, too.
const SILENT: Duration = Duration::from_millis(2500);

#[test]
fn a_leader_that_was_frozen_for_long_returns_as_a_replica_without_harm() {
    let cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    cluster.lead(0);
    let load = host.load(512);
    load.go_on(100);
    let frozen = Instant::now();
    cluster.nodes[0].signal("STOP");
    let leader = cluster.leader_but(Some(0));
    load.go_on(100);
    assert!(frozen.elapsed() < FROZEN / 2, "others took {:?} to go on", frozen.elapsed());
    wait_for("the time to be over", || (frozen.elapsed() > FROZEN).then_some(()));
    let before = load.done();
    load.longest();
    cluster.nodes[0].signal("CONT");
    cluster.healed();
    load.go_on(100);
    assert!(load.longest() < Duration::from_secs(3), "its return held writes up");
    assert!(load.done() > before);
    assert_eq!(cluster.leader(), leader, "the new leader stays");
    let written = load.stop();
    let fills: Vec<u8> = (0..512).map(|lba| written.get(&lba).copied().unwrap_or(0)).collect();
    host.assert_all_replicas(&cluster, 0, &fills);
}

/// CONFORMANCE M-45 in its four forms. In each the old write lies in a socket of a node that stands still; its host gives the
/// path up and writes elsewhere, twice; then the node goes on.
#[test]
fn a_late_write_of_a_dead_path_never_lands_on_a_newer_one() {
    let cluster = Cluster::with_volume();
    let host = Host::new(&cluster);

    // The leader, for so long that another one leads. The host's connection ends, or is only forgotten.
    for closes in [true, false] {
        cluster.lead(0);
        let (lba, old) =
            (u64::from(closes), late_write(&host, &cluster, 0, 0, u64::from(closes), closes));
        let frozen = Instant::now();
        let leader = cluster.leader_but(Some(0));
        overwrite(&host, leader, lba);
        wait_for("the time in which no host gives a silent path up to be over", || {
            (closes || frozen.elapsed() > SILENT).then_some(())
        });
        cluster.nodes[0].signal("CONT");
        cluster.healed();
        host.assert_all_replicas(&cluster, lba, &[3]);
        drop(old);
    }

    // A node that forwards to the leader, for a moment that nobody else notices.
    cluster.lead(0);
    let old = late_write(&host, &cluster, 1, 1, 2, true);
    overwrite(&host, 0, 2);
    cluster.nodes[1].signal("CONT");
    cluster.healed();
    host.assert_all_replicas(&cluster, 2, &[3]);
    drop(old);

    // The leader, with the write forwarded to it by another node.
    cluster.lead(0);
    let old = late_write(&host, &cluster, 0, 1, 3, true);
    let leader = cluster.leader_but(Some(0));
    overwrite(&host, leader, 3);
    cluster.nodes[0].signal("CONT");
    cluster.healed();
    host.assert_all_replicas(&cluster, 3, &[3]);
    drop(old);
}

/// A host may reach a volume through a node that forwards to the one that stands still. Its connection is well, so nothing but that
/// node can tell it to try again.
#[test]
fn what_was_forwarded_to_a_leader_that_stands_still_does_not_outlast_its_reign() {
    let cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    cluster.lead(0);
    let begun = Instant::now();
    let write = late_write(&host, &cluster, 0, 1, 4, false).unwrap();
    write.recv_timeout(SOON).unwrap();
    let took = begun.elapsed();
    assert!(took < HOSTS_PATIENCE / 2, "{took:?}");
    let leader = cluster.leader_but(Some(0));
    overwrite(&host, leader, 4);
    cluster.nodes[0].signal("CONT");
    cluster.healed();
    host.assert_all_replicas(&cluster, 4, &[3]);
}

/// A write through node `through` while node `still` stands still. The path is given up: closed, or left as it is.
fn late_write(
    host: &Host,
    cluster: &Cluster,
    still: usize,
    through: usize,
    lba: u64,
    closes: bool,
) -> Option<std::sync::mpsc::Receiver<()>> {
    let portal = cluster.nodes[through].place.portal;
    let (sent, has_sent) = std::sync::mpsc::channel();
    let (go, may_go) = tokio::sync::oneshot::channel();
    let late = host.begin(move |local| async move {
        let path = Path::connect(portal, &local).await.unwrap();
        path.write(lba, 1, 1).await.unwrap();
        sent.send(()).unwrap();
        may_go.await.unwrap();
        let calls = path.queue.counters().send_calls;
        {
            let mut write = std::pin::pin!(path.write(lba, 1, 2));
            let is_sent = async {
                // The data goes with the command.
                while path.queue.counters().send_calls == calls {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                done = &mut write => panic!("a node that stands still answered: {done:?}"),
                () = is_sent => {}
            }
            sent.send(()).unwrap();
            if !closes {
                // Ends when the node closes it.
                let _ = write.await;
            }
        }
    });
    has_sent.recv_timeout(SOON).unwrap();
    cluster.nodes[still].signal("STOP");
    go.send(()).unwrap();
    has_sent.recv_timeout(SOON).unwrap();
    if closes {
        late.recv_timeout(SOON).unwrap();
        return None;
    }
    Some(late)
}

/// The host's retry, and a newer write.
fn overwrite(host: &Host, node: usize, lba: u64) {
    wait_for("the retry", || host.write(node, lba, 1, 2).ok());
    host.write(node, lba, 1, 3).unwrap();
}
