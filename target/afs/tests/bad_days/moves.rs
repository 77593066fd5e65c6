//! Leaders that come and go as they are told.

use std::time::{Duration, Instant};

use crate::host::Host;
use crate::rig::Cluster;

/// Nothing here takes a second on an idle machine.
const QUICKLY: Duration = Duration::from_secs(12);

/// It took half a minute, the time of a generation, until a leader that was over had ended; so long its node could neither stop
/// nor lead the volume again.
#[test]
fn a_node_that_led_can_lead_again_and_can_stop_at_once() {
    let mut cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    for (round, leader) in [0, 1, 0].into_iter().enumerate() {
        let begun = Instant::now();
        cluster.lead(leader);
        assert!(begun.elapsed() < QUICKLY, "round {round}: {:?}", begun.elapsed());
        host.write(leader, 0, 1, 1).unwrap();
    }
    let begun = Instant::now();
    cluster.stop_node(0);
    assert!(begun.elapsed() < QUICKLY, "its end took {:?}", begun.elapsed());
    let leader = cluster.leader_but(Some(0));
    host.write(leader, 0, 1, 2).unwrap();
    assert!(begun.elapsed() < QUICKLY, "others took {:?}", begun.elapsed());
}

/// Each reactor has connections of its own to other nodes, made when it first needs them. A replica must not be taken for lost
/// because one is not there yet.
#[test]
fn the_first_write_of_each_reactor_drops_no_replica() {
    let mut cluster = Cluster::with_volume();
    for node in 0..cluster.nodes.len() {
        cluster.restart_with(node, 3);
    }
    let host = Host::new(&cluster);
    let before = cluster.events("replica_dropped").len();
    for leader in 0..cluster.nodes.len() {
        cluster.lead(leader);
        // A connection is on the reactor whose turn it is.
        for lba in 0..8 {
            host.write(leader, lba, 1, 1).unwrap();
        }
    }
    let dropped = cluster.events("replica_dropped").split_off(before);
    assert_eq!(dropped, [""; 0]);

    // Connections that ended while nothing was called on them are no sign either.
    let leader = cluster.leader();
    let replica = (leader + 1) % cluster.nodes.len();
    cluster.stop_node(replica);
    cluster.wait_in_sync(2);
    cluster.start_node(replica);
    cluster.healed();
    let before = cluster.events("replica_dropped").len();
    for lba in 0..8 {
        host.write(leader, lba, 1, 2).unwrap();
    }
    let dropped = cluster.events("replica_dropped").split_off(before);
    assert_eq!(dropped, [""; 0]);
}
