//! Asynchronous events, and what hosts see when the cluster changes under them (CONFORMANCE 4.6, A-40 to A-44).

use std::rc::Rc;

use afs_fabric::{HostController, HostError};
use afs_nvme::command::{IoCommand, Rw};
use afs_nvme::feature::{event, events};
use afs_nvme::log::lid;
use afs_nvme::{Status, command::AdminCommand};
use afs_reactor::Local;
use conductor::api::NodeState;

use crate::rig::*;

const ALL: u32 = events::NAMESPACE_ATTRIBUTE | events::ANA_CHANGE;
const OTHER: &str = "nqn.2026-11.test:other";

async fn listening(local: &Local, world: &World, wanted: u32) -> Rc<HostController> {
    let controller = Rc::new(controller(local, world).await);
    set_feature(controller.admin(), 0x0b, wanted).await.good();
    controller
}

async fn changed(controller: &HostController, retain: bool) -> Vec<u32> {
    let data = log(controller.admin(), lid::CHANGED_NAMESPACES, 0, 4096, retain).await.good().data;
    let ids = data.chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().unwrap()));
    ids.take_while(|id| *id != 0).collect()
}

async fn read_ana(controller: &HostController) {
    log(controller.admin(), lid::ANA, 0, 4096, false).await.good();
}

#[test]
fn the_request_beyond_the_limit_is_refused_and_the_others_wait_a_40() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = listening(&local, &world, ALL).await;
        let mut waiting = Vec::new();
        for _ in 0..4 {
            waiting.push(EventRequest::send(&controller).await);
        }
        let fifth = AdminCommand::AsyncEventRequest;
        let answer = admin(controller.admin(), fifth, 0, Data::None).await;
        assert_eq!(answer.status, final_status(0x105));
        for request in &waiting {
            request.still_waits();
        }
    });
}

#[test]
fn a_namespace_added_removed_resized_or_protected_is_announced_and_listed_a_41_4_6() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = listening(&local, &world, events::NAMESPACE_ATTRIBUTE).await;
        let mut now = state();
        type Step = fn(&mut NodeState);
        let steps: [(Step, u32); 4] = [
            (|state| state.subsystems[0].namespaces.push(namespace(3)), 3),
            (|state| state.subsystems[0].namespaces[0].size_bytes *= 2, 1),
            (|state| state.subsystems[0].namespaces[1].read_only = true, 2),
            (|state| state.subsystems[0].namespaces.retain(|one| one.nsid != 2), 2),
        ];
        for (step, nsid) in steps {
            let request = EventRequest::send(&controller).await;
            step(&mut now);
            world.apply(&now);
            assert_eq!(request.answer().await, Ok(event::NAMESPACE_ATTRIBUTE_CHANGED));
            assert_eq!(changed(&controller, true).await, [nsid], "RAE = 1 leaves the list");
            assert_eq!(changed(&controller, false).await, [nsid]);
            assert_eq!(changed(&controller, false).await, [0; 0], "RAE = 0 clears it");
        }
        assert_eq!(controller.active_namespaces().await.unwrap(), [1, 3]);
        let first = controller.identify_namespace(1).await.unwrap();
        assert_eq!(first.nsze.get(), 2 * BLOCKS);
        assert_eq!(controller.identify_namespace(2).await.unwrap().nsze.get(), 0);
    });
}

#[test]
fn an_event_is_sent_once_until_its_log_is_read_and_changes_meanwhile_coalesce_a_41() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = listening(&local, &world, events::NAMESPACE_ATTRIBUTE).await;
        let first = EventRequest::send(&controller).await;
        let mut now = state();
        now.subsystems[0].namespaces.push(namespace(3));
        world.apply(&now);
        first.answer().await.unwrap();
        let second = EventRequest::send(&controller).await;
        now.subsystems[0].namespaces.push(namespace(4));
        world.apply(&now);
        now.subsystems[0].namespaces.remove(0);
        world.apply(&now);
        keep_alive(controller.admin()).await;
        second.still_waits();
        changed(&controller, true).await;
        second.still_waits();
        assert_eq!(changed(&controller, false).await, [1, 3, 4]);
        keep_alive(controller.admin()).await;
        second.still_waits();
        now.subsystems[0].namespaces.remove(0);
        world.apply(&now);
        assert_eq!(second.answer().await, Ok(event::NAMESPACE_ATTRIBUTE_CHANGED));
        assert_eq!(changed(&controller, false).await, [2]);
    });
}

#[test]
fn events_before_the_first_request_are_kept_and_kinds_follow_one_another_a_44() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = Rc::new(controller(&local, &world).await);
        let mut now = state();
        now.subsystems[0].namespaces.push(namespace(3));
        world.apply(&now);
        set_feature(controller.admin(), 0x0b, ALL).await.good();
        let mut seen = Vec::new();
        for _ in 0..2 {
            seen.push(EventRequest::send(&controller).await.answer().await.unwrap());
        }
        seen.sort_unstable();
        assert_eq!(seen, [event::NAMESPACE_ATTRIBUTE_CHANGED, event::ANA_CHANGED]);
    });
}

