//! The Connect matrix (CONFORMANCE 3.1): every field wrong in turn, with the exact status and the field that it names.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use afs_fabric::codec::encode::Encoder;
use afs_fabric::{Digests, HostController, HostData, HostQueue, Limits};
use afs_nvme::command::{AdminCommand, FabricsCommand, IoCommand, Rw};
use afs_nvme::fabrics::{ConnectCommand, ConnectData, InvalidParameter, PropertySize};
use afs_nvme::nqn::DISCOVERY;
use afs_nvme::{ControllerId, HostId, Sqe, Status};
use afs_reactor::Local;
use zerocopy::{FromBytes, IntoBytes};

use crate::rig::*;

const LOCKED: &str = "nqn.2026-11.test:locked";

/// A Connect to spoil.
struct Attempt {
    command: ConnectCommand,
    data: ConnectData,
    bytes: usize,
}

impl Attempt {
    fn admin() -> Attempt {
        Attempt::to(0, 31, ControllerId::DYNAMIC, VOLUMES, HOST)
    }

    fn io(qid: u16, controller: ControllerId) -> Attempt {
        Attempt::to(qid, 31, controller, VOLUMES, HOST)
    }

    fn to(qid: u16, sqsize: u16, cntlid: ControllerId, subsystem: &str, host: &str) -> Attempt {
        let data = ConnectData::new(HostId([7; 16]), cntlid, &nqn(subsystem), &nqn(host));
        Attempt { command: ConnectCommand::new(qid, sqsize, 0, 0), data, bytes: 1024 }
    }

    async fn on(&self, queue: &HostQueue) -> Answer {
        let sqe = Sqe::read_from_bytes(self.command.as_bytes()).unwrap();
        ask(queue, sqe, Data::Out(&self.data.as_bytes()[..self.bytes])).await
    }

    async fn send(&self, local: &Local, world: &World) -> Answer {
        self.on(&socket(local, world).await).await
    }
}

#[track_caller]
fn refused(answer: &Answer, status: Status, field: Option<InvalidParameter>) {
    assert_eq!(answer.status, status);
    assert_eq!(answer.result, field.map_or(0, InvalidParameter::result));
}

fn wrong() -> Status {
    Status::CONNECT_INVALID_PARAMETERS.dnr()
}

fn rig() -> Rig {
    let mut state = state();
    let mut locked = subsystem(LOCKED, &[1]);
    locked.allow_any_host = false;
    locked.hosts = vec![HOST.to_owned()];
    state.subsystems.push(locked);
    Rig::start(&state)
}

/// An admin connection that waits to be enabled, and its controller id.
async fn connected(local: &Local, world: &World) -> (HostQueue, ControllerId) {
    let queue = socket(local, world).await;
    let answer = Attempt::admin().on(&queue).await.good();
    (queue, ControllerId(answer.result as u16))
}

#[test]
fn a_good_admin_connect_gives_a_controller_id_of_the_range_and_asks_for_no_authentication_f_5() {
    rig().host(|local, world| async move {
        let mut ids = Vec::new();
        let mut queues = Vec::new();
        for _ in 0..5 {
            let queue = socket(&local, &world).await;
            let answer = Attempt::admin().on(&queue).await.good();
            assert!((1..=0x0fff).contains(&answer.result), "{:#x}", answer.result);
            ids.push(answer.result);
            queues.push(queue);
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 5, "ids are unique");
    });
}

#[test]
fn each_wrong_field_of_the_command_is_named_3_1_f_1() {
    rig().host(|local, world| async move {
        let mut attempt = Attempt::admin();
        attempt.command.recfmt.set(1);
        refused(&attempt.send(&local, &world).await, final_status(0x180), None);
        for sqsize in [0, 1024, u16::MAX] {
            let mut attempt = Attempt::admin();
            attempt.command.sqsize.set(sqsize);
            let answer = attempt.send(&local, &world).await;
            refused(&answer, wrong(), Some(InvalidParameter::SQSIZE));
        }
        for bytes in [4, 1020, 1023] {
            let attempt = Attempt { bytes, ..Attempt::admin() };
            refused(&attempt.send(&local, &world).await, final_status(0x00f), None);
        }
        let mut long = Attempt::admin().data.as_bytes().to_vec();
        long.resize(2048, 0);
        let sqe = Sqe::read_from_bytes(Attempt::admin().command.as_bytes()).unwrap();
        let answer = ask(&socket(&local, &world).await, sqe, Data::Out(&long)).await;
        refused(&answer, final_status(0x00f), None);
        let answer = ask(&socket(&local, &world).await, sqe, Data::None).await;
        refused(&answer, final_status(0x00f), None);
        for sqsize in [1, 31, 1023] {
            let mut attempt = Attempt::admin();
            attempt.command.sqsize.set(sqsize);
            attempt.send(&local, &world).await.good();
        }
    });
}

