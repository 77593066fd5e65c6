//! Everything at once.

use crate::common::wait_for;
use crate::host::Host;
use crate::rig::Cluster;

/// Every order in which three nodes can come back, with the conductor last in one of them.
#[test]
fn all_nodes_lose_their_power_and_come_back_in_any_order() {
    let mut cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    let orders = [[0, 1, 2], [1, 2, 0], [2, 1, 0]];
    for (round, order) in orders.into_iter().enumerate() {
        let load = host.load(256);
        load.go_on(300);
        for node in &mut cluster.nodes {
            node.kill();
        }
        let written = load.stop();
        for (place, index) in order.into_iter().enumerate() {
            cluster.start_node(index);
            if place == 0 {
                // One alone has too little to go on.
                wait_for("the process", || {
                    (cluster.nodes[index].place.node("/healthz").0 != 0).then_some(())
                });
            }
        }
        cluster.healed();
        let leader = cluster.leader();
        let read = wait_for("the volume", || host.read(leader, 0, 256).ok());
        for (lba, fill) in written {
            let found = read[lba as usize];
            // The write that was under way may be there as well.
            let next = fill % 251 + 1;
            assert!(found == fill || found == next, "round {round}: {lba}: {found} and not {fill}");
        }
        host.assert_all_replicas(&cluster, 0, &read);
    }
}
