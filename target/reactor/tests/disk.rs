//! Reading and writing real files through the ring of a reactor.
#![allow(clippy::unwrap_used)]

mod common;

use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::task::Poll;

use afs_reactor::{DiskError, DiskFile, DiskOptions, Local, RingDisk};
use common::{BLOCK, Draw, disk, filled, reactors};

/// Polls a future once and drops it.
async fn poll_and_drop<F: Future>(future: F) {
    let mut future = Box::pin(future);
    poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

async fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "it did not happen in time");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// One task with its own part of the disk: random writes, each read back among later ones.
async fn churn(disk: RingDisk, first_block: u64, blocks: u64, seed: u64) {
    let mut draw = Draw(seed);
    let mut model = vec![0_u8; usize::try_from(blocks).unwrap()];
    disk.write_zeroes(first_block * 4096, blocks * 4096).await.unwrap();
    for _ in 0..300 {
        let count = 1 + draw.below(blocks.min(16));
        let start = draw.below(blocks - count + 1);
        let range = usize::try_from(start).unwrap()..usize::try_from(start + count).unwrap();
        let length = range.len() * BLOCK;
        let offset = (first_block + start) * 4096;
        if draw.below(2) == 0 {
            let byte = u8::try_from(draw.below(256)).unwrap();
            let data = filled(disk.pool(), length, byte).await;
            match draw.below(4) {
                0 => disk.write_durable(offset, data).await.unwrap(),
                _ => disk.write(offset, data).await.unwrap(),
            }
            model[range].fill(byte);
        } else {
            let buffer = disk.pool().alloc(length).await;
            let (buffer, result) = disk.read(offset, buffer).await;
            result.unwrap();
            for (block, expected) in buffer.chunks(BLOCK).zip(&model[range]) {
                assert!(block.iter().all(|byte| byte == expected), "seed {seed}");
            }
        }
    }
}

async fn churn_in_parallel(local: Local, file: DiskFile, tasks: u64) {
    let disk = RingDisk::new(&local, &file).unwrap();
    let spawned: Vec<_> = (0..tasks)
        .map(|task| local.spawn_local(churn(disk.clone(), task * 64, 64, task + 1)))
        .collect();
    for task in spawned {
        task.await.unwrap();
    }
    let pool = local.pool();
    wait_until(|| pool.free_bytes() == pool.total_bytes()).await;
}

#[test]
fn parallel_writes_read_back_what_was_written() {
    let reactors = reactors(1, 64);
    let (_folder, file) = disk(16 << 20);
    assert!(file.is_direct(), "the build folder is on a file system without direct I/O");
    reactors.handle(0).run(move |local| churn_in_parallel(local, file, 32)).unwrap();
}

#[test]
fn more_operations_than_the_ring_holds_wait_their_turn() {
    let reactors = reactors(1, 2);
    let (_folder, file) = disk(16 << 20);
    reactors.handle(0).run(move |local| churn_in_parallel(local, file, 32)).unwrap();
    let stats = reactors.handle(0).stats();
    assert_eq!(stats.ring_submissions, stats.ring_completions);
}

