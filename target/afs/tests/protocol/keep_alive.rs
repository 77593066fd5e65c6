//! Keep-alive over real connections (CONFORMANCE, F-10).

use std::time::{Duration, Instant};

use afs_nvme::command::AdminCommand;
use afs_nvme::nqn::DISCOVERY;

use crate::rig::*;

const KATO_MS: u32 = 100;
const KATO: Duration = Duration::from_millis(100);
/// KATO, grace, and what the watch may be late, on a slow machine.
const LATEST: Duration = Duration::from_secs(15);

#[test]
fn a_silent_host_loses_all_queues_of_that_controller_and_nothing_else_a_51_a_52() {
    Rig::start(&state()).host(|local, world| async move {
        let silent = controller(&local, &world).await;
        let queues = silent.io_queues(3).await.unwrap();
        let other = controller(&local, &world).await;
        let other_queue = other.io_queues(1).await.unwrap().remove(0);
        let begun = Instant::now();
        set_feature(silent.admin(), 0x0f, KATO_MS).await.good();
        silent.admin().wait_closed().await;
        for queue in &queues {
            queue.wait_closed().await;
        }
        assert!(begun.elapsed() > KATO, "not before KATO");
        assert!(begun.elapsed() < LATEST, "{:?}", begun.elapsed());
        keep_alive(other.admin()).await;
        other_queue.flush(1).await.unwrap();
        assert!(world.node.status().controllers.iter().any(|one| one.id == other.id().get()));
        // The id of the dead one is free again once its connections are gone.
        while world.node.status().controllers.len() > 1 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn keep_alives_and_io_alone_each_keep_a_controller_alive_a_50_a_53() {
    Rig::start(&state()).host(|local, world| async move {
        let by_admin = controller(&local, &world).await;
        let by_io = controller(&local, &world).await;
        let queue = by_io.io_queues(1).await.unwrap().remove(0);
        set_feature(by_admin.admin(), 0x0f, KATO_MS).await.good();
        set_feature(by_io.admin(), 0x0f, KATO_MS).await.good();
        // Several times as long as a silent one lives.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            keep_alive(by_admin.admin()).await;
            queue.flush(1).await.unwrap();
            tokio::time::sleep(KATO / 2).await;
        }
        assert_eq!(by_io.admin().closed(), None);
        by_io.admin().wait_closed().await;
    });
}

#[test]
fn a_controller_without_keep_alive_takes_keep_alives_and_stays_f_10_a_54() {
    Rig::start(&state()).host(|local, world| async move {
        let io = controller(&local, &world).await;
        let discovery = controller_of(&local, &world, HOST, DISCOVERY).await.unwrap();
        for nsid in [0, 1, u32::MAX] {
            admin(io.admin(), AdminCommand::KeepAlive, nsid, Data::None).await.good();
        }
        keep_alive(discovery.admin()).await;
        // A discovery controller with a KATO obeys it.
        set_feature(discovery.admin(), 0x0f, KATO_MS).await.good();
        discovery.admin().wait_closed().await;
        keep_alive(io.admin()).await;
    });
}

#[test]
fn the_end_of_the_admin_queue_is_the_end_of_the_association_t_92() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queues = controller.io_queues(2).await.unwrap();
        drop(controller);
        for queue in &queues {
            queue.wait_closed().await;
        }
        while !world.node.status().controllers.is_empty() {
            tokio::task::yield_now().await;
        }
    });
}
