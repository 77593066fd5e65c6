//! A replica that answers, but ever so slowly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::wait_for;
use crate::host::Host;
use crate::rig::Cluster;

/// Longer than a leader waits for an answer.
const STILL: Duration = Duration::from_millis(1100);
/// Long enough to be brought back meanwhile.
const AWAKE: Duration = Duration::from_millis(1500);
/// How long it is looked at.
const WATCHED: Duration = Duration::from_secs(16);

/// n3 runs for a moment and stands still for another, over and over. DESIGN 5 rule 13: it is dropped, and is tried again after
/// pauses that grow although each try goes well for a while.
#[test]
fn a_replica_that_is_slow_for_ever_is_left_alone_ever_longer() {
    let cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    cluster.lead(0);
    let load = host.load(512);
    load.go_on(50);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                cluster.still(&[2]);
                std::thread::sleep(STILL);
                cluster.go_on(&[2]);
                std::thread::sleep(AWAKE);
            }
        });
        wait_for("it to be dropped", || {
            (!cluster.events("replica_dropped").is_empty()).then_some(())
        });
        let begun = Instant::now();
        let (mut slow, mut all) = (0, 0);
        while begun.elapsed() < WATCHED {
            load.longest();
            load.go_on(20);
            all += 1;
            slow += u32::from(load.longest() > Duration::from_millis(300));
        }
        over.store(true, Ordering::Release);
        let admitted = cluster.events("replica_admitted").len();
        // With pauses that do not grow it would be six.
        assert!(admitted <= 3, "{admitted} times in {WATCHED:?}");
        assert!(slow * 10 < all, "{slow} of {all} times a write took long");
    });
    let written = load.stop();
    cluster.healed();
    let fills: Vec<u8> = (0..512).map(|lba| written.get(&lba).copied().unwrap_or(0)).collect();
    host.assert_all_replicas(&cluster, 0, &fills[..256]);
}
