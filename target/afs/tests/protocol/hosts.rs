//! Many hosts at once, and one host that wants too much (CONFORMANCE F-5, F-11).

use std::collections::BTreeSet;

use afs_fabric::HostError;
use afs_nvme::Status;

use crate::rig::*;

#[test]
fn sixty_four_hosts_connect_and_work_at_once_under_unique_ids_f_5() {
    const HOSTS: u64 = 64;
    let rig = Rig::start(&state());
    rig.host(|local, world| async move {
        let mut hosts = Vec::new();
        for number in 0..HOSTS {
            let (local_to_host, world) = (local.clone(), world.clone());
            hosts.push(local.spawn_local(async move {
                let name = format!("nqn.2026-11.test:host-{number}");
                let local = local_to_host;
                let controller = controller_of(&local, &world, &name, VOLUMES).await.unwrap();
                let queues = controller.io_queues(2).await.unwrap();
                for turn in 0..10 {
                    let queue = &queues[turn % 2];
                    let buffer = local.pool().alloc(8192).await;
                    queue.write(1, number, buffer.freeze()).await.unwrap();
                    queue.read(2, number, local.pool().alloc(4096).await).await.unwrap();
                }
                controller
            }));
        }
        let mut controllers = Vec::new();
        for host in hosts {
            controllers.push(host.await.unwrap());
        }
        let ids: BTreeSet<_> = controllers.iter().map(|controller| controller.id().get()).collect();
        assert_eq!(ids.len() as u64, HOSTS);
        let status = world.node.status();
        assert_eq!(status.controllers.len() as u64, HOSTS);
        assert!(status.controllers.iter().all(|controller| controller.errors == 0));
        drop(controllers);
        while !world.node.status().controllers.is_empty() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_host_with_too_many_controllers_is_told_to_try_later_and_others_are_not_f_11() {
    Rig::start(&state()).host(|local, world| async move {
        let mut mine = Vec::new();
        for _ in 0..32 {
            mine.push(controller(&local, &world).await);
        }
        let refused = controller_of(&local, &world, HOST, VOLUMES).await.err();
        let busy = HostError::Status { status: Status::CONNECT_CONTROLLER_BUSY, result: 0 };
        assert_eq!(refused, Some(busy), "without DNR");
        controller_of(&local, &world, "nqn.2026-11.test:other", VOLUMES).await.unwrap();
        mine.pop();
        // Free again once the target noticed that the connection is gone.
        while controller_of(&local, &world, HOST, VOLUMES).await.is_err() {}
    });
}

#[test]
fn a_range_of_controller_ids_that_is_used_up_is_busy_and_ids_are_not_reused_at_once_f_5_f_11() {
    let mut narrow = state();
    narrow.subsystems[0].controller_ids = (10, 13);
    Rig::start(&narrow).host(|local, world| async move {
        let mut controllers = Vec::new();
        for _ in 0..4 {
            controllers.push(controller(&local, &world).await);
        }
        let mut ids: Vec<_> = controllers.iter().map(|one| one.id().get()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [10, 11, 12, 13]);
        let refused = controller_of(&local, &world, HOST, VOLUMES).await.err();
        let busy = HostError::Status { status: Status::CONNECT_CONTROLLER_BUSY, result: 0 };
        assert_eq!(refused, Some(busy));
        drop(controllers);
        while !world.node.status().controllers.is_empty() {
            tokio::task::yield_now().await;
        }
        // Ids rotate: one that just ended is the last to be given out again.
        let first = controller(&local, &world).await.id();
        while !world.node.status().controllers.is_empty() {
            tokio::task::yield_now().await;
        }
        let second = controller(&local, &world).await.id();
        assert_ne!(first, second);
    });
}
