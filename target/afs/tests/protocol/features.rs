//! Get and Set Features, and admin commands that are not offered (CONFORMANCE 4.6, 4.8).

use afs_nvme::command::AdminCommand;
use afs_nvme::feature::Select;
use afs_nvme::nqn::DISCOVERY;
use afs_nvme::{Sqe, Status};

use crate::rig::*;

async fn get(queue: &afs_fabric::HostQueue, fid: u8, sel: Select, cdw11: u32) -> Answer {
    let command = AdminCommand::GetFeatures { fid, sel, cdw11 };
    admin(queue, command, 0, Data::None).await
}

#[test]
fn a_walk_over_all_features_meets_only_success_0x002_and_0x00b_4_6() {
    Rig::start(&state()).host(|local, world| async move {
        let io = controller(&local, &world).await;
        let discovery = controller_of(&local, &world, HOST, DISCOVERY).await.unwrap();
        for controller in [io, discovery] {
            for fid in 0..=u8::MAX {
                for sel in [Select::Current, Select::Default, Select::Saved, Select::Capabilities] {
                    let command = AdminCommand::GetFeatures { fid, sel, cdw11: 1 };
                    let queue = controller.admin();
                    // With room for the data of those that have some; `get-feature` gives 4096 or nothing.
                    let size = match fid {
                        0x16 => 512,
                        0x81 => 16,
                        _ => 0,
                    };
                    let has_data = size > 0 && sel != Select::Capabilities;
                    let answer = if has_data {
                        admin(queue, command, 0, Data::In(size)).await.status
                    } else {
                        admin(queue, command, 0, Data::None).await.status
                    };
                    let allowed = [0, 0x002, 0x00b].contains(&answer.code()) && !answer.is_dnr();
                    assert!(allowed, "feature {fid:#x} {sel:?}: {answer}");
                }
            }
        }
    });
}

#[test]
fn the_mandatory_features_are_kept_as_set_4_6() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.admin();
        for fid in [0x01, 0x02, 0x04, 0x05, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0f] {
            get(queue, fid, Select::Current, 0).await.good();
        }
        for fid in [0x01, 0x04, 0x05, 0x08, 0x0a] {
            set_feature(queue, fid, 0x0000_0102).await.good();
            let answer = get(queue, fid, Select::Current, 0).await.good();
            assert_eq!(answer.result, 0x0102, "feature {fid:#x}");
        }
        let echoed = get(queue, 0x09, Select::Current, 3).await.good().result;
        assert_eq!(echoed & 0xffff, 3, "the vector comes back");
        set_feature(queue, 0x02, 0).await.good();
        assert_eq!(set_feature(queue, 0x02, 1).await.status, final_status(0x002));
        let saving = AdminCommand::SetFeatures { fid: 0x01, save: true, cdw11: 0, cdw12: 0 };
        let answer = admin(queue, saving, 0, Data::None).await;
        assert_eq!(answer.status, final_status(0x10d));
    });
}

#[test]
fn unknown_features_cannot_be_set_for_good_4_6() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let known = [0x01, 0x02, 0x04, 0x05, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0f, 0x16, 0x81];
        for fid in (0..=u8::MAX).filter(|fid| !known.contains(fid)) {
            let answer = set_feature(controller.admin(), fid, 0).await;
            assert_eq!(answer.status, final_status(0x002), "feature {fid:#x}");
        }
        let answer = set_feature(controller.admin(), 0x81, 1).await;
        assert_eq!(answer.status, final_status(0x00c), "host identifier");
    });
}

#[test]
fn queues_are_granted_up_to_the_limit_and_not_again_once_in_use_4_6_m_43() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.admin();
        for bad in [0xffff, 0xffff_0000, u32::MAX] {
            assert_eq!(set_feature(queue, 7, bad).await.status, final_status(0x002));
        }
        for (asked, granted) in [(0, 0), (3 | 3 << 16, 3 | 3 << 16), (3 | 1 << 16, 1 | 1 << 16)] {
            assert_eq!(set_feature(queue, 7, asked).await.good().result, granted);
            assert_eq!(get(queue, 7, Select::Current, 0).await.good().result, granted);
        }
        let most = set_feature(queue, 7, 0xfffe_fffe).await.good().result;
        assert_eq!(most & 0xffff, most >> 16);
        assert!(most & 0xffff < 0xfffe, "{most:#x} is bounded");
        let queues = controller.io_queues(1).await.unwrap();
        assert_eq!(set_feature(queue, 7, 0).await.status, Status::COMMAND_SEQUENCE_ERROR);
        drop(queues);
    });
}

