//! Discovery (CONFORMANCE 4.7): each host its own log, frozen while it is read, announced when it changes.

use std::rc::Rc;

use afs_fabric::{HostController, read_discovery_log};
use afs_nvme::feature::{event, events};
use afs_nvme::log::{DiscoveryEntry, DiscoveryHeader, lid};
use afs_nvme::nqn::DISCOVERY;
use afs_nvme::{Nqn, Status};
use afs_reactor::Local;
use conductor::api::{NodeState, Portal};
use zerocopy::FromBytes;

use crate::rig::*;

const PRIVATE: &str = "nqn.2026-11.test:private";
const OTHER: &str = "nqn.2026-11.test:other";

/// One subsystem for all, one for [`OTHER`] alone, on three portals.
fn wanted() -> NodeState {
    let mut state = state();
    let mut private = subsystem(PRIVATE, &[1]);
    private.allow_any_host = false;
    private.hosts = vec![OTHER.to_owned()];
    state.subsystems.push(private);
    state.portals = (1..=3).map(portal).collect();
    state
}

async fn discover(local: &Local, world: &World, host: &str) -> HostController {
    controller_of(local, world, host, DISCOVERY).await.unwrap()
}

/// Subtype, subsystem and portal of each entry.
fn summary(entries: &[DiscoveryEntry]) -> Vec<(u8, String, u16)> {
    let name = |entry: &DiscoveryEntry| Nqn::from_field(&entry.subnqn).unwrap().to_string();
    entries.iter().map(|entry| (entry.subtype, name(entry), entry.portid.get())).collect()
}

async fn header(controller: &HostController, retain: bool) -> (u64, u64) {
    let data = log(controller.admin(), lid::DISCOVERY, 0, 1024, retain).await.good().data;
    let header = DiscoveryHeader::read_from_bytes(&data).unwrap();
    assert_eq!(header.recfmt.get(), 0);
    (header.genctr.get(), header.numrec.get())
}

#[test]
fn each_host_sees_all_portals_of_the_subsystems_it_may_use_d_3_d_10_d_12() {
    Rig::start(&wanted()).host(|local, world| async move {
        for (host, subsystems) in [(HOST, &[VOLUMES][..]), (OTHER, &[PRIVATE, VOLUMES])] {
            let controller = discover(&local, &world, host).await;
            let log = read_discovery_log(&controller).await.unwrap();
            let mut expected: Vec<_> =
                (1..=3).map(|portal| (3, DISCOVERY.to_owned(), portal)).collect();
            for subsystem in subsystems {
                expected.extend((1..=3).map(|portal| (2, (*subsystem).to_owned(), portal)));
            }
            assert_eq!(summary(&log.entries), expected, "{host}");
            for entry in &log.entries {
                assert_eq!((entry.trtype, entry.adrfam, entry.treq), (3, 1, 0));
                assert_eq!(entry.cntlid.get(), 0xffff);
                assert!(entry.asqsz.get() >= 32);
                assert!(entry.traddr.starts_with(b"192.0.2."), "D-7");
                assert!(entry.trsvcid.starts_with(b"4420"));
                assert_eq!(entry.tsas[0], 0);
            }
            assert_eq!(log.entries[0].eflags.get(), 3, "DUPRETINFO and EPCSD");
        }
    });
}

/// The same node by RDMA: on one address with TCP, and on a second device.
fn with_rdma() -> NodeState {
    let rdma = |id, address: &str| Portal {
        transport: "rdma".to_owned(),
        address: address.to_owned(),
        ..portal(id)
    };
    let mut state = state();
    state.portals.push(rdma(2, "192.0.2.1"));
    state.portals.push(rdma(3, "2001:db8::3"));
    state
}

#[test]
fn both_transports_are_listed_and_each_device_is_a_port_of_its_own_d_3_d_10() {
    Rig::start(&with_rdma()).host(|local, world| async move {
        let controller = discover(&local, &world, HOST).await;
        let entries = read_discovery_log(&controller).await.unwrap().entries;
        let of_subsystem = |entry: &&DiscoveryEntry| entry.subtype == 2;
        let listed: Vec<_> = entries
            .iter()
            .filter(of_subsystem)
            .map(|entry| (entry.trtype, entry.adrfam, entry.portid.get(), entry.tsas[..3].to_vec()))
            .collect();
        let (tcp, rdma) = (vec![0, 0, 0], vec![1, 1, 1]);
        assert_eq!(listed, [(3, 1, 1, tcp), (1, 1, 2, rdma.clone()), (1, 2, 3, rdma)]);
        for entry in entries.iter().filter(|entry| entry.trtype == 1) {
            assert!(entry.tsas[3..].iter().all(|byte| *byte == 0), "no partition key");
            assert!(entry.trsvcid.starts_with(b"4420"));
        }
        assert_eq!(entries.len(), 6, "this discovery service is listed by each port, too");
    });
}

