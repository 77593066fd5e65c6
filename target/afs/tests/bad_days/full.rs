//! A disk that has no space left while others have.

use serde_json::json;

use crate::host::Host;
use crate::rig::{Cluster, VOLUME};

const CHUNK_BLOCKS: u64 = 64;

/// DESIGN 6: a full pool answers "capacity exceeded" and goes on reading, trimming and overwriting. That of one replica is the
/// volume's: the write fails on all of them alike, nobody is dropped.
#[test]
fn a_full_replica_refuses_what_needs_space_and_stays_equal() {
    let cluster = Cluster::start(&["256M", "256M", "32M"]);
    cluster.make_volume(64 << 20);
    let host = Host::new(&cluster);
    cluster.lead(0);
    let mut full_at = None;
    for chunk in 0..(64 << 20) / (CHUNK_BLOCKS * 4096) {
        let lba = chunk * CHUNK_BLOCKS;
        if let Err(error) = host.write(0, lba, CHUNK_BLOCKS as usize, 9) {
            assert!(error.contains("CAPACITY_EXCEEDED"), "{error}");
            full_at = Some(lba);
            break;
        }
    }
    let full_at = full_at.unwrap();
    assert!(full_at > 0);
    assert_eq!(cluster.in_sync(), 3, "nobody was dropped for it");

    // What was refused is as it was on all of them; what is there can be read and written.
    host.write(1, 0, 4, 1).unwrap();
    assert!(host.write(2, full_at, 1, 5).is_err(), "through the full node as well");
    for node in 0..3 {
        cluster.lead(node);
        assert_eq!(host.read(node, full_at, 64).unwrap(), [0; 64], "n{}", node + 1);
        assert_eq!(host.read(node, 0, 5).unwrap(), [1, 1, 1, 1, 9], "n{}", node + 1);
        assert_eq!(host.read(node, full_at - 64, 64).unwrap(), [9; 64], "n{}", node + 1);
    }

    // Space that is given back can be used again.
    host.trim(0, 0, 64).unwrap();
    host.write(0, full_at, 64, 6).unwrap();
    host.assert_all_replicas(&cluster, full_at, &[6; 64]);
    let shown = cluster.call("GET", &format!("/api/v1/volumes/{VOLUME}"), json!(null));
    assert_eq!(shown["state"], "online", "{shown:#}");
}