#[test]
fn operations_of_one_round_go_to_the_kernel_in_one_call() {
    let reactors = reactors(1, 64);
    let (_folder, file) = disk(1 << 20);
    let handle = reactors.handle(0);
    let run = move |local: Local| async move {
        let disk = RingDisk::new(&local, &file).unwrap();
        let before = local.ring().unwrap().under_way();
        let tasks: Vec<_> = (0..32_u64)
            .map(|block| {
                let disk = disk.clone();
                let buffer = local.pool().try_alloc(BLOCK).unwrap();
                local.spawn_local(async move { disk.read(block * 4096, buffer).await.1 })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        before
    };
    let enters = handle.stats().ring_enters;
    handle.run(run).unwrap();
    let stats = handle.stats();
    assert!(stats.ring_submissions >= 32);
    // One call hands all 32 over; how many more see completions depends on the device.
    assert!(stats.ring_enters - enters <= 33, "{stats:?}");
}

#[test]
fn dropped_futures_give_their_buffers_back_only_when_the_kernel_is_done() {
    let reactors = reactors(1, 8);
    let (_folder, file) = disk(4 << 20);
    let run = move |local: Local| async move {
        let disk = RingDisk::new(&local, &file).unwrap();
        let (pool, ring) = (local.pool(), local.ring().unwrap());
        for round in 0..200_u64 {
            let offset = (round % 64) * 65536;
            poll_and_drop(disk.read(offset, pool.alloc(65536).await)).await;
            poll_and_drop(disk.write(offset, filled(pool, 65536, 3).await)).await;
            poll_and_drop(disk.write_durable(offset, filled(pool, 4096, 3).await)).await;
            poll_and_drop(disk.sync()).await;
        }
        wait_until(|| ring.under_way() == 0 && pool.free_bytes() == pool.total_bytes()).await;
        // Nothing is stuck: a sync and a read still work.
        disk.sync().await.unwrap();
        disk.read(0, pool.alloc(BLOCK).await).await.1.unwrap();
    };
    reactors.handle(0).run(run).unwrap();
}

#[test]
fn a_buffer_is_not_handed_out_again_while_the_kernel_may_write_to_it() {
    let reactors = reactors(1, 64);
    let (_folder, file) = disk(8 << 20);
    let run = move |local: Local| async move {
        let disk = RingDisk::new(&local, &file).unwrap();
        for start in 0..8_u64 {
            let data = filled(local.pool(), 1 << 20, 0xee).await;
            disk.write(start << 20, data).await.unwrap();
        }
        for _ in 0..50 {
            for block in 0..7_u64 {
                poll_and_drop(disk.read(block << 20, local.pool().alloc(1 << 20).await)).await;
            }
            let mut mine = local.pool().alloc(1 << 20).await;
            mine.zero();
            wait_until(|| local.ring().unwrap().under_way() == 0).await;
            assert!(mine.iter().all(|&byte| byte == 0));
        }
    };
    reactors.handle(0).run(run).unwrap();
}

#[test]
fn writers_on_all_reactors_share_syncs() {
    let reactors = reactors(2, 64);
    let (_folder, file) = disk(8 << 20);
    let (sender, receiver) = std::sync::mpsc::channel();
    for reactor in 0..2_u64 {
        let (file, sender) = (file.clone(), sender.clone());
        reactors.handle(usize::try_from(reactor).unwrap()).spawn(move |local| async move {
            let disk = RingDisk::new(&local, &file).unwrap();
            let tasks: Vec<_> = (0..16_u64)
                .map(|task| {
                    let disk = disk.clone();
                    local.spawn_local(async move {
                        for round in 0..8_u64 {
                            let block = (reactor * 16 + task) * 8 + round;
                            let data = filled(disk.pool(), BLOCK, 1).await;
                            disk.write(block * 4096, data).await.unwrap();
                            disk.sync().await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            sender.send(()).unwrap();
        });
    }
    drop(sender);
    assert_eq!(receiver.iter().count(), 2);
    let operations: u64 = (0..2).map(|i| reactors.handle(i).stats().ring_submissions).sum();
    let writes = 2 * 16 * 8;
    assert!(operations - writes < writes / 2, "{operations} operations for {writes} writes");
}

/// Broke once: the kernel's flag for pending completions stayed set after a sync, and the reactor
/// called the kernel over and over, without end.
#[test]
fn a_reactor_sleeps_after_many_parallel_syncs() {
    let reactors = reactors(1, 64);
    let (_folder, file) = disk(4 << 20);
    let handle = reactors.handle(0);
    let (sender, receiver) = std::sync::mpsc::channel();
    for task in 0..32_u64 {
        let (file, sender) = (file.clone(), sender.clone());
        handle.spawn(move |local| async move {
            let disk = RingDisk::new(&local, &file).unwrap();
            for round in 0..250 {
                let data = filled(local.pool(), BLOCK, 1).await;
                disk.write_durable((task * 8 + round % 8) * 4096, data).await.unwrap();
            }
            sender.send(()).unwrap();
        });
    }
    drop(sender);
    let patience = std::time::Duration::from_secs(60);
    for _ in 0..32 {
        receiver.recv_timeout(patience).expect("the reactor is stuck");
    }
    let deadline = std::time::Instant::now() + patience;
    while !handle.stats().parked {
        assert!(std::time::Instant::now() < deadline, "it never sleeps: {:?}", handle.stats());
        std::thread::yield_now();
    }
}

#[test]
fn a_reactor_that_ends_waits_for_the_kernel() {
    for _ in 0..5 {
        let reactors = reactors(1, 64);
        let (folder, file) = disk(4 << 20);
        let (sender, receiver) = std::sync::mpsc::channel();
        reactors.handle(0).spawn(move |local| async move {
            let disk = RingDisk::new(&local, &file).unwrap();
            for block in 0..4_u64 {
                let data = filled(local.pool(), 1 << 20, 9).await;
                poll_and_drop(disk.write(block << 20, data)).await;
            }
            sender.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        receiver.recv().unwrap();
        reactors.shutdown();
        // What had been queued was written, and the lock is gone.
        let again = DiskFile::open(folder.path().join("disk"), &DiskOptions::default());
        assert_eq!(again.unwrap().size(), 4 << 20);
        let mut byte = [0];
        let file = std::fs::File::open(folder.path().join("disk")).unwrap();
        file.read_exact_at(&mut byte, (4 << 20) - 1).unwrap();
        assert_eq!(byte, [9]);
    }
}

#[test]
fn ranges_off_the_disk_or_off_its_grid_are_refused() {
    let reactors = reactors(1, 4);
    let (_folder, file) = disk(1 << 20);
    let run = move |local: Local| async move {
        let disk = RingDisk::new(&local, &file).unwrap();
        let mut results = Vec::new();
        for (offset, len) in [(1 << 20, BLOCK), ((1 << 20) - 4096, 8192), (512, BLOCK), (0, 512)] {
            results.push(disk.read(offset, local.pool().alloc(len).await).await.1);
            results.push(disk.write(offset, filled(local.pool(), len, 0).await).await);
            results.push(disk.write_zeroes(offset, len as u64).await);
            results.push(disk.discard(offset, len as u64).await);
        }
        results.push(disk.discard(u64::MAX - 4095, 4096).await);
        results
    };
    let results = reactors.handle(0).run(run).unwrap();
    assert!(results.iter().all(|result| *result == Err(DiskError::OutOfRange)), "{results:?}");
}

#[test]
fn a_file_that_is_cut_short_while_open_says_so() {
    let reactors = reactors(1, 4);
    let (folder, file) = disk(1 << 20);
    let cut = std::fs::OpenOptions::new().write(true).open(folder.path().join("disk")).unwrap();
    cut.set_len(512 << 10).unwrap();
    let run = move |local: Local| async move {
        let disk = RingDisk::new(&local, &file).unwrap();
        disk.read(768 << 10, local.pool().alloc(BLOCK).await).await.1
    };
    let result = reactors.handle(0).run(run).unwrap();
    assert_eq!(result, Err(DiskError::Io { errno: 61 }));
}

/// A file system of 1 MiB; unmounted on drop. `None` for users who may not mount.
struct SmallFileSystem(tempfile::TempDir);

impl SmallFileSystem {
    fn mount() -> Option<SmallFileSystem> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(SmallFileSystem(folder))
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap();
    }
}

#[test]
fn a_full_file_system_fails_writes_with_enospc_and_takes_them_again_after() {
    let Some(mount) = SmallFileSystem::mount() else {
        eprintln!("skipped: mounting a small file system needs root");
        return;
    };
    let path = mount.0.path().join("sparse");
    std::fs::File::create(&path).unwrap().set_len(4 << 20).unwrap();
    let reactors = reactors(1, 4);
    let file = DiskFile::open(&path, &DiskOptions::default()).unwrap();
    let run = move |local: Local| async move {
        let disk = RingDisk::new(&local, &file).unwrap();
        let first = disk.write(0, filled(local.pool(), 512 << 10, 1).await).await;
        let second = disk.write(1 << 20, filled(local.pool(), 1 << 20, 2).await).await;
        let third = disk.write(0, filled(local.pool(), BLOCK, 3).await).await;
        [first, second, third]
    };
    let results = reactors.handle(0).run(run).unwrap();
    assert_eq!(results, [Ok(()), Err(DiskError::Io { errno: 28 }), Ok(())]);
}