#[test]
fn portals_that_no_host_can_reach_are_left_out_d_7() {
    let mut state = wanted();
    let mut unknown = portal(5);
    unknown.transport = "carrier-pigeon".to_owned();
    state.portals[0].address = "0.0.0.0".to_owned();
    state.portals[1].address = "::".to_owned();
    state.portals[2].address = "2001:db8::3".to_owned();
    state.portals.push(portal(4));
    state.portals[3].address = "storage.example".to_owned();
    state.portals.push(unknown);
    Rig::start(&state).host(|local, world| async move {
        let controller = discover(&local, &world, HOST).await;
        let entries = read_discovery_log(&controller).await.unwrap().entries;
        assert_eq!(entries.len(), 2);
        assert!(entries.iter().all(|entry| entry.adrfam == 2 && entry.portid.get() == 3));
        assert!(entries[0].traddr.starts_with(b"2001:db8::3"));
    });
}

#[test]
fn a_log_that_changes_while_it_is_read_stays_what_its_header_said_d_8_d_9() {
    Rig::start(&wanted()).host(|local, world| async move {
        let controller = discover(&local, &world, HOST).await;
        let queue = controller.admin();
        let (generation, count) = header(&controller, true).await;
        let before = log(queue, lid::DISCOVERY, 1024, 6 * 1024, true).await.good().data;
        let mut next = wanted();
        next.portals.remove(0);
        world.apply(&next);
        for piece in 0..6 {
            let offset = 1024 * (piece + 1);
            let data = log(queue, lid::DISCOVERY, offset, 1024, true).await.good().data;
            assert_eq!(data, before[1024 * piece as usize..][..1024], "entry {piece}");
        }
        // Another controller sees the new one at once, this one from the next reading of the header on.
        let other = discover(&local, &world, HOST).await;
        let (fresh, fresh_count) = header(&other, true).await;
        assert!(fresh > generation);
        assert_eq!((count, fresh_count), (6, 4));
        assert_eq!(header(&controller, true).await, (fresh, fresh_count));
        let answer = log(queue, lid::DISCOVERY, 6 * 1024, 1024, true).await;
        assert_eq!(answer.status, Status::INVALID_FIELD, "beyond the new end");
    });
}

#[test]
fn the_generation_rises_with_each_change_and_never_falls_d_9() {
    Rig::start(&wanted()).host(|local, world| async move {
        let controller = discover(&local, &world, HOST).await;
        let (mut last, _) = header(&controller, true).await;
        for turn in 0..20 {
            let mut next = wanted();
            next.portals.truncate(1 + turn % 3);
            next.portals[0].service = (4000 + turn).to_string();
            world.apply(&next);
            let (generation, _) = header(&controller, true).await;
            assert!(generation > last, "turn {turn}");
            last = generation;
        }
    });
}

#[test]
fn a_host_is_told_of_changes_to_its_own_log_only_d_14_d_15() {
    Rig::start(&wanted()).host(|local, world| async move {
        let mine = Rc::new(discover(&local, &world, HOST).await);
        let others = Rc::new(discover(&local, &world, OTHER).await);
        for controller in [&mine, &others] {
            set_feature(controller.admin(), 0x0b, events::DISCOVERY_CHANGE).await.good();
        }
        let to_me = EventRequest::send(&mine).await;
        let to_other = EventRequest::send(&others).await;
        // Access of the other host: nothing that this one can see.
        let mut next = wanted();
        next.subsystems[1].hosts = vec!["nqn.2026-11.test:third".to_owned()];
        world.apply(&next);
        assert_eq!(to_other.answer().await, Ok(event::DISCOVERY_CHANGED));
        keep_alive(mine.admin()).await;
        to_me.still_waits();
        next.subsystems[1].hosts.push(HOST.to_owned());
        world.apply(&next);
        assert_eq!(to_me.answer().await, Ok(event::DISCOVERY_CHANGED));
        // Masked until the log is read with RAE = 0; then a change is news again.
        let again = EventRequest::send(&mine).await;
        next.portals.pop();
        world.apply(&next);
        keep_alive(mine.admin()).await;
        again.still_waits();
        header(&mine, false).await;
        again.still_waits();
        next.portals.pop();
        world.apply(&next);
        assert_eq!(again.answer().await, Ok(event::DISCOVERY_CHANGED));
    });
}

#[test]
fn discovery_survives_an_empty_cluster_and_a_bad_subsystem_name() {
    let mut empty = state();
    empty.subsystems.clear();
    empty.portals.clear();
    Rig::start(&empty).host(move |local, world| async move {
        let controller = discover(&local, &world, HOST).await;
        assert_eq!(header(&controller, true).await.1, 0);
        empty.subsystems = vec![subsystem("", &[1]), subsystem(&"x".repeat(300), &[1])];
        empty.portals = vec![portal(1)];
        world.apply(&empty);
        let entries = read_discovery_log(&controller).await.unwrap().entries;
        assert_eq!(summary(&entries), [(3, DISCOVERY.to_owned(), 1)]);
    });
}
