//! Data through two queues to a real store on a file: what was written is what is read (CONFORMANCE 5.1, I-9, I-11).

use std::path::Path;
use std::rc::Rc;

use afs::config::{DiskSpec, NodeConfig};
use afs::data_folder::DataFolder;
use afs::disks::DiskSet;
use afs_fabric::HostQueue;
use afs_nvme::Status;
use afs_nvme::command::{DsmRange, IoCommand, Rw};
use afs_reactor::Local;
use tempfile::TempDir;
use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::rig::*;

const BLOCK: usize = 4096;

/// Two queues to a namespace on a store.
fn test<F, Fut>(part: F)
where
    F: FnOnce(Local, [HostQueue; 2]) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    // Under build/, because a disk wants a file system that allows direct I/O.
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let rig = Rig::start(&state());
    let data = DataFolder::open(&folder.path().join("data")).unwrap();
    let config = config(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let disks = runtime.block_on(async {
        let disks = DiskSet::open(&config, &rig.reactors, &data).await.unwrap();
        let node_disk = disks.iter().next().unwrap();
        let source = node_disk.provide(volume(1), Uuid::from_u128(99), BLOCKS * 4096).await;
        rig.world.store(1, source.unwrap());
        rig.world.apply(&state());
        disks
    });
    rig.host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queues = controller.io_queues(2).await.unwrap();
        part(local, queues.try_into().unwrap_or_else(|_| panic!("two queues"))).await;
    });
    rig.world.node.close();
    let idle = || rig.world.node.controllers().is_empty();
    while !idle() {
        std::thread::yield_now();
    }
    runtime.block_on(disks.close());
}

/// A node of which only the disk matters.
pub fn config(folder: &Path) -> NodeConfig {
    NodeConfig {
        node: "n1".to_owned(),
        data: folder.join("data"),
        disks: vec![DiskSpec::File { path: folder.join("disk"), bytes: Some(64 << 20) }],
        listeners: Vec::new(),
        rack: None,
        http: "127.0.0.1:0".parse().unwrap(),
        reactors: 2,
        buffer_bytes: 32 << 20,
        assume_whole_blocks: false,
        zookeeper: None,
    }
}

fn rw(lba: u64, blocks: usize) -> Rw {
    Rw { lba, blocks: blocks as u32, fua: false }
}

async fn write(queue: &HostQueue, lba: u64, blocks: usize, byte: u8) {
    let data = vec![byte; blocks * BLOCK];
    let sqe = IoCommand::Write(rw(lba, blocks)).to_sqe(1);
    ask(queue, sqe, Data::Out(&data)).await.good();
}

/// The byte that each block is full of.
async fn read(queue: &HostQueue, lba: u64, blocks: usize) -> Vec<u8> {
    let sqe = IoCommand::Read(rw(lba, blocks)).to_sqe(1);
    let data = ask(queue, sqe, Data::In(blocks * BLOCK)).await.good().data;
    let uniform = |block: &[u8]| {
        assert!(block.iter().all(|byte| *byte == block[0]), "a block is torn (I-11)");
        block[0]
    };
    data.chunks_exact(BLOCK).map(uniform).collect()
}

async fn dataset_management(queue: &HostQueue, ranges: &[DsmRange], deallocate: bool) -> Status {
    let mut data = ranges.as_bytes().to_vec();
    data.resize(4096, 0xff);
    let command = IoCommand::DatasetManagement { ranges: ranges.len() as u16, deallocate };
    ask(queue, command.to_sqe(1), Data::Out(&data)).await.status
}

#[test]
fn what_one_queue_wrote_the_other_reads_in_every_size_i_9() {
    test(|_, [a, b]| async move {
        assert_eq!(read(&a, 0, 4).await, [0; 4], "fresh blocks are zero");
        for (turn, blocks) in [1, 2, 4, 5, 16, 64, 255, 256].into_iter().enumerate() {
            let (byte, lba) = (turn as u8 + 1, 3 * turn as u64);
            write(&a, lba, blocks, byte).await;
            assert_eq!(read(&b, lba, blocks).await, vec![byte; blocks]);
            assert_eq!(read(&b, lba + blocks as u64, 1).await, [0], "not a block more");
        }
        write(&b, BLOCKS - 1, 1, 9).await;
        assert_eq!(read(&a, BLOCKS - 2, 2).await, [0, 9]);
    });
}

