//! What the tests build volumes and views with.

#![allow(dead_code)]

use afs_decisions::{
    Asker, Claim, ClusterView, DiskView, NewVolume, NodeId, NodeState, NodeView, Place,
    VolumeConfig, claim, create,
};
use uuid::Uuid;

/// A replica's identity by shard and place.
pub fn replica(shard: u32, place: u32) -> Uuid {
    Uuid::from_u128((u128::from(shard) << 32) | u128::from(place) | 1 << 100)
}

/// A volume whose shards are each on these nodes.
pub fn new_volume(nodes: &[&[u32]], min_in_sync: u8) -> NewVolume {
    let shards = (0u32..).zip(nodes).map(|(shard, nodes)| {
        let place =
            |(at, node): (u32, &u32)| Place { replica: replica(shard, at), node: NodeId(*node) };
        (0u32..).zip(*nodes).map(place).collect()
    });
    NewVolume {
        volume: Uuid::from_u128(1),
        blocks: 100 * nodes.len() as u64 - 50,
        shard_blocks: 100,
        min_in_sync,
        shards: shards.collect(),
    }
}

/// Nodes 1 to `count`, all alive.
pub fn alive(count: u32) -> ClusterView {
    ClusterView::of_alive((1..=count).map(NodeId))
}

/// A volume that its leader has claimed with process 7, and that leader.
pub fn claimed(nodes: &[&[u32]], min_in_sync: u8) -> (VolumeConfig, Asker) {
    let config = create(&new_volume(nodes, min_in_sync), &alive(9)).unwrap();
    let node = config.leader.unwrap();
    let Claim::New(config) = claim(&config, node, 7).unwrap() else { panic!("claimed before") };
    let asker = asker(&config);
    (config, asker)
}

/// The leader of now.
pub fn asker(config: &VolumeConfig) -> Asker {
    Asker { node: config.leader.unwrap(), process: config.leader_process, epoch: config.epoch }
}

/// A live node with one disk.
pub fn node_with_disk(id: u32, total: u64, provisioned: u64) -> NodeView {
    let disk = DiskView {
        disk: Uuid::from_u128(u128::from(id)),
        usable: true,
        keeps_data: true,
        total_bytes: total,
        free_bytes: total,
        provisioned_bytes: provisioned,
    };
    NodeView { alive: true, state: NodeState::Active, disks: vec![disk], ..NodeView::default() }
}
