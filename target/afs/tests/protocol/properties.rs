//! Properties as Linux reads and writes them, and as it never would (CONFORMANCE 3.2, F-20 to F-27).

use afs_fabric::{ConnectRequest, HostQueue};
use afs_nvme::command::{AdminCommand, FabricsCommand};
use afs_nvme::fabrics::PropertySize::{Eight, Four};
use afs_nvme::{ControllerId, HostId, Status};
use afs_reactor::Local;

use crate::rig::*;

const CAP: u32 = 0x00;
const VS: u32 = 0x08;
const CC: u32 = 0x14;
const CSTS: u32 = 0x1c;
/// IOSQES 6, IOCQES 4.
const CONFIGURATION: u64 = 6 << 16 | 4 << 20;
const READY: u64 = 1;
const FATAL: u64 = 2;
const SHUTDOWN_COMPLETE: u64 = 2 << 2;

async fn admin_queue(local: &Local, world: &World) -> HostQueue {
    let queue = socket(local, world).await;
    let request = ConnectRequest {
        qid: 0,
        kato_ms: 0,
        host_id: HostId([7; 16]),
        host_nqn: nqn(HOST),
        subsystem: nqn(VOLUMES),
        controller: ControllerId::DYNAMIC,
    };
    queue.connect(&request).await.unwrap();
    queue
}

async fn csts(queue: &HostQueue) -> u64 {
    get_property(queue, CSTS, Four).await.good().result
}

async fn write_cc(queue: &HostQueue, value: u64) {
    set_property(queue, CC, Four, value).await.good();
}

async fn identify(queue: &HostQueue) -> Status {
    let command = AdminCommand::Identify { cns: 1, cntid: 0, csi: 0 };
    admin(queue, command, 0, Data::In(4096)).await.status
}

#[test]
fn the_property_sequence_of_linux_6_1_and_6_12_ends_ready_f_22_f_23() {
    Rig::start(&state()).host(|local, world| async move {
        for reads_cc_back in [true, false] {
            let queue = admin_queue(&local, &world).await;
            let cap = get_property(&queue, CAP, Eight).await.good().result;
            assert_eq!(cap & 0xffff, 1023, "MQES");
            assert!(cap >> 24 & 0xff >= 15, "TO");
            assert_eq!(cap >> 16 & 1, 1, "CQR");
            assert_eq!((cap >> 36 & 1, cap >> 37 & 1, cap >> 43 & 1), (0, 1, 0), "NSSRS, CSS");
            assert_eq!(cap >> 48 & 0xff, 0, "MPSMIN, MPSMAX");
            write_cc(&queue, CONFIGURATION).await;
            assert_eq!(csts(&queue).await, 0);
            if reads_cc_back {
                let back = get_property(&queue, CC, Four).await.good().result;
                assert_eq!(back, CONFIGURATION);
            }
            assert_eq!(get_property(&queue, CAP, Eight).await.good().result, cap);
            write_cc(&queue, CONFIGURATION | 1).await;
            assert_eq!(csts(&queue).await, READY, "RDY with the completion of the write");
            let version = get_property(&queue, VS, Four).await.good().result;
            assert!(version >= 0x0001_0300, "{version:#x}");
            assert_eq!(identify(&queue).await, Status::SUCCESS);
        }
    });
}

#[test]
fn properties_with_a_wrong_size_or_that_do_not_exist_are_0x002_without_dnr_f_20() {
    Rig::start(&state()).host(|local, world| async move {
        let queue = admin_queue(&local, &world).await;
        // As `nvme show-regs` walks them, before and after.
        for enabled in [false, true] {
            if enabled {
                write_cc(&queue, CONFIGURATION | 1).await;
            }
            for offset in (0..0x1000).step_by(4) {
                for size in [Four, Eight] {
                    let good = match size {
                        Eight => offset == CAP,
                        Four => [VS, CC, CSTS].contains(&offset),
                    };
                    let answer = get_property(&queue, offset, size).await;
                    let expected = if good { Status::SUCCESS } else { Status::INVALID_FIELD };
                    assert_eq!(answer.status, expected, "get {offset:#x} {size:?}");
                    assert_ne!(answer.result as u32, u32::MAX, "all ones is a dead device (F-27)");
                    if offset != CC || size == Eight {
                        let answer = set_property(&queue, offset, size, 1).await;
                        assert_eq!(answer.status, Status::INVALID_FIELD, "set {offset:#x}");
                    }
                }
            }
        }
        // Reserved sizes, offsets between registers, and the magic word of a subsystem reset.
        for attribute in 2..8 {
            let mut sqe = FabricsCommand::PropertyGet { offset: CSTS, size: Four }.to_sqe();
            sqe.cdw10.set(attribute);
            assert_eq!(ask(&queue, sqe, Data::None).await.status, Status::INVALID_FIELD);
        }
        for offset in [1, 2, 0x15, u32::MAX] {
            let answer = get_property(&queue, offset, Four).await;
            assert_eq!(answer.status, Status::INVALID_FIELD);
        }
        let answer = set_property(&queue, 0x20, Four, 0x4e56_4d65).await;
        assert_eq!(answer.status, Status::INVALID_FIELD, "NSSR");
        assert_eq!(csts(&queue).await, READY);
    });
}

