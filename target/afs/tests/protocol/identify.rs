//! Identify: every structure with good and bad namespace ids (CONFORMANCE 4.2 to 4.4).

use std::rc::Rc;

use afs_fabric::HostController;
use afs_nvme::Status;
use afs_nvme::command::AdminCommand;
use afs_nvme::identify::IdentifyController;
use afs_nvme::identify::{Descriptor, DescriptorList, cns};
use afs_nvme::nqn::DISCOVERY;
use zerocopy::FromBytes;

use crate::rig::*;

const NN: u32 = 1024;

async fn identify(controller: &HostController, cns: u8, nsid: u32, csi: u8) -> Answer {
    let command = AdminCommand::Identify { cns, cntid: 0, csi };
    admin(controller.admin(), command, nsid, Data::In(4096)).await
}

fn list(answer: Answer) -> Vec<u32> {
    let ids = answer.good().data;
    let ids = ids.chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().unwrap()));
    ids.take_while(|id| *id != 0).collect()
}

/// A node with namespaces 1 (writable), 2 (read-only), 5 (its volume is not here).
fn rig() -> Rig {
    let mut state = state();
    state.subsystems[0] = subsystem(VOLUMES, &[1, 2, 5]);
    state.subsystems[0].namespaces[1].read_only = true;
    let rig = Rig::start(&state);
    rig.world.lose(5);
    rig.world.apply(&state);
    rig
}

#[test]
fn namespaces_in_use_have_data_others_are_zero_and_impossible_ones_are_refused_4_2() {
    rig().host(|local, world| async move {
        let controller = controller(&local, &world).await;
        for what in [cns::NAMESPACE, cns::ALLOCATED_NAMESPACE] {
            for nsid in [1, 2, 5] {
                let data = identify(&controller, what, nsid, 0).await.good().data;
                assert_eq!(data[..8], BLOCKS.to_le_bytes(), "NSZE");
                assert_eq!(data[8..16], BLOCKS.to_le_bytes(), "NCAP");
                assert_eq!(data[30], 1, "NMIC: shared");
                assert_eq!(data[33], 0x09, "DLFEAT");
                assert_eq!(data[92..96], nsid.to_le_bytes(), "ANAGRPID");
                assert_eq!(data[99], u8::from(nsid == 2), "NSATTR");
                assert_eq!(data[104..120], [nsid as u8; 16], "NGUID");
                assert_eq!(data[128..132], [0, 0, 12, 0], "LBAF0");
            }
            for nsid in [3, 4, NN] {
                let data = identify(&controller, what, nsid, 0).await.good().data;
                assert!(data.iter().all(|byte| *byte == 0), "{nsid} is not in use");
            }
            for nsid in [0, NN + 1, u32::MAX - 1, u32::MAX] {
                let answer = identify(&controller, what, nsid, 0).await;
                assert_eq!(answer.status, final_status(0x00b), "{what:#x} {nsid}");
            }
        }
    });
}

#[test]
fn lists_go_on_after_the_given_id_and_keep_volumes_that_are_away_a_26() {
    rig().host(|local, world| async move {
        let controller = controller(&local, &world).await;
        for what in [0x02, 0x07, 0x10, 0x1a] {
            for (after, expected) in
                [(0, &[1, 2, 5][..]), (1, &[2, 5]), (2, &[5]), (4, &[5]), (5, &[]), (NN + 1, &[])]
            {
                let answer = identify(&controller, what, after, 0).await;
                assert_eq!(list(answer), expected, "{what:#x} after {after}");
            }
            for nsid in [u32::MAX - 1, u32::MAX] {
                let answer = identify(&controller, what, nsid, 0).await;
                assert_eq!(answer.status, final_status(0x00b), "{what:#x} {nsid:#x}");
            }
        }
        for what in [0x07, 0x1a, 0x05, 0x06] {
            let answer = identify(&controller, what, 1, 2).await;
            assert_eq!(answer.status, final_status(0x02c), "{what:#x}");
        }
    });
}

#[test]
fn descriptors_give_the_same_ids_as_identify_namespace_a_20_a_21_a_22() {
    rig().host(|local, world| async move {
        let controller = controller(&local, &world).await;
        for nsid in [1, 2, 5] {
            let data = identify(&controller, cns::DESCRIPTORS, nsid, 0).await.good().data;
            let found: Vec<_> = DescriptorList::ref_from_bytes(&data).unwrap().iter().collect();
            assert!(found.contains(&Descriptor::Nguid([nsid as u8; 16])), "{found:?}");
            assert!(found.contains(&Descriptor::Uuid(*volume(nsid).as_bytes())), "{found:?}");
        }
        for nsid in [0, 3, NN, NN + 1, u32::MAX] {
            for what in [cns::DESCRIPTORS, cns::INDEPENDENT_NAMESPACE, cns::NAMESPACE_CONTROLLERS] {
                let answer = identify(&controller, what, nsid, 0).await;
                assert_eq!(answer.status, final_status(0x00b), "{what:#x} {nsid}");
            }
        }
        let data = identify(&controller, cns::INDEPENDENT_NAMESPACE, 2, 0).await.good().data;
        assert_eq!((data[1], data[8], data[14] & 1), (1, 1, 1), "NMIC, NSATTR, NSTAT");
        for what in [cns::NAMESPACE_CONTROLLERS, cns::SUBSYSTEM_CONTROLLERS] {
            let data = identify(&controller, what, 1, 0).await.good().data;
            let mut expected = vec![1, 0];
            expected.extend_from_slice(&controller.id().get().to_le_bytes());
            assert_eq!(data[..4], expected);
        }
        let answer = identify(&controller, 0x05, 1, 0).await.good();
        assert!(answer.data.iter().all(|byte| *byte == 0), "plain LBA format");
        identify(&controller, 0x06, 0, 0).await.good();
        assert_eq!(identify(&controller, 0x1c, 0, 0).await.good().data[0], 1);
    });
}

