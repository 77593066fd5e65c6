//! What is left when hosts vanish: nothing. Alone in its process, because it counts open files.
#![allow(clippy::unwrap_used)]
#![allow(clippy::cast_possible_truncation, reason = "lengths of tests are small")]

mod common;

use std::sync::atomic::Ordering;

use afs_fabric::{HostOptions, Limits};
use common::toy::{SLOW_LBA, STUCK_LBA};
use common::{Server, connect, wait_for};

const SIZES: [usize; 4] = [4096, 20480, 131_072, 1 << 20];

#[test]
fn host_that_vanishes_during_transfers_leaves_nothing_behind() {
    let server = Server::start(Limits::default());
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut before = None;
    for round in 0..30 {
        server.host(move |local, address| async move {
            let options = HostOptions { in_capsule_bytes: 4096, ..HostOptions::default() };
            let (controller, queue) = {
                let controller = connect(address, &local, options).await.unwrap();
                let queue = controller.io_queues(1).await.unwrap().remove(0);
                (controller, queue)
            };
            for worker in 0..32 {
                let queue = queue.clone();
                drop(local.spawn_local(async move {
                    let pool = queue.local().pool().clone();
                    let bytes = SIZES[worker % SIZES.len()];
                    let lba = if worker % 3 == 0 { STUCK_LBA } else { 0 };
                    let _ = queue.write(1, lba, pool.alloc(bytes).await.freeze()).await;
                    let _ = queue.read(1, lba, pool.alloc(bytes).await).await;
                }));
            }
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            drop((controller, queue));
        });
        if round % 2 == 0 {
            // Half of the time the connection is cut from our side, in the middle of things.
            for closer in server.shared.queues.lock().unwrap().iter() {
                closer.close(afs_fabric::CloseReason::Requested("test"));
            }
        }
        for closer in server.shared.queues.lock().unwrap().drain(..) {
            closer.close(afs_fabric::CloseReason::Requested("end of round"));
        }
        server.closed((round + 1) * 2);
        server.wait_for_full_pool();
        assert_eq!(server.shared.in_flight.load(Ordering::SeqCst), 0);
        if round == 4 {
            before = Some(wait_for("a steady number of files", || Some(files())));
        }
    }
    let before = before.unwrap();
    wait_for("files to be closed", || (files() <= before + 4).then_some(()));
}

/// CONFORMANCE T-93: a write that is on its way to a disk is neither dropped nor forgotten; only when it has ended is
/// the queue pair gone.
#[test]
fn queue_pair_is_gone_only_when_its_commands_on_the_disk_have_ended() {
    let server = Server::start(Limits::default());
    server.host(|local, address| async move {
        let controller = connect(address, &local, HostOptions::default()).await.unwrap();
        let queue = controller.io_queues(1).await.unwrap().remove(0);
        let data = local.pool().alloc(4096).await.freeze();
        let write = queue.write(1, SLOW_LBA, data);
        tokio::select! {
            biased;
            _ = write => panic!("the slow disk answered"),
            // The answer to a later command shows that the write is with the service.
            answer = queue.flush(1) => answer.unwrap(),
        }
    });
    server.closed(1);
    assert_eq!(server.shared.in_flight.load(Ordering::SeqCst), 1, "the write is under way");
    server.shared.disk.add_permits(1);
    server.closed(2);
    assert_eq!(server.shared.in_flight.load(Ordering::SeqCst), 0);
    server.wait_for_full_pool();
}