#[test]
fn a_bad_configuration_is_fatal_and_not_ready_until_a_good_one_f_23() {
    Rig::start(&state()).host(|local, world| async move {
        let queue = admin_queue(&local, &world).await;
        let bad = [
            1,
            CONFIGURATION & !(0xf << 16) | 5 << 16 | 1,
            CONFIGURATION & !(0xf << 20) | 5 << 20 | 1,
            CONFIGURATION | 1 << 7 | 1,
            CONFIGURATION | 1 << 4 | 1,
            CONFIGURATION | 1 << 11 | 1,
        ];
        for cc in bad {
            write_cc(&queue, cc).await;
            assert_eq!(csts(&queue).await, FATAL, "{cc:#x}");
            assert_eq!(identify(&queue).await, Status::COMMAND_SEQUENCE_ERROR);
            write_cc(&queue, 0).await;
            assert_eq!(csts(&queue).await, 0);
        }
        write_cc(&queue, CONFIGURATION | 6 << 4 | 1).await;
        assert_eq!(csts(&queue).await, READY);
        assert_eq!(identify(&queue).await, Status::SUCCESS);
    });
}

#[test]
fn a_reset_closes_the_io_queues_and_keeps_the_association_f_25() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queues = controller.io_queues(2).await.unwrap();
        let admin = controller.admin();
        write_cc(admin, CONFIGURATION).await;
        assert_eq!(csts(admin).await, 0);
        for queue in &queues {
            queue.wait_closed().await;
        }
        assert_eq!(identify(admin).await, Status::COMMAND_SEQUENCE_ERROR);
        let answer = set_feature(admin, 7, 0).await;
        assert_eq!(answer.status, Status::COMMAND_SEQUENCE_ERROR);
        write_cc(admin, CONFIGURATION | 1).await;
        assert_eq!(csts(admin).await, READY);
        // The grant was forgotten with the reset, and is given anew.
        assert_eq!(controller.io_queues(1).await.unwrap().len(), 1);
    });
}

#[test]
fn a_shutdown_completes_at_once_and_a_reset_ends_it_f_26() {
    Rig::start(&state()).host(|local, world| async move {
        for notice in [1, 2] {
            let controller = controller(&local, &world).await;
            let queue = controller.io_queues(1).await.unwrap().remove(0);
            let admin = controller.admin();
            write_cc(admin, CONFIGURATION | notice << 14 | 1).await;
            assert_eq!(csts(admin).await, READY | SHUTDOWN_COMPLETE);
            queue.wait_closed().await;
            // 6.12 clears EN and SHN in one write.
            write_cc(admin, CONFIGURATION).await;
            assert_eq!(csts(admin).await, 0);
            write_cc(admin, CONFIGURATION | 1).await;
            assert_eq!(csts(admin).await, READY);
        }
    });
}

#[test]
fn an_io_queue_has_no_properties_f_21() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.io_queues(1).await.unwrap().remove(0);
        let answer = get_property(&queue, CSTS, Four).await;
        assert_eq!(answer.status, Status::COMMAND_SEQUENCE_ERROR);
        let answer = set_property(&queue, CC, Four, 0).await;
        assert_eq!(answer.status, Status::COMMAND_SEQUENCE_ERROR);
        assert_eq!(csts(controller.admin()).await, READY);
    });
}
