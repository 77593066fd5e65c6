//! The peers' subsystem: who may use it, and what it answers to calls that make no sense.

use afs::cluster::wire::{
    ATTACH, CALL, CALL_IN, CALL_OUT, PEERS_NQN, Service, ServiceName, UNKNOWN_SERVICE, command,
    status,
};
use afs_fabric::{ControllerOptions, HostController, HostError, HostQueue};
use afs_nvme::{HostId, Status};
use afs_reactor::Local;
use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::rig::*;

const PEER: &str = "nqn.2026-11.io.afs.internal:peers:node-2";

async fn peer(
    local: &Local,
    world: &World,
    id: Uuid,
    subsystem: &str,
) -> Result<HostController, HostError> {
    let id = HostId(id.into_bytes());
    let options = ControllerOptions::new(nqn(subsystem), nqn(PEER), id);
    HostController::connect(world.address, local, options).await
}

fn refused(result: Result<HostController, HostError>) -> Status {
    match result.err() {
        Some(HostError::Status { status, .. }) => status,
        other => panic!("{other:?}"),
    }
}

async fn attach(queue: &HostQueue, service: Service) -> Answer {
    let name = ServiceName::from(service);
    ask(queue, command(ATTACH, 0, &[0; 40]), Data::Out(name.as_bytes())).await
}

#[test]
fn hosts_do_not_find_the_peers_subsystem() {
    Rig::start(&state()).host(|local, world| async move {
        let status = refused(peer(&local, &world, CLUSTER, PEERS_NQN).await);
        assert_eq!(status, Status::CONNECT_INVALID_PARAMETERS);
    });
}

#[test]
fn only_nodes_of_the_cluster_come_in_and_find_nothing_that_is_for_hosts() {
    Rig::for_peers(&state()).host(|local, world| async move {
        let stranger = refused(peer(&local, &world, Uuid::from_u128(9), PEERS_NQN).await);
        assert_eq!(stranger, Status::CONNECT_INVALID_HOST.dnr());
        let for_hosts = refused(peer(&local, &world, CLUSTER, VOLUMES).await);
        assert_eq!(for_hosts, Status::CONNECT_INVALID_PARAMETERS);
        peer(&local, &world, CLUSTER, PEERS_NQN).await.unwrap();
    });
}

#[test]
fn calls_that_make_no_sense_are_answered_and_the_queue_goes_on() {
    Rig::for_peers(&state()).host(|local, world| async move {
        let controller = peer(&local, &world, CLUSTER, PEERS_NQN).await.unwrap();
        let queue = controller.io_queues(1).await.unwrap().pop().unwrap();
        let unknown = status(UNKNOWN_SERVICE);
        // Not attached to, not here, not a name.
        for service in [0, 1, 7, u32::MAX] {
            let answer = ask(&queue, command(CALL, service, &[0; 40]), Data::None).await;
            assert_eq!(answer.status, unknown);
        }
        let nowhere = attach(&queue, Service::Replica(Uuid::from_u128(5))).await;
        assert_eq!(nowhere.status, unknown);
        for bytes in [1, 23, 25, 4096] {
            let name = vec![0xff; bytes];
            let answer = ask(&queue, command(ATTACH, 0, &[0; 40]), Data::Out(&name)).await;
            assert_eq!(answer.status, unknown, "{bytes}");
        }
        let other = ask(&queue, command(0xc8, 1, &[0; 40]), Data::None).await;
        assert_eq!(other.status, Status::INVALID_OPCODE.dnr());
        // A volume that this node does not lead, asked for in wrong and right ways.
        let service =
            attach(&queue, Service::Volume(Uuid::from_u128(6))).await.good().result as u32;
        let mut header = [0; 40];
        let garbage = ask(&queue, command(CALL, service, &header), Data::None).await;
        assert!(!garbage.status.is_success());
        (header[0], header[1]) = (1, 1);
        header[16] = 1;
        for (opcode, data) in [(CALL_IN, Data::In(4096)), (CALL_IN, Data::In(512))] {
            let answer = ask(&queue, command(opcode, service, &header), data).await;
            assert!(!answer.status.is_success());
        }
        header[0] = 2;
        let written = ask(&queue, command(CALL_OUT, service, &header), Data::Out(&[1; 4096])).await;
        assert!(!written.status.is_success());
        header[0] = 5;
        ask(&queue, command(CALL, service, &header), Data::None).await.good();
    });
}