#[test]
fn structures_that_are_not_offered_are_refused_for_good_and_no_cns_breaks_anything_4_2() {
    rig().host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let offered =
            [0x00, 0x01, 0x02, 0x03, 0x05, 0x06, 0x07, 0x08, 0x10, 0x11, 0x12, 0x13, 0x1a, 0x1c];
        for what in 0..=u8::MAX {
            let answer = identify(&controller, what, 1, 0).await;
            let expected =
                if offered.contains(&what) { Status::SUCCESS } else { Status::INVALID_FIELD.dnr() };
            assert_eq!(answer.status, expected, "CNS {what:#x}");
        }
    });
}

#[test]
fn a_buffer_of_another_length_than_4096_is_refused_t_26() {
    rig().host(|local, world| async move {
        let controller = controller(&local, &world).await;
        for bytes in [4, 4092, 8192] {
            let command = AdminCommand::Identify { cns: 1, cntid: 0, csi: 0 };
            let answer = admin(controller.admin(), command, 0, Data::In(bytes)).await;
            assert_eq!(answer.status, final_status(0x00f), "{bytes}");
        }
        let command = AdminCommand::Identify { cns: 1, cntid: 0, csi: 0 };
        let answer = admin(controller.admin(), command, 0, Data::None).await;
        assert_eq!(answer.status, final_status(0x00f));
    });
}

#[test]
fn the_controller_says_what_linux_checks_4_3() {
    rig().host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let id = controller.identify().await.unwrap();
        assert_eq!(id.cntlid.get(), controller.id().get());
        assert_eq!(id.cmic, 0x0b);
        assert_eq!((id.mdts, id.sqes, id.cqes), (8, 0x66, 0x44));
        assert!(id.kas.get() > 0 && id.anatt > 0 && id.maxcmd.get() > 1);
        assert_eq!((id.ioccsz.get(), id.iorcsz.get(), id.icdoff.get()), (1028, 1, 0));
        assert_eq!(id.sgls.get(), 0x0010_0001);
        assert!((1..=id.nn.get()).contains(&id.mnan.get()));
        assert_eq!(id.anagrpmax, id.nanagrpid);
        let log = 16 + id.nanagrpid.get() * 32 + id.mnan.get() * 4;
        assert!(log <= 1 << 20, "the ANA log fits into MDTS");
        assert_eq!(id.subnqn, nqn(VOLUMES).to_field());
        assert_eq!((id.oacs.get(), id.fuses.get(), id.vwc & 1), (0, 0, 0));
        assert!(id.sn.is_ascii() && id.mn.is_ascii() && id.fr.is_ascii());
        assert_eq!(id.sn.as_slice(), b"AFS0001             ");
    });
}

#[test]
fn discovery_has_one_structure_with_the_well_known_name_d_2() {
    rig().host(|local, world| async move {
        let controller = controller_of(&local, &world, HOST, DISCOVERY).await.unwrap();
        let data = identify(&controller, 1, 0, 0).await.good().data;
        let id = IdentifyController::read_from_bytes(&data).unwrap();
        assert_eq!(id.cntrltype, 2);
        assert_eq!(id.oaes.get(), 1 << 31);
        assert_eq!(id.subnqn, nqn(DISCOVERY).to_field());
        assert!(id.kas.get() > 0 && id.maxcmd.get() > 0 && id.lpa & 4 != 0);
        assert_eq!((id.ioccsz.get(), id.iorcsz.get()), (4, 1));
        for what in [0, 2, 3, 5, 6, 0x1c] {
            let answer = identify(&controller, what, 1, 0).await;
            assert_eq!(answer.status, final_status(0x002), "CNS {what:#x}");
        }
    });
}

#[test]
fn many_identify_commands_at_once_do_not_hold_up_a_keep_alive_a_25() {
    rig().host(|local, world| async move {
        let controller = Rc::new(controller(&local, &world).await);
        let commands: Vec<_> = (0..120)
            .map(|turn| {
                let on = Rc::clone(&controller);
                local.spawn_local(async move {
                    identify(&on, cns::DESCRIPTORS, [1, 2, 5][turn % 3], 0).await.good();
                })
            })
            .collect();
        keep_alive(controller.admin()).await;
        for command in commands {
            command.await.unwrap();
        }
    });
}