#[test]
fn a_kind_that_the_host_did_not_ask_for_is_never_sent_a_42() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = listening(&local, &world, events::ANA_CHANGE).await;
        let request = EventRequest::send(&controller).await;
        let mut now = state();
        now.subsystems[0].namespaces[0].size_bytes *= 2;
        world.apply(&now);
        keep_alive(controller.admin()).await;
        request.still_waits();
        now.subsystems[0].namespaces.pop();
        world.apply(&now);
        assert_eq!(request.answer().await, Ok(event::ANA_CHANGED));
    });
}

#[test]
fn a_volume_that_goes_away_and_comes_back_changes_ana_and_keeps_its_namespace_a_26_m_26_i_1() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = listening(&local, &world, ALL).await;
        let queue = controller.io_queues(1).await.unwrap().remove(0);
        let read = IoCommand::Read(Rw { lba: 0, blocks: 1, fua: false }).to_sqe(1);
        let request = EventRequest::send(&controller).await;
        world.lose(1);
        world.apply(&state());
        assert_eq!(request.answer().await, Ok(event::ANA_CHANGED));
        let answer = ask(&queue, read, Data::In(4096)).await;
        assert_eq!(answer.status, Status::ANA_INACCESSIBLE, "and without DNR");
        assert_eq!(controller.active_namespaces().await.unwrap(), [1, 2]);
        read_ana(&controller).await;
        let request = EventRequest::send(&controller).await;
        world.find(1);
        world.apply(&state());
        assert_eq!(request.answer().await, Ok(event::ANA_CHANGED));
        ask(&queue, read, Data::In(4096)).await.good();
        assert_eq!(changed(&controller, false).await, [0; 0], "its attributes are as they were");
    });
}

#[test]
fn all_hosts_are_told_and_a_second_apply_of_the_same_state_tells_nobody_a_43() {
    Rig::start(&state()).host(|local, world| async move {
        let mut hosts = Vec::new();
        for _ in 0..8 {
            let controller = listening(&local, &world, ALL).await;
            let request = EventRequest::send(&controller).await;
            hosts.push((controller, request));
        }
        world.apply(&state());
        for (controller, request) in &hosts {
            keep_alive(controller.admin()).await;
            request.still_waits();
        }
        let mut now = state();
        now.subsystems[0].namespaces[0].size_bytes *= 2;
        world.apply(&now);
        for (_, request) in hosts {
            assert_eq!(request.answer().await, Ok(event::NAMESPACE_ATTRIBUTE_CHANGED));
        }
    });
}

#[test]
fn more_than_1024_changes_are_said_as_one_overflow_or_as_a_full_list_4_5() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let mut all = state();
        let nsids: Vec<u32> = (1..=1024).collect();
        all.subsystems[0] = subsystem(VOLUMES, &nsids);
        all.subsystems[0].namespaces.iter_mut().for_each(|one| one.size_bytes *= 2);
        world.apply(&all);
        assert_eq!(changed(&controller, false).await, nsids);
        assert_eq!(controller.active_namespaces().await.unwrap(), nsids);
        let mut beyond = state();
        beyond.subsystems[0] = subsystem(VOLUMES, &[1, 1025, u32::MAX, 0]);
        world.apply(&beyond);
        assert_eq!(controller.active_namespaces().await.unwrap(), [1], "outside of NN: not served");
    });
}

#[test]
fn a_host_that_lost_its_access_is_closed_and_refused_for_good_and_others_are_not_3_1() {
    let mut open = state();
    open.subsystems[0].allow_any_host = false;
    open.subsystems[0].hosts = vec![HOST.to_owned(), OTHER.to_owned()];
    let rig = Rig::start(&open);
    rig.host(move |local, world| async move {
        let gone = controller(&local, &world).await;
        let queues = gone.io_queues(2).await.unwrap();
        let kept = controller_of(&local, &world, OTHER, VOLUMES).await.unwrap();
        let kept_queue = kept.io_queues(1).await.unwrap().remove(0);
        open.subsystems[0].hosts.remove(0);
        world.apply(&open);
        gone.admin().wait_closed().await;
        for queue in &queues {
            queue.wait_closed().await;
        }
        let refused = controller_of(&local, &world, HOST, VOLUMES).await.err();
        assert_eq!(refused, Some(HostError::Status { status: final_status(0x184), result: 0 }));
        keep_alive(kept.admin()).await;
        kept_queue.flush(1).await.unwrap();
        open.subsystems[0].hosts.push(HOST.to_owned());
        world.apply(&open);
        controller(&local, &world).await;
    });
}

#[test]
fn a_removed_subsystem_closes_its_controllers_and_is_unknown_until_it_is_back_f_4() {
    let mut both = state();
    both.subsystems.push(subsystem("nqn.2026-11.test:second", &[1]));
    let rig = Rig::start(&both);
    rig.host(move |local, world| async move {
        let gone = controller(&local, &world).await;
        let queue = gone.io_queues(1).await.unwrap().remove(0);
        let kept = controller_of(&local, &world, HOST, "nqn.2026-11.test:second").await.unwrap();
        let mut without = both.clone();
        without.subsystems.remove(0);
        world.apply(&without);
        gone.admin().wait_closed().await;
        queue.wait_closed().await;
        let refused = controller_of(&local, &world, HOST, VOLUMES).await.err();
        let unknown =
            HostError::Status { status: Status::CONNECT_INVALID_PARAMETERS, result: 0x1_0100 };
        assert_eq!(refused, Some(unknown), "not final: it may come back");
        keep_alive(kept.admin()).await;
        world.apply(&both);
        controller(&local, &world).await;
    });
}
