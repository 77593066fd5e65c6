//! A volume whose only replica is on one node, as another node serves it to its hosts: forwarded, with no leader in between.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use afs::backend::{Backend, BackendError, BackendSource};
use afs::cluster::local::LocalHost;
use afs::cluster::{Cluster, control};
use afs::data_folder::DataFolder;
use afs::disks::DiskSet;
use afs::portal::{Portal, Transport};
use afs_decisions::NodeId;
use afs_reactor::Local;
use tempfile::TempDir;
use uuid::Uuid;

use crate::io_data::config;
use crate::rig::*;

const BLOCK: usize = 4096;

/// The node that the hosts reach. Node 1, which has the volume, is at the address of `world`.
fn neighbour(world: &World) -> Arc<Cluster> {
    let params = afs_volume::Params::default();
    let cluster = Cluster::new(Vec::new(), control::channel().0, params, Arc::default()).unwrap();
    let portal = Portal { transport: Transport::Tcp, address: world.address };
    cluster.meet(CLUSTER, NodeId(2), BTreeMap::from([(NodeId(1), vec![portal])]));
    cluster.lead(&[], HashMap::from([(volume(1), Some(NodeId(1)))]));
    cluster
}

/// Plays with the volume as the neighbour has it.
fn test<F, Fut>(part: F)
where
    F: FnOnce(Local, Backend) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let rig = Rig::for_peers(&state());
    let data = DataFolder::open(&folder.path().join("data")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let disks = runtime.block_on(async {
        let disks = DiskSet::open(&config(folder.path()), &rig.reactors, &data).await.unwrap();
        let disk = disks.iter().next().unwrap();
        let source = disk.provide(volume(1), Uuid::from_u128(99), BLOCKS * 4096).await.unwrap();
        let there = &rig.world.node.peers().unwrap().cluster;
        there.serve_direct(HashMap::from([(volume(1), source)]));
        disks
    });
    rig.host(|local, world| async move {
        let cluster = neighbour(&world);
        let source = BackendSource::cluster(volume(1), &cluster, BLOCKS, false);
        part(local.clone(), source.open(&local).unwrap()).await;
        LocalHost::close(&cluster, &local);
    });
    let there = rig.world.node.peers().unwrap();
    rig.world.node.close_to_peers();
    while !there.subsystem.controllers().is_empty() {
        std::thread::yield_now();
    }
    there.cluster.serve_direct(HashMap::new());
    runtime.block_on(there.cluster.close());
    runtime.block_on(disks.close());
}

async fn write(local: &Local, backend: &Backend, lba: u64, blocks: usize, byte: u8) {
    let mut data = local.pool().alloc(blocks * BLOCK).await;
    data.fill(byte);
    backend.write(lba, data.freeze(), &|| false).await.unwrap();
}

/// The first byte of each block, all of whose bytes are the same.
async fn read(local: &Local, backend: &Backend, lba: u64, blocks: usize) -> Vec<u8> {
    let mut buffer = local.pool().alloc(blocks * BLOCK).await;
    buffer.fill(0xee);
    let (buffer, result) = backend.read(lba, buffer).await;
    result.unwrap();
    let uniform = |block: &[u8]| {
        assert!(block.iter().all(|byte| *byte == block[0]));
        block[0]
    };
    buffer.chunks(BLOCK).map(uniform).collect()
}

#[test]
fn what_hosts_of_another_node_write_is_what_they_read() {
    test(|local, backend| async move {
        assert_eq!(read(&local, &backend, 0, 4).await, [0; 4]);
        write(&local, &backend, 1, 1, 1).await;
        write(&local, &backend, 2, 64, 2).await;
        assert_eq!(read(&local, &backend, 0, 4).await, [0, 1, 2, 2]);
        backend.write_zeroes(2, 1, false, &|| false).await.unwrap();
        backend.write_zeroes(4, 2, true, &|| false).await.unwrap();
        assert_eq!(read(&local, &backend, 0, 7).await, [0, 1, 0, 2, 0, 0, 2]);
        backend.verify(0, 66).await.unwrap();
    });
}

#[test]
fn blocks_beyond_the_end_are_refused_to_another_node_as_well() {
    test(|local, backend| async move {
        let buffer = local.pool().alloc(2 * BLOCK).await;
        let (buffer, result) = backend.read(BLOCKS - 1, buffer).await;
        assert_eq!(result, Err(BackendError::OutOfRange));
        let written = backend.write(BLOCKS, buffer.freeze(), &|| false).await;
        assert_eq!(written, Err(BackendError::OutOfRange));
        let cleared = backend.write_zeroes(u64::MAX, 2, true, &|| false).await;
        assert_eq!(cleared, Err(BackendError::OutOfRange));
        assert_eq!(read(&local, &backend, BLOCKS - 1, 1).await, [0]);
    });
}
