//! MetaDB as it was some time ago.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::common::wait_for;
use crate::host::Host;
use crate::rig::{Cluster, VOLUME};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The copy says that n3 is in sync and leads; since then n3 was dropped and a write was acknowledged without it.
#[test]
fn an_old_copy_of_metadb_decides_nothing_about_volumes_that_have_moved_on() {
    let mut cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    cluster.lead(2);
    host.write(2, 0, 8, 1).unwrap();
    cluster.stop_conductor();
    let old = cluster.metadb().with_extension("old");
    copy(&cluster.metadb(), &old);
    cluster.start_conductor();
    cluster.nodes[2].kill();
    let leader = cluster.leader_but(Some(2));
    wait_for("a write without n3", || host.write(leader, 0, 8, 2).ok());

    cluster.stop_conductor();
    fs::remove_dir_all(cluster.metadb()).unwrap();
    copy(&old, &cluster.metadb());
    cluster.start_conductor();
    cluster.start_node(2);
    wait_for("the older copy to be noticed", || {
        (!cluster.events("volume_went_back").is_empty()).then_some(())
    });
    let status = cluster.call("GET", "/api/v1/status", json!(null)).to_string();
    assert!(status.contains("older copy"), "{status}");

    // Nobody leads, nothing is served by what the copy says, however often n3 asks.
    let claims = cluster.events("leader_claimed").len();
    cluster.nodes[2].kill();
    cluster.start_node(2);
    cluster.nodes[2].wait_until_serving();
    let attempts = host.begin_read(2, 0);
    let moved = cluster.try_call(
        "POST",
        &format!("/api/v1/volumes/{VOLUME}/leader"),
        json!({ "node": "n1" }),
    );
    assert_eq!(moved.0, 409, "{}", moved.1);
    assert!(moved.1.contains("older copy"), "{}", moved.1);

    // The operator names a replica that was in sync to the end.
    let volume = cluster.volume().unwrap();
    let replicas = volume["replicas"].as_array().unwrap();
    let newest = replicas
        .iter()
        .find(|replica| replica["node"] == cluster.nodes[leader].name.as_str())
        .unwrap();
    assert!(attempts.try_recv().is_err(), "it was served");
    assert_eq!(cluster.events("leader_claimed").len(), claims);
    cluster.call(
        "POST",
        &format!("/api/v1/volumes/{VOLUME}/force"),
        json!({ "replica": newest["uuid"] }),
    );
    cluster.healed();
    host.assert_all_replicas(&cluster, 0, &[2; 8]);
}