#[test]
fn event_configuration_keeps_what_can_be_sent_and_keep_alive_rounds_up_4_6() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.admin();
        set_feature(queue, 0x0b, u32::MAX).await.good();
        let kept = get(queue, 0x0b, Select::Current, 0).await.good().result;
        assert_eq!(kept & !0xff, 1 << 8 | 1 << 11, "OAES");
        set_feature(queue, 0x0f, 60_001).await.good();
        assert_eq!(get(queue, 0x0f, Select::Current, 0).await.good().result, 60_100);
        set_feature(queue, 0x0f, 0).await.good();
        assert_eq!(get(queue, 0x0f, Select::Current, 0).await.good().result, 0);
    });
}

#[test]
fn host_behaviour_and_host_identifier_have_data_of_their_exact_length_4_6() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.admin();
        let set = AdminCommand::SetFeatures { fid: 0x16, save: false, cdw11: 0, cdw12: 0 };
        let mut behaviour = [0; 512];
        behaviour[..3].copy_from_slice(&[1, 1, 1]);
        admin(queue, set, 0, Data::Out(&behaviour)).await.good();
        for wrong in [4, 511, 1024] {
            let answer = admin(queue, set, 0, Data::Out(&vec![0; wrong])).await;
            assert_eq!(answer.status, final_status(0x00f));
        }
        let get = |fid, cdw11| AdminCommand::GetFeatures { fid, sel: Select::Current, cdw11 };
        let answer = admin(queue, get(0x16, 0), 0, Data::In(512)).await.good();
        assert_eq!(answer.data[..4], [1, 1, 1, 0]);
        let answer = admin(queue, get(0x81, 1), 0, Data::In(16)).await.good();
        assert_eq!(answer.data, [7; 16]);
        let answer = admin(queue, get(0x81, 0), 0, Data::In(8)).await;
        assert_eq!(answer.status, Status::INVALID_FIELD, "the 64-bit form");
    });
}

#[test]
fn a_reserved_selection_is_refused() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        for sel in 4..8 {
            let mut sqe = Sqe::new(0x0a);
            sqe.cdw10.set(0x07 | sel << 8);
            let answer = ask(controller.admin(), sqe, Data::None).await;
            assert_eq!(answer.status, final_status(0x002));
        }
    });
}

#[test]
fn opcodes_that_are_not_offered_are_refused_for_good_a_56_a_57_a_58() {
    Rig::start(&state()).host(|local, world| async move {
        let io = controller(&local, &world).await;
        let discovery = controller_of(&local, &world, HOST, DISCOVERY).await.unwrap();
        let served = [0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18, 0x7f];
        for opcode in (0..=u8::MAX).filter(|opcode| !served.contains(opcode)) {
            for controller in [&io, &discovery] {
                let answer = ask(controller.admin(), Sqe::new(opcode), Data::None).await;
                assert_eq!(answer.status, final_status(0x001), "opcode {opcode:#x}");
            }
        }
        let mut fused = AdminCommand::KeepAlive.to_sqe(0);
        fused.flags |= 1;
        assert_eq!(ask(io.admin(), fused, Data::None).await.status, final_status(0x002));
    });
}

#[test]
fn abort_succeeds_without_aborting_and_discovery_has_none_a_55_d_1() {
    Rig::start(&state()).host(|local, world| async move {
        let io = controller(&local, &world).await;
        for (sqid, cid) in [(0, 0), (1, 7), (u16::MAX, u16::MAX)] {
            let abort = AdminCommand::Abort { sqid, cid };
            let answer = admin(io.admin(), abort, 0, Data::None).await.good();
            assert_eq!(answer.result & 1, 1, "not aborted");
        }
        let discovery = controller_of(&local, &world, HOST, DISCOVERY).await.unwrap();
        let abort = AdminCommand::Abort { sqid: 0, cid: 0 };
        let answer = admin(discovery.admin(), abort, 0, Data::None).await;
        assert_eq!(answer.status, final_status(0x001));
    });
}
