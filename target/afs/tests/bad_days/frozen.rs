//! Nodes that stand still and go on.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

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
    cluster.still(&[0]);
    let leader = cluster.leader_but(Some(0));
    load.go_on(100);
    assert!(frozen.elapsed() < FROZEN / 2, "others took {:?} to go on", frozen.elapsed());
    wait_for("the time to be over", || (frozen.elapsed() > FROZEN).then_some(()));
    let before = load.done();
    load.longest();
    cluster.go_on(&[0]);
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
    for (lba, closes) in [(0, true), (1, false)] {
        cluster.lead(0);
        let late = LateWrite::begin(&host, &cluster, 0, lba, || cluster.still(&[0]));
        let late = if closes {
            late.close();
            None
        } else {
            Some(late)
        };
        let frozen = Instant::now();
        let leader = cluster.leader_but(Some(0));
        overwrite(&host, leader, lba);
        wait_for("the time in which no host gives a silent path up to be over", || {
            (closes || frozen.elapsed() > SILENT).then_some(())
        });
        cluster.go_on(&[0]);
        cluster.healed();
        host.assert_all_replicas(&cluster, lba, &[3]);
        drop(late);
    }

    // A node that forwards to the leader, for a moment that nobody else notices.
    cluster.lead(0);
    LateWrite::begin(&host, &cluster, 1, 2, || cluster.still(&[1])).close();
    overwrite(&host, 0, 2);
    cluster.go_on(&[1]);
    cluster.healed();
    host.assert_all_replicas(&cluster, 2, &[3]);

    // The leader, with the write forwarded to it by another node.
    cluster.lead(0);
    LateWrite::begin(&host, &cluster, 1, 3, || cluster.still(&[0])).close();
    let leader = cluster.leader_but(Some(0));
    overwrite(&host, leader, 3);
    cluster.go_on(&[0]);
    cluster.healed();
    host.assert_all_replicas(&cluster, 3, &[3]);
}

/// A host may reach a volume through a node that forwards to the one that stands still. Its connection is well, so nothing but that
/// node can tell it to try again.
#[test]
fn what_was_forwarded_to_a_leader_that_stands_still_does_not_outlast_its_reign() {
    let cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    cluster.lead(0);
    let begun = Instant::now();
    LateWrite::begin(&host, &cluster, 1, 4, || cluster.still(&[0])).answered();
    let took = begun.elapsed();
    assert!(took < HOSTS_PATIENCE / 2, "{took:?}");
    let leader = cluster.leader_but(Some(0));
    overwrite(&host, leader, 4);
    cluster.go_on(&[0]);
    cluster.healed();
    host.assert_all_replicas(&cluster, 4, &[3]);
}

/// A write may already wait for replicas when its leader is stopped, so no check at its arrival sees the gap; and the leader may
/// be told that it leads no more, and forward the write to the new one, before any of its timers has run. Its connection is well.
#[test]
fn what_waited_in_a_leader_that_stood_still_never_lands_on_a_newer_one() {
    let cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    cluster.lead(0);
    let late = LateWrite::begin(&host, &cluster, 0, 5, || cluster.still(&[1, 2]));
    cluster.wait_in_flight(0);
    let frozen = Instant::now();
    cluster.still(&[0]);
    cluster.go_on(&[1, 2]);
    let leader = cluster.leader_but(Some(0));
    overwrite(&host, leader, 5);
    wait_for("the time in which no host gives a silent path up to be over", || {
        (frozen.elapsed() > SILENT).then_some(())
    });
    cluster.go_on(&[0]);
    late.answered();
    cluster.healed();
    host.assert_all_replicas(&cluster, 5, &[3]);
}

/// Before the first write that it forwards to a leader, a node asks that for its tick. When it goes on after a moment in which
/// nobody missed it, the answer is there, and the host gone.
#[test]
fn what_waited_for_a_tick_never_lands_on_a_newer_one() {
    // The node that forwards has no replica, so nobody waits for it.
    let cluster = Cluster::start(&["256M", "256M", "256M", "256M"]);
    cluster.make_volume(64 << 20);
    let host = Host::new(&cluster);
    let (replicas, through) = cluster.nodes_with_and_without();
    let (first, second) = (replicas[0], replicas[1]);
    for lba in 6..16 {
        cluster.lead(first);
        let late = LateWrite::begin(&host, &cluster, through, lba, || {
            cluster.lead(second);
            cluster.still(&[second]);
        });
        cluster.wait_in_flight(through);
        cluster.still(&[through]);
        late.close();
        cluster.go_on(&[second]);
        overwrite(&host, second, lba);
        cluster.go_on(&[through]);
        cluster.healed();
        assert_eq!(host.read(second, lba, 1), Ok(vec![3]));
    }
}

/// A write of which the host does not hear soon.
struct LateWrite {
    give_up: oneshot::Sender<()>,
    over: mpsc::Receiver<()>,
}

impl LateWrite {
    /// Writes through node `through`; then `meanwhile` happens, some node stands still, and a second write is sent on the same path.
    fn begin(
        host: &Host,
        cluster: &Cluster,
        through: usize,
        lba: u64,
        meanwhile: impl FnOnce(),
    ) -> LateWrite {
        let portal = cluster.nodes[through].place.portal;
        let (sent, has_sent) = mpsc::channel();
        let (go, may_go) = oneshot::channel();
        let (give_up, mut given_up) = oneshot::channel();
        let over = host.begin(move |local| async move {
            let path = Path::connect(portal, &local).await.unwrap();
            path.write(lba, 1, 1).await.unwrap();
            sent.send(()).unwrap();
            may_go.await.unwrap();
            let calls = path.queue.counters().send_calls;
            let mut write = std::pin::pin!(path.write(lba, 1, 2));
            let is_sent = async {
                // The data goes with the command.
                while path.queue.counters().send_calls == calls {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                done = &mut write => panic!("a node that stands still answered: {done:?}"),
                () = is_sent => sent.send(()).unwrap(),
            }
            // It may have failed, or its connection be gone: of a write that is late anything may have become but harm.
            tokio::select! {
                _ = write => {}
                _ = &mut given_up => {}
            }
        });
        has_sent.recv_timeout(SOON).unwrap();
        meanwhile();
        go.send(()).unwrap();
        has_sent.recv_timeout(SOON).unwrap();
        LateWrite { give_up, over }
    }

    /// The host closes its connection.
    fn close(self) {
        self.give_up.send(()).unwrap();
        self.over.recv_timeout(SOON).unwrap();
    }

    /// Waits until the host hears of it.
    fn answered(self) {
        self.over.recv_timeout(SOON).unwrap();
    }
}

/// The host's retry, and a newer write.
fn overwrite(host: &Host, node: usize, lba: u64) {
    wait_for("the retry", || host.write(node, lba, 1, 2).ok());
    host.write(node, lba, 1, 3).unwrap();
}
