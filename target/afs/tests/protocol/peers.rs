//! The peers' subsystem: who may use it, and what it answers to calls that make no sense.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use afs::cluster::link::{PeerLink, Peers};
use afs::cluster::wire::{
    ATTACH, CALL, CALL_IN, CALL_OUT, PEERS_NQN, Service, ServiceName, UNKNOWN_SERVICE, command,
    status,
};
use afs::cluster::{Cluster, control};
use afs::portal::{Portal, Transport};
use afs_decisions::NodeId;
use afs_env::{Link, LinkError};
use afs_fabric::{ControllerOptions, HostController, HostError, HostQueue};
use afs_nvme::{HostId, Status};
use afs_reactor::Local;
use tokio::net::{TcpListener, TcpStream};
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

/// Asks the other node for nothing but its tick.
async fn tick(link: &PeerLink) -> Result<(), LinkError> {
    let mut header = [0; 40];
    (header[0], header[1]) = (5, 1);
    link.call(header, None, 0).await.map(drop)
}

/// Another way to the same node; counts who comes by it.
fn other_way(local: &Local, at: TcpListener, to: SocketAddr) -> Rc<Cell<usize>> {
    let came = Rc::new(Cell::new(0));
    let count = Rc::clone(&came);
    let own = local.clone();
    local.spawn_local(async move {
        while let Ok((mut from, _)) = at.accept().await {
            count.set(count.get() + 1);
            let mut on = TcpStream::connect(to).await.unwrap();
            own.spawn_local(async move {
                let _ = tokio::io::copy_bidirectional(&mut from, &mut on).await;
            });
        }
    });
    came
}

#[test]
fn a_better_way_takes_over_without_a_lost_call_or_an_alarm() {
    Rig::for_peers(&state()).host(|local, world| async move {
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let better = reserved.local_addr().unwrap();
        drop(reserved);
        let params = afs_volume::Params::default();
        let cluster =
            Cluster::new(Vec::new(), control::channel().0, params, Arc::default()).unwrap();
        let ways =
            [better, world.address].map(|address| Portal { transport: Transport::Tcp, address });
        cluster.meet(CLUSTER, NodeId(2), BTreeMap::from([(NodeId(1), ways.to_vec())]));
        let peers = Peers::new(&cluster, &local);
        let link = peers.link(NodeId(1), Service::Volume(volume(1)));
        while tick(&link).await.is_err() {
            tokio::task::yield_now().await;
        }
        let came = other_way(&local, TcpListener::bind(better).await.unwrap(), world.address);
        let there = world.node.peers().unwrap();
        // Both connections are there for a moment, then the first one is gone.
        while came.get() < 2 || there.subsystem.controllers().len() > 1 {
            tick(&link).await.expect("no call is lost");
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tick(&link).await.expect("no call is lost");
        }
        assert_eq!(came.get(), 2, "an admin queue and one for calls");
        assert_eq!(there.cluster.unreachable(), [], "nobody is taken for lost");
        peers.close();
    });
}