#[test]
fn each_wrong_name_in_the_data_is_named_f_4_f_8() {
    rig().host(|local, world| async move {
        let too_long = |field: &mut [u8; 256]| field[..224].fill(b'a');
        let unterminated = |field: &mut [u8; 256]| field.fill(b'a');
        let empty = |field: &mut [u8; 256]| field.fill(0);
        let binary = |field: &mut [u8; 256]| field[0] = 0xff;
        for spoil in [&too_long as &dyn Fn(&mut [u8; 256]), &unterminated, &empty, &binary] {
            let mut attempt = Attempt::admin();
            spoil(&mut attempt.data.subnqn);
            let answer = attempt.send(&local, &world).await;
            refused(&answer, wrong(), Some(InvalidParameter::SUBNQN));
            let mut attempt = Attempt::admin();
            spoil(&mut attempt.data.hostnqn);
            let answer = attempt.send(&local, &world).await;
            refused(&answer, wrong(), Some(InvalidParameter::HOSTNQN));
        }
        // Not final: the subsystem may be on its way to this node.
        for unknown in ["nqn.2026-11.test:unknown", "nqn.2026-11.test:VOLUMES", "x"] {
            let attempt = Attempt::to(0, 31, ControllerId::DYNAMIC, unknown, HOST);
            let answer = attempt.send(&local, &world).await;
            let status = Status::CONNECT_INVALID_PARAMETERS;
            refused(&answer, status, Some(InvalidParameter::SUBNQN));
        }
        let mut longest = Attempt::admin();
        longest.data.hostnqn = [0; 256];
        longest.data.hostnqn[..223].fill(b'a');
        longest.send(&local, &world).await.good();
    });
}

#[test]
fn a_host_that_is_not_on_the_list_is_refused_for_good_and_case_counts_3_1_f_8() {
    rig().host(|local, world| async move {
        for stranger in ["nqn.2026-11.test:stranger", "nqn.2026-11.test:HOST"] {
            let attempt = Attempt::to(0, 31, ControllerId::DYNAMIC, LOCKED, stranger);
            refused(&attempt.send(&local, &world).await, final_status(0x184), None);
        }
        Attempt::to(0, 31, ControllerId::DYNAMIC, LOCKED, HOST).send(&local, &world).await.good();
        // The list also holds for I/O queues, whatever controller they name.
        let attempt = Attempt::to(1, 31, ControllerId(1), LOCKED, "nqn.2026-11.test:stranger");
        refused(&attempt.send(&local, &world).await, final_status(0x184), None);
    });
}

#[test]
fn an_admin_queue_must_ask_for_a_dynamic_controller_3_1() {
    rig().host(|local, world| async move {
        for cntlid in [0, 1, 0xfff0, 0xfffe] {
            let mut attempt = Attempt::admin();
            attempt.data.cntlid.set(cntlid);
            let answer = attempt.send(&local, &world).await;
            refused(&answer, wrong(), Some(InvalidParameter::CNTLID));
        }
    });
}

#[test]
fn an_io_queue_must_name_a_live_controller_of_its_own_host_and_subsystem_3_1_f_7() {
    rig().host(|local, world| async move {
        let mine = controller(&local, &world).await;
        mine.io_queues(2).await.unwrap();
        let locked = controller_of(&local, &world, HOST, LOCKED).await.unwrap();
        let other_host =
            controller_of(&local, &world, "nqn.2026-11.test:other", VOLUMES).await.unwrap();
        let taken = [mine.id(), other_host.id()];
        let unknown = (1..).map(ControllerId).find(|id| !taken.contains(id)).unwrap();
        let mut attempts = vec![
            Attempt::io(1, unknown),
            Attempt::io(1, ControllerId::DYNAMIC),
            Attempt::io(1, ControllerId(0)),
            Attempt::io(1, other_host.id()),
        ];
        if !taken.contains(&locked.id()) {
            attempts.push(Attempt::io(1, locked.id()));
        }
        let mut other_id = Attempt::io(1, mine.id());
        other_id.data.hostid = [8; 16];
        attempts.push(other_id);
        for attempt in attempts {
            let answer = attempt.send(&local, &world).await;
            refused(&answer, wrong(), Some(InvalidParameter::CNTLID));
        }
    });
}

