//! Where replicas go.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use afs_decisions::{
    ClusterView, DiskView, Member, NodeId, NodeState, PlacementError, Role, Shard, place, place_one,
};
use common::node_with_disk;
use proptest::prelude::*;
use uuid::Uuid;

fn cluster(racks: &[Option<&str>]) -> ClusterView {
    let mut view = ClusterView::new(0);
    for (id, rack) in (1u32..).zip(racks) {
        let mut node = node_with_disk(id, 1000, 0);
        node.rack = rack.map(str::to_owned);
        view.set_node(NodeId(id), node);
    }
    view
}

fn nodes(places: &[afs_decisions::DiskPlace]) -> BTreeSet<u32> {
    places.iter().map(|place| place.node.0).collect()
}

#[test]
fn disk_with_the_most_unpromised_space_is_chosen() {
    let mut view = ClusterView::new(0);
    view.set_node(NodeId(1), node_with_disk(1, 100, 60));
    view.set_node(NodeId(2), node_with_disk(2, 100, 20));
    view.set_node(NodeId(3), node_with_disk(3, 1000, 1500));
    assert_eq!(place(&view, &[10], 1).unwrap()[0][0].node, NodeId(2));
}

#[test]
fn null_disk_is_chosen_only_where_there_is_no_other() {
    let mut view = ClusterView::new(0);
    let mut node = node_with_disk(1, 1 << 50, 0);
    node.disks[0].keeps_data = false;
    node.rack = Some("b".to_owned());
    view.set_node(NodeId(1), node);
    view.set_node(NodeId(2), node_with_disk(2, 1 << 30, 1 << 40));
    assert_eq!(place(&view, &[10], 1).unwrap()[0][0].node, NodeId(2));
    view.set_alive(NodeId(2), false);
    assert_eq!(place(&view, &[10], 1).unwrap()[0][0].node, NodeId(1));
}

#[test]
fn replicas_stand_in_as_many_racks_as_there_are() {
    let view = cluster(&[Some("a"), Some("a"), Some("a"), Some("b"), Some("c")]);
    let three = place(&view, &[10; 20], 3).unwrap();
    assert!(three.iter().all(|shard| nodes(shard).is_superset(&BTreeSet::from([4, 5]))));
    let four = place(&view, &[10], 4).unwrap();
    assert_eq!(nodes(&four[0]).len(), 4, "two of them share rack a");
}

#[test]
fn nodes_that_are_away_being_emptied_or_without_a_working_disk_get_nothing() {
    let mut view = cluster(&[None; 5]);
    view.set_alive(NodeId(1), false);
    let mut draining = node_with_disk(2, 1000, 0);
    draining.state = NodeState::Draining;
    view.set_node(NodeId(2), draining);
    let mut broken = node_with_disk(3, 1000, 0);
    broken.disks[0].usable = false;
    view.set_node(NodeId(3), broken);
    assert_eq!(nodes(&place(&view, &[10], 2).unwrap()[0]), BTreeSet::from([4, 5]));
    assert_eq!(place(&view, &[10], 3), Err(PlacementError::TooFewNodes { wanted: 3, found: 2 }));
}

#[test]
fn equal_room_goes_to_the_node_with_the_least_to_do() {
    let mut view = cluster(&[None; 3]);
    for (id, replicas) in [(1, 5), (2, 1), (3, 7)] {
        let mut node = node_with_disk(id, 1000, 0);
        node.replicas = replicas;
        view.set_node(NodeId(id), node);
    }
    assert_eq!(place(&view, &[1], 1).unwrap()[0][0].node, NodeId(2));
}

#[test]
fn further_replica_avoids_the_nodes_and_racks_of_the_others() {
    let view = cluster(&[Some("a"), Some("a"), Some("b"), Some("c")]);
    let member = |replica, node| Member {
        replica: Uuid::from_u128(replica),
        node: NodeId(node),
        role: Role::InSync,
    };
    let shard = Shard { members: vec![member(1, 1), member(2, 3)] };
    assert_eq!(place_one(&view, &shard, 10).unwrap().node, NodeId(4));
    let full = Shard { members: (1..=4).map(|n| member(u128::from(n), n)).collect() };
    assert!(place_one(&view, &full, 10).is_err());
}

#[test]
fn shards_of_one_volume_spread_over_disks_by_their_size() {
    let mut view = cluster(&[None; 3]);
    let mut node = node_with_disk(4, 3000, 0);
    node.disks.push(DiskView { disk: Uuid::from_u128(99), ..node.disks[0].clone() });
    view.set_node(NodeId(4), node);
    let places = place(&view, &[100; 80], 1).unwrap();
    let on = |id| places.iter().flatten().filter(|place| place.node == NodeId(id)).count();
    let counts = [1, 2, 3, 4].map(on);
    assert!(
        counts[3] >= 50 && counts[..3].iter().all(|count| (5..=10).contains(count)),
        "{counts:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn replicas_of_a_shard_are_always_on_distinct_usable_nodes(
        nodes in prop::collection::vec((any::<bool>(), 0u32..4, 1u64..1 << 40, 0u64..1 << 41), 1..20),
        shards in 1usize..20,
        replicas in 1u8..=5,
    ) {
        let mut view = ClusterView::new(0);
        for (id, (alive, rack, total, provisioned)) in (1u32..).zip(&nodes) {
            let mut node = node_with_disk(id, *total, *provisioned);
            node.alive = *alive;
            node.rack = (*rack > 0).then(|| rack.to_string());
            view.set_node(NodeId(id), node);
        }
        let usable = nodes.iter().filter(|node| node.0).count();
        match place(&view, &vec![1 << 30; shards], replicas) {
            Ok(places) => {
                prop_assert_eq!(places.len(), shards);
                for shard in &places {
                    let distinct: BTreeSet<_> = shard.iter().map(|place| place.node).collect();
                    prop_assert_eq!(distinct.len(), usize::from(replicas));
                    prop_assert!(distinct.iter().all(|node| view.is_active(*node)));
                }
            }
            Err(_) => prop_assert!(usable < usize::from(replicas)),
        }
    }
}