#[test]
fn compare_finds_any_difference_and_changes_nothing_5_1() {
    test(|_, [a, b]| async move {
        write(&a, 10, 4, 5).await;
        let compare = IoCommand::Compare(rw(10, 4)).to_sqe(1);
        let mut data = vec![5; 4 * BLOCK];
        ask(&b, compare, Data::Out(&data)).await.good();
        for position in [0, 1, 4095, 4096, 16383] {
            data[position] ^= 1;
            let status = ask(&b, compare, Data::Out(&data)).await.status;
            assert_eq!(status, final_status(0x285), "byte {position}");
            data[position] ^= 1;
        }
        ask(&b, compare, Data::Out(&data)).await.good();
        assert_eq!(read(&a, 9, 6).await, [0, 5, 5, 5, 5, 0]);
    });
}

#[test]
fn write_zeroes_and_deallocation_read_as_zero_and_only_there_5_1() {
    test(|_, [a, b]| async move {
        write(&a, 0, 256, 3).await;
        for (lba, deallocate) in [(10, false), (100, true)] {
            let command = IoCommand::WriteZeroes { lba, blocks: 3, deallocate, fua: true };
            ask(&a, command.to_sqe(1), Data::None).await.good();
            assert_eq!(read(&b, lba - 1, 5).await, [3, 0, 0, 0, 3]);
        }
        let ranges = [DsmRange::new(20, 2), DsmRange::new(64, 64), DsmRange::new(30, 1)];
        assert_eq!(dataset_management(&a, &ranges, true).await, Status::SUCCESS);
        assert_eq!(read(&b, 19, 4).await, [3, 0, 0, 3]);
        assert_eq!(read(&b, 29, 3).await, [3, 0, 3]);
        assert_eq!(read(&b, 63, 66).await[1..65], [0; 64]);
        write(&b, 64, 1, 8).await;
        assert_eq!(read(&a, 63, 3).await, [3, 8, 0], "a deallocated block is written again");
        ask(&a, IoCommand::Verify(rw(0, 1024)).to_sqe(1), Data::None).await.good();
    });
}

#[test]
fn a_bad_range_among_good_ones_and_a_mere_hint_change_nothing_5_1() {
    test(|_, [a, b]| async move {
        write(&a, 0, 64, 7).await;
        let ranges = [DsmRange::new(0, 8), DsmRange::new(BLOCKS, 1), DsmRange::new(16, 8)];
        assert_eq!(dataset_management(&a, &ranges, true).await, final_status(0x080));
        assert_eq!(read(&b, 0, 64).await, [7; 64]);
        assert_eq!(dataset_management(&a, &[DsmRange::new(0, 8)], false).await, Status::SUCCESS);
        assert_eq!(read(&b, 0, 64).await, [7; 64]);
    });
}

#[test]
fn a_refused_write_changes_nothing_5_2() {
    test(|_, [a, b]| async move {
        write(&a, BLOCKS - 4, 4, 1).await;
        let two = vec![2; 2 * BLOCK];
        for (lba, blocks, status) in
            [(BLOCKS - 1, 2, 0x080), (BLOCKS - 4, 1, 0x00f), (BLOCKS - 4, 3, 0x00f)]
        {
            let sqe = IoCommand::Write(rw(lba, blocks)).to_sqe(1);
            assert_eq!(ask(&a, sqe, Data::Out(&two)).await.status, final_status(status));
        }
        assert_eq!(read(&b, BLOCKS - 4, 4).await, [1; 4]);
    });
}

#[test]
fn overlapping_writes_of_two_queues_end_as_one_order_and_reads_see_whole_ones_i_11() {
    test(|local, queues| async move {
        const SPAN: usize = 32;
        write(&queues[0], 0, SPAN, 255).await;
        let queues = queues.map(Rc::new);
        for turn in 0..30u8 {
            let mut tasks = Vec::new();
            for (which, queue) in queues.iter().enumerate() {
                let queue = Rc::clone(queue);
                let byte = turn * 4 + which as u8;
                tasks.push(local.spawn_local(async move {
                    write(&queue, 0, SPAN, byte).await;
                    write(&queue, 0, SPAN, byte + 2).await;
                }));
            }
            for queue in &queues {
                let queue = Rc::clone(queue);
                tasks.push(local.spawn_local(async move {
                    let seen = read(&queue, 0, SPAN).await;
                    assert!(seen.iter().all(|byte| *byte == seen[0]), "mixed: {seen:?}");
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            let last = read(&queues[0], 0, SPAN).await;
            assert_eq!(last, read(&queues[1], 0, SPAN).await);
            assert!([turn * 4 + 2, turn * 4 + 3].contains(&last[0]), "a second write is last");
        }
    });
}