#[test]
fn an_io_queue_before_enable_is_out_of_sequence_and_may_be_tried_again_f_3() {
    rig().host(|local, world| async move {
        let (admin, id) = connected(&local, &world).await;
        let answer = Attempt::io(1, id).send(&local, &world).await;
        refused(&answer, Status::COMMAND_SEQUENCE_ERROR, None);
        keep_out_of_reach(&admin).await;
    });
}

/// Commands that need an enabled controller.
async fn keep_out_of_reach(admin_queue: &HostQueue) {
    let identify = AdminCommand::Identify { cns: 1, cntid: 0, csi: 0 };
    let answer = admin(admin_queue, identify, 0, Data::In(4096)).await;
    assert_eq!(answer.status, Status::COMMAND_SEQUENCE_ERROR);
}

async fn grant(controller: &HostController, count: u32) {
    let value = (count - 1) | ((count - 1) << 16);
    set_feature(controller.admin(), 7, value).await.good();
}

#[test]
fn a_queue_id_above_what_was_granted_or_in_use_is_refused_for_good_3_1_f_6() {
    rig().host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let answer = Attempt::io(1, controller.id()).send(&local, &world).await;
        refused(&answer, wrong(), Some(InvalidParameter::QID));
        grant(&controller, 2).await;
        for qid in [3, 129, u16::MAX] {
            let answer = Attempt::io(qid, controller.id()).send(&local, &world).await;
            refused(&answer, wrong(), Some(InvalidParameter::QID));
        }
        let first = socket(&local, &world).await;
        Attempt::io(1, controller.id()).on(&first).await.good();
        let answer = Attempt::io(1, controller.id()).send(&local, &world).await;
        refused(&answer, final_status(0x00c), None);
        for sqsize in [0, 1024] {
            let mut attempt = Attempt::io(2, controller.id());
            attempt.command.sqsize.set(sqsize);
            let answer = attempt.send(&local, &world).await;
            refused(&answer, wrong(), Some(InvalidParameter::SQSIZE));
        }
        Attempt::io(2, controller.id()).send(&local, &world).await.good();
    });
}

#[test]
fn a_queue_that_is_gone_gives_its_id_back_t_92() {
    rig().host(|local, world| async move {
        let controller = controller(&local, &world).await;
        grant(&controller, 1).await;
        let mut queue = socket(&local, &world).await;
        Attempt::io(1, controller.id()).on(&queue).await.good();
        for _ in 0..3 {
            drop(queue);
            // The target learns of the end on its own time, and until then the id is in use.
            queue = loop {
                let next = socket(&local, &world).await;
                if Attempt::io(1, controller.id()).on(&next).await.status.is_success() {
                    break next;
                }
            };
        }
        keep_alive(controller.admin()).await;
    });
}

#[test]
fn a_refused_connect_may_be_followed_by_a_good_one_on_the_same_connection() {
    rig().host(|local, world| async move {
        let queue = socket(&local, &world).await;
        let mut attempt = Attempt::admin();
        attempt.data.hostnqn = [0; 256];
        attempt.on(&queue).await;
        Attempt::admin().on(&queue).await.good();
        get_property(&queue, 0, PropertySize::Eight).await.good();
    });
}

#[test]
fn a_second_connect_on_a_queue_is_out_of_sequence_and_harms_nothing_f_2() {
    rig().host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let answer = Attempt::admin().on(controller.admin()).await;
        assert_eq!(answer.status, Status::COMMAND_SEQUENCE_ERROR);
        keep_alive(controller.admin()).await;
        let queues = controller.io_queues(1).await.unwrap();
        for attempt in [Attempt::io(2, controller.id()), Attempt::admin()] {
            let answer = attempt.on(&queues[0]).await;
            assert_eq!(answer.status, Status::COMMAND_SEQUENCE_ERROR);
        }
        ask(&queues[0], IoCommand::Flush.to_sqe(1), Data::None).await.good();
    });
}

