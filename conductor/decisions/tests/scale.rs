//! A large cluster: 1024 nodes, 100,000 volumes. The limits are generous, as tests run on busy
//! machines; what is measured is printed.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use afs_decisions::*;
use common::node_with_disk;
use uuid::Uuid;

const NODES: u32 = 1024;
const VOLUMES: u32 = 100_000;

fn cluster() -> ClusterView {
    let mut view = ClusterView::new(0);
    for id in 1..=NODES {
        let mut node = node_with_disk(id, 8 << 40, 0);
        node.rack = Some(format!("rack-{}", id % 32));
        node.leads = VOLUMES / NODES;
        node.disks = vec![node.disks[0].clone(); 12];
        for (at, disk) in (0u128..).zip(&mut node.disks) {
            disk.disk = Uuid::from_u128(u128::from(id) << 8 | at);
        }
        view.set_node(NodeId(id), node);
    }
    view
}

fn volume(n: u32) -> VolumeConfig {
    let member = |place: u32| Member {
        replica: Uuid::from_u128(u128::from(n) << 8 | u128::from(place)),
        node: NodeId((n * 7 + place * 331) % NODES + 1),
        role: Role::InSync,
    };
    let members: Vec<_> = (0..3).map(member).collect();
    VolumeConfig {
        volume: Uuid::from_u128(u128::from(n) << 64),
        epoch: 2,
        leader: Some(members[0].node),
        leader_process: 7,
        reign: 2,
        planned: false,
        min_in_sync: 2,
        blocks: 1 << 24,
        shard_blocks: 1 << 24,
        shards: vec![Shard { members }],
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn death_of_a_node_is_decided_in_well_under_a_second() {
    let mut view = cluster();
    let before = resident_bytes();
    let mut directory = Directory::default();
    for n in 0..VOLUMES {
        directory.put(volume(n));
    }
    let bytes = resident_bytes().saturating_sub(before) / u64::from(VOLUMES);
    let dead = NodeId(8);
    let victims = directory.led_by(dead).count();
    assert!((90..=110).contains(&victims), "{victims}");

    let started = Instant::now();
    view.set_alive(dead, false);
    let elected = elect_all(directory.led_by(dead), &mut view);
    let took = started.elapsed();
    assert_eq!(elected.len(), victims);
    for (id, config) in elected {
        let config = config.unwrap();
        assert_ne!(config.leader, Some(dead));
        check_step(directory.get(id).unwrap(), &config, Step::Other).unwrap();
        assert!(directory.put(config));
    }
    assert_eq!(directory.leads(dead), 0);
    println!("{victims} elections among {NODES} nodes and {VOLUMES} volumes: {took:?}");
    println!("{bytes} bytes of memory per volume");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(bytes < 1024, "{bytes} bytes per volume");
}

#[test]
fn elections_that_look_at_every_node_are_quick_as_well() {
    let mut view = cluster();
    let configs: Vec<_> = (0..100).map(volume).collect();
    let started = Instant::now();
    // Both in-sync nodes but one away, so nobody serves the shard and all nodes are looked at.
    for config in &configs {
        for member in &config.shards[0].members[..2] {
            view.set_alive(member.node, false);
        }
    }
    let elected = elect_all(&configs, &mut view);
    let took = started.elapsed();
    println!("100 elections with a look at all of {NODES} nodes: {took:?}");
    assert!(elected.iter().any(|(_, result)| result.is_ok()));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn largest_volume_is_placed_quickly() {
    let view = cluster();
    let started = Instant::now();
    let places = place(&view, &[64 << 30; 1024], 3).unwrap();
    let took = started.elapsed();
    println!("1024 shards of 3 replicas placed among {NODES} nodes of 12 disks: {took:?}");
    let mut on_node = vec![0u32; NODES as usize + 1];
    for shard in &places {
        let racks: Vec<_> = shard.iter().map(|place| place.node.0 % 32).collect();
        assert!(racks[0] != racks[1] && racks[0] != racks[2] && racks[1] != racks[2]);
        shard.iter().for_each(|place| on_node[place.node.0 as usize] += 1);
    }
    assert!(on_node[1..].iter().all(|count| *count <= 6), "{:?}", on_node.iter().max());
    assert!(took < Duration::from_secs(3), "{took:?}");
}
