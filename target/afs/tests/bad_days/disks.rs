//! Disks that are not where they were, or not what they were.

use std::fs;

use serde_json::{Value, json};

use crate::common::{SOON, wait_for};
use crate::host::Host;
use crate::rig::{Cluster, VOLUME};

/// n1 and n2 are started with each other's disk. A replica of the same shard cannot move to where another one is, so both are
/// out of use and say so, writes wait, and nothing is lost.
#[test]
fn a_disk_in_another_node_is_served_only_where_it_fits_and_nothing_is_lost() {
    let mut cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    cluster.lead(2);
    host.write(2, 0, 4, 7).unwrap();
    cluster.stop_node(0);
    cluster.stop_node(1);
    let (first, second) = (cluster.nodes[0].disk.clone(), cluster.nodes[1].disk.clone());
    (cluster.nodes[0].disk, cluster.nodes[1].disk) = (second.clone(), first.clone());
    cluster.start_node(0);
    cluster.start_node(1);
    wait_for("both disks to be reported as misplaced", || {
        (cluster.events("disk_changed").len() >= 2).then_some(())
    });
    assert_eq!(cluster.events("replica_misplaced").len(), 2);
    wait_for("the volume to be called stalled", || {
        (cluster.volume()?["state"] == "stalled").then_some(())
    });
    let read = host.begin_read(2, 0);

    // Put right again, it is as it was.
    cluster.stop_node(0);
    cluster.stop_node(1);
    (cluster.nodes[0].disk, cluster.nodes[1].disk) = (first, second);
    cluster.start_node(0);
    cluster.start_node(1);
    cluster.healed();
    let read = read.recv_timeout(SOON).unwrap();
    assert!(read.as_ref().map_or(true, |read| *read == [7; 4096]), "{read:?}");
    host.assert_all_replicas(&cluster, 0, &[7; 4]);
}

/// The leader's disk is swapped for an empty one, under the same name.
#[test]
fn an_empty_disk_is_not_taken_for_a_full_one_and_is_filled_when_told() {
    let mut cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    cluster.lead(1);
    host.write(1, 0, 8, 3).unwrap();
    let disks = cluster.call("GET", "/api/v1/disks", Value::Null);
    let old = disks.as_array().unwrap().iter().find(|disk| disk["node"] == "n2").unwrap();
    let old = old["uuid"].as_str().unwrap().to_owned();

    cluster.stop_node(1);
    fs::rename(&cluster.nodes[1].disk, cluster.nodes[1].place.path("old")).unwrap();
    cluster.start_node(1);
    cluster.nodes[1].wait_until_serving();
    cluster.wait_in_sync(2);
    host.write(0, 4, 8, 4).unwrap();
    let now = [3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4];
    for node in 0..3 {
        assert_eq!(host.read(node, 0, 12).unwrap(), now, "through n{}", node + 1);
    }
    // It is said what is missing, and the empty disk has nothing of the volume yet.
    let replica = || {
        let volume = cluster.volume()?;
        let replicas = volume["replicas"].as_array()?.clone();
        replicas.into_iter().find(|replica| replica["node"] == "n2")
    };
    wait_for("the replica to be reported as missing", || {
        let replica = replica()?;
        let said = replica["error"].as_str()?.contains("disk");
        (said && replica["in_sync"] == false && replica["disk"] == old.as_str()).then_some(())
    });

    // The operator says that the old disk is gone for good: the new one takes its place.
    cluster.call("POST", &format!("/api/v1/disks/{old}/retire"), json!({}));
    wait_for("a replica on the new disk", || {
        let replica = replica()?;
        (replica["disk"] != old.as_str() && replica["in_sync"] == true).then_some(())
    });
    cluster.healed();
    host.assert_all_replicas(&cluster, 0, &now);
    let volume = cluster.call("GET", &format!("/api/v1/volumes/{VOLUME}"), Value::Null);
    assert_eq!(volume["state"], "online", "{volume:#}");
}
