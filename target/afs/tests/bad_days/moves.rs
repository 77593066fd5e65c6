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
