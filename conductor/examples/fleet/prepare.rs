//! A MetaDB with nodes, volumes of three replicas and exported ones among them.

use std::path::Path;

use afs_decisions::{ClusterView, NodeId};
use conductor::api::{DiskKind, DiskReport, DiskState, NodeReport, PortalReport};
use conductor::db::{MetaDb, NewVolume, Place, PostgresUrl};
use uuid::Uuid;

/// Namespaces of each subsystem.
const NAMESPACES: u32 = 100;
const VOLUME_BYTES: u64 = 64 << 30;
/// Volumes made with one COMMIT.
const TOGETHER: usize = 500;

/// The name of the n-th node, counted from 1.
pub fn name(node: u32) -> String {
    format!("node-{node:04}")
}

/// What a node reports that has just started.
pub fn first_report(node: u32) -> NodeReport {
    let portal = |port: u16| PortalReport {
        transport: "tcp".to_owned(),
        address: format!("10.{}.{}.{}", node >> 14, node >> 7 & 127, node & 127),
        service: port.to_string(),
    };
    let disk = DiskReport {
        uuid: disk(node),
        kind: DiskKind::Store,
        path: "/dev/nvme0n1".to_owned(),
        total_bytes: 30 << 40,
        free_bytes: 20 << 40,
        state: DiskState::Online,
        error: None,
    };
    NodeReport {
        node: name(node),
        portals: vec![portal(4420)],
        peer_portals: vec![portal(4421)],
        disks: vec![disk],
        http: Some("127.0.0.1:49181".to_owned()),
        version: "1".to_owned(),
        ..NodeReport::default()
    }
}

fn disk(node: u32) -> Uuid {
    Uuid::from_u128(0xd15c << 64 | u128::from(node))
}

/// Fills a folder or a database of PostgreSQL that is empty.
pub async fn prepare(place: &str, nodes: u32, volumes: u32, exported: u32) {
    let place = match place.parse::<PostgresUrl>() {
        Ok(url) => Place::from(url),
        Err(_) => Place::from(Path::new(place)),
    };
    let db = MetaDb::open(&place).await.unwrap();
    for node in 1..=nodes {
        db.register(&first_report(node), |_, _| false).await.unwrap();
    }
    // Numbers are given in the order in which nodes join.
    let mut view = ClusterView::of_alive((1..=nodes).map(NodeId));
    let new = |volume: u32| {
        let turn = volume / nodes;
        // Three different nodes, and as many different peers of each as it has volumes.
        let half = nodes / 2;
        let steps = [0, 1 + turn * 37 % (half - 1), half + turn * 53 % (half - 1)];
        let holders = steps.map(|step| (volume + step) % nodes + 1);
        NewVolume {
            name: format!("volume-{volume:06}"),
            size_bytes: VOLUME_BYTES,
            shard_blocks: VOLUME_BYTES / 4096,
            min_in_sync: 2,
            disks: vec![holders.map(disk).to_vec()],
        }
    };
    let all: Vec<NewVolume> = (0..volumes).map(new).collect();
    for some in all.chunks(TOGETHER) {
        db.create_all(some, &mut view).await.unwrap();
    }
    for export in 0..exported {
        let nqn = format!("nqn.2026-11.io.afs.lab:fleet-{}", export / NAMESPACES);
        if export % NAMESPACES == 0 {
            db.create_subsystem(&nqn).await.unwrap();
        }
        // Spread over all leaders.
        let volume = u64::from(export) * u64::from(volumes) / u64::from(exported);
        db.add_namespace(&nqn, &format!("volume-{volume:06}"), None, false).await.unwrap();
    }
    db.close().await;
}