#[test]
fn nothing_but_connect_is_served_before_connect_f_2() {
    rig().host(|local, world| async move {
        let queue = socket(&local, &world).await;
        let read = IoCommand::Read(Rw { lba: 0, blocks: 1, fua: false }).to_sqe(1);
        let property = FabricsCommand::PropertyGet { offset: 0, size: PropertySize::Eight };
        let commands = [
            (AdminCommand::KeepAlive.to_sqe(0), Data::None),
            (AdminCommand::Identify { cns: 1, cntid: 0, csi: 0 }.to_sqe(0), Data::In(4096)),
            (AdminCommand::AsyncEventRequest.to_sqe(0), Data::None),
            (read, Data::In(4096)),
            (Sqe::new(0xc0), Data::None),
            (property.to_sqe(), Data::None),
            (FabricsCommand::Disconnect.to_sqe(), Data::None),
        ];
        for (sqe, data) in commands {
            let answer = ask(&queue, sqe, data).await;
            assert_eq!(answer.status, Status::COMMAND_SEQUENCE_ERROR, "{sqe:?}");
        }
        Attempt::admin().on(&queue).await.good();
    });
}

#[test]
fn an_io_queue_of_a_discovery_controller_does_not_exist_d_1() {
    rig().host(|local, world| async move {
        let discovery = controller_of(&local, &world, HOST, DISCOVERY).await.unwrap();
        let answer = Attempt::to(1, 31, discovery.id(), DISCOVERY, HOST).send(&local, &world).await;
        refused(&answer, wrong(), Some(InvalidParameter::QID));
        keep_alive(discovery.admin()).await;
    });
}

#[test]
fn without_flow_control_the_head_is_reported_as_all_ones_3_1() {
    rig().host(|local, world| async move {
        let queue = socket(&local, &world).await;
        let mut attempt = Attempt::admin();
        attempt.command.cattr = 4;
        attempt.on(&queue).await.good();
        let sqe = FabricsCommand::PropertyGet { offset: 0, size: PropertySize::Eight }.to_sqe();
        let (cqe, _) = queue.submit(sqe, HostData::None).await.unwrap();
        assert_eq!(cqe.sq_head.get(), 0xffff);
    });
}

#[test]
fn authentication_and_disconnect_are_not_offered_3() {
    rig().host(|local, world| async move {
        let controller = controller(&local, &world).await;
        for command in [
            FabricsCommand::AuthReceive { length: 0 },
            FabricsCommand::AuthSend { length: 0 },
            FabricsCommand::Disconnect,
        ] {
            let answer = ask(controller.admin(), command.to_sqe(), Data::None).await;
            assert_eq!(answer.status, final_status(0x001), "{command:?}");
        }
        keep_alive(controller.admin()).await;
    });
}

#[test]
fn a_stopping_node_makes_no_controllers_and_says_try_elsewhere_m_40() {
    let rig = rig();
    rig.host(|local, world| async move {
        let before = controller(&local, &world).await;
        world.node.withdraw();
        for subsystem in [VOLUMES, DISCOVERY] {
            let attempt = Attempt::to(0, 31, ControllerId::DYNAMIC, subsystem, HOST);
            let answer = attempt.send(&local, &world).await;
            refused(&answer, Status::CONNECT_CONTROLLER_BUSY, None);
        }
        keep_alive(before.admin()).await;
        world.node.close();
        before.admin().wait_closed().await;
    });
}

#[test]
fn a_connected_queue_gets_the_patience_of_its_keep_alive_t_89() {
    let stall_timeout = Duration::from_millis(50);
    let rig = Rig::with(&state(), 1, Limits { stall_timeout, ..Limits::default() });
    let mut raw = TcpStream::connect(rig.world.address).unwrap();
    let mut bytes = Vec::new();
    Encoder::ic_request(&mut bytes, Digests::default(), 0);
    raw.write_all(&bytes).unwrap();
    raw.read_exact(&mut [0; 128]).unwrap();
    let attempt = Attempt::admin();
    let (mut connect, mut get) = (Vec::new(), Vec::new());
    let sqe = Sqe::read_from_bytes(attempt.command.as_bytes()).unwrap();
    Encoder::plain().command(&mut connect, sqe, 1024);
    connect.extend_from_slice(attempt.data.as_bytes());
    raw.write_all(&connect).unwrap();
    raw.read_exact(&mut [0; 24]).unwrap();
    let sqe = FabricsCommand::PropertyGet { offset: 0, size: PropertySize::Eight }.to_sqe();
    Encoder::plain().command(&mut get, sqe, 0);
    // The host stops inside of a PDU for ten times of what an unconnected one may.
    let (head, rest) = get.split_at(9);
    raw.write_all(head).unwrap();
    raw.set_read_timeout(Some(10 * stall_timeout)).unwrap();
    let silence = raw.read(&mut [0]).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::WouldBlock, "the target gave the host up");
    raw.write_all(rest).unwrap();
    raw.set_read_timeout(None).unwrap();
    raw.read_exact(&mut [0; 24]).unwrap();
}
