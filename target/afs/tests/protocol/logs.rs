//! Log pages: offsets, lengths, and that what they say is true (CONFORMANCE 4.5, 6.3).

use std::collections::BTreeMap;

use afs_fabric::{HostController, HostQueue};
use afs_nvme::command::{AdminCommand, IoCommand, Rw};
use afs_nvme::log::{AnaHeader, AnaState, ErrorEntry, SmartLog, ana, lid};
use afs_nvme::nqn::DISCOVERY;
use afs_nvme::{Sqe, Status};
use conductor::api::NodeState;
use zerocopy::FromBytes;

use crate::rig::*;

const ANA_BYTES: usize = 16 + 1024 * 32 + 1024 * 4;
/// The logs of an I/O controller and their lengths.
const LOGS: [(u8, usize); 8] = [
    (lid::SUPPORTED_LOG_PAGES, 1024),
    (lid::ERROR_INFORMATION, 64 * 64),
    (lid::SMART, 512),
    (lid::FIRMWARE_SLOT, 512),
    (lid::CHANGED_NAMESPACES, 4096),
    (lid::EFFECTS, 4096),
    (lid::ANA, ANA_BYTES),
    (lid::FEATURE_EFFECTS, 1024),
];

#[test]
fn every_log_reads_the_same_in_pieces_as_whole_and_ends_where_it_ends_a_30_a_31() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.admin();
        for (lid, length) in LOGS {
            let whole = log(queue, lid, 0, length, true).await.good().data;
            for piece in [4, 512, 4096] {
                let step = piece.max(length / 64 / 4 * 4);
                for offset in (0..length).step_by(step) {
                    let data = log(queue, lid, offset as u64, piece, true).await.good().data;
                    let rest = &whole[offset..length.min(offset + piece)];
                    assert_eq!(&data[..rest.len()], rest, "log {lid:#x} at {offset}");
                    assert!(data[rest.len()..].iter().all(|byte| *byte == 0), "log {lid:#x}");
                }
            }
            let data = log(queue, lid, length as u64, 64, true).await.good().data;
            assert_eq!(data, [0; 64], "just past the end is zeroes");
            for beyond in [length as u64 + 4, 1 << 32, u64::MAX - 3] {
                let answer = log(queue, lid, beyond, 64, true).await;
                assert_eq!(answer.status, Status::INVALID_FIELD, "log {lid:#x} at {beyond}");
            }
            for odd in [1, 2, 3, 4094] {
                let answer = log(queue, lid, odd, 64, true).await;
                assert_eq!(answer.status, Status::INVALID_FIELD, "log {lid:#x} at {odd}");
            }
        }
    });
}

#[test]
fn a_log_of_which_the_buffer_is_too_short_is_refused_and_not_taken_as_read_a_31_a_34() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.admin();
        let mut next = state();
        next.subsystems[0].namespaces.pop();
        world.apply(&next);
        for (lid, length) in LOGS {
            let bytes = length as u64;
            let command =
                AdminCommand::GetLogPage { lid, lsp: 0, rae: false, bytes, offset: 0, csi: 0 };
            let answer = admin(queue, command, 0, Data::In(length - 4)).await;
            assert_eq!(answer.status, final_status(0x00f), "log {lid:#x}");
        }
        // The changed namespaces were cleared by a reading that gave the host nothing.
        let changed = log(queue, lid::CHANGED_NAMESPACES, 0, 4096, false).await.good().data;
        assert_eq!(changed[..8], [2, 0, 0, 0, 0, 0, 0, 0]);
    });
}

#[test]
fn logs_that_are_not_offered_are_refused_for_good_a_32() {
    Rig::start(&state()).host(|local, world| async move {
        let io = controller(&local, &world).await;
        let discovery = controller_of(&local, &world, HOST, DISCOVERY).await.unwrap();
        let of_io: Vec<u8> = LOGS.iter().map(|(lid, _)| *lid).collect();
        let of_discovery = [0x00, 0x01, 0x02, 0x70];
        for lid in 0..=u8::MAX {
            let status = log(io.admin(), lid, 0, 512, true).await.status;
            let expected = match lid {
                lid::DISCOVERY => Status::INVALID_FIELD,
                _ if of_io.contains(&lid) => Status::SUCCESS,
                _ => final_status(0x109),
            };
            assert_eq!(status, expected, "log {lid:#x}");
            let status = log(discovery.admin(), lid, 0, 512, true).await.status;
            let offered = of_discovery.contains(&lid);
            let expected = if offered { Status::SUCCESS } else { final_status(0x109) };
            assert_eq!(status, expected, "log {lid:#x} of discovery");
        }
        let longer = AdminCommand::GetLogPage {
            lid: lid::ANA,
            lsp: 0,
            rae: true,
            bytes: 1 << 34,
            offset: 0,
            csi: 0,
        };
        let status = admin(io.admin(), longer, 0, Data::In(4096)).await.status;
        assert_eq!(status, final_status(0x002), "more than MDTS");
    });
}

#[test]
fn supported_pages_and_effects_tell_what_is_served_and_never_freeze_a_host_4_5() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.admin();
        let pages = log(queue, lid::SUPPORTED_LOG_PAGES, 0, 1024, true).await.good().data;
        for lid in 0..=u8::MAX {
            let listed = pages[usize::from(lid) * 4] & 1 == 1;
            let served = LOGS.iter().any(|(other, _)| *other == lid);
            assert_eq!(listed, served, "log {lid:#x}");
        }
        let effects = log(queue, lid::EFFECTS, 0, 4096, true).await.good().data;
        for entry in effects.chunks_exact(4) {
            let entry = u32::from_le_bytes(entry.try_into().unwrap());
            assert_eq!(entry >> 16 & 7, 0, "CSE");
            assert_eq!(entry & 0b1_1100, 0, "NCC, NIC, CCC");
        }
        let io_queue = controller.io_queues(1).await.unwrap().remove(0);
        for opcode in (0..=u8::MAX).filter(|opcode| *opcode != 0x7f) {
            let listed = effects[1024 + usize::from(opcode) * 4] & 1 == 1;
            let status = ask(&io_queue, Sqe::new(opcode), Data::None).await.status;
            let known = status != final_status(0x001);
            assert_eq!(listed, known, "I/O opcode {opcode:#x}: {status}");
        }
    });
}

async fn smart(queue: &HostQueue, nsid: u32) -> Answer {
    let command = AdminCommand::GetLogPage {
        lid: lid::SMART,
        lsp: 0,
        rae: true,
        bytes: 512,
        offset: 0,
        csi: 0,
    };
    admin(queue, command, nsid, Data::In(512)).await
}

#[test]
fn smart_counts_what_hosts_did_and_only_for_the_whole_controller_4_5() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.io_queues(1).await.unwrap().remove(0);
        for lba in 0..5 {
            queue.write(1, lba, local.pool().alloc(1 << 20).await.freeze()).await.unwrap();
        }
        for _ in 0..3 {
            queue.read(2, 0, local.pool().alloc(4096).await).await.unwrap();
        }
        for nsid in [0, u32::MAX] {
            let data = smart(controller.admin(), nsid).await.good().data;
            let log = SmartLog::read_from_bytes(&data).unwrap();
            assert!((273..373).contains(&log.temperature.get()), "a sane temperature in kelvin");
            assert_eq!((log.critical_warning, log.available_spare), (0, 100));
            assert_eq!((log.host_writes.get(), log.host_reads.get()), (5, 3));
            assert_eq!(log.data_units_written.get(), 11, "5 MiB in units of 512000 bytes");
            assert_eq!(log.data_units_read.get(), 1);
            assert_eq!(log.error_log_entries.get(), 0);
        }
        for nsid in [1, 2, 7] {
            let answer = smart(controller.admin(), nsid).await;
            assert_eq!(answer.status, Status::INVALID_FIELD);
        }
    });
}

#[test]
fn the_error_log_holds_the_last_failures_of_all_queues_newest_first_i_13() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.io_queues(1).await.unwrap().remove(0);
        let empty = log(controller.admin(), 1, 0, 4096, true).await.good().data;
        assert!(empty.iter().all(|byte| *byte == 0));
        let out_of_range = IoCommand::Read(Rw { lba: BLOCKS + 5, blocks: 1, fua: false });
        ask(&queue, out_of_range.to_sqe(2), Data::In(4096)).await;
        ask(controller.admin(), Sqe::new(0x80), Data::None).await;
        // Refused before any command sees it, and noted all the same.
        let mut without_sgl = IoCommand::Flush.to_sqe(1);
        without_sgl.flags = 0;
        ask(&queue, without_sgl, Data::None).await;
        let data = log(controller.admin(), 1, 0, 4096, true).await.good().data;
        let entries = <[ErrorEntry]>::ref_from_bytes(&data).unwrap();
        let seen: Vec<_> = entries
            .iter()
            .take(4)
            .map(|entry| (entry.error_count.get(), entry.sqid.get(), entry.status.get()))
            .collect();
        let expected = [
            (3, 1, final_status(0x002).to_wire()),
            (2, 0, final_status(0x001).to_wire()),
            (1, 1, final_status(0x080).to_wire()),
            (0, 0, 0),
        ];
        assert_eq!(seen, expected);
        assert_eq!((entries[2].lba.get(), entries[2].nsid.get()), (BLOCKS + 5, 2));
        for _ in 0..100 {
            ask(controller.admin(), Sqe::new(0x80), Data::None).await;
        }
        let data = log(controller.admin(), 1, 0, 4096, true).await.good().data;
        let entries = <[ErrorEntry]>::ref_from_bytes(&data).unwrap();
        let counts: Vec<_> = entries.iter().map(|entry| entry.error_count.get()).collect();
        let newest: Vec<_> = (40..=103).rev().collect();
        assert_eq!(counts, newest, "bounded, the oldest go");
        let data = smart(controller.admin(), 0).await.good().data;
        let log = SmartLog::read_from_bytes(&data).unwrap();
        assert_eq!(log.error_log_entries.get(), 103);
    });
}

/// The ANA log as its reader sees it: change count, and for each NSID its state and change count.
async fn ana_log(controller: &HostController) -> (u64, BTreeMap<u32, (AnaState, u64)>) {
    let data = log(controller.admin(), lid::ANA, 0, ANA_BYTES, false).await.good().data;
    let (header, _) = AnaHeader::read_from_prefix(&data).unwrap();
    let mut groups = BTreeMap::new();
    let mut last = 0;
    for (group, nsids) in ana::groups(&data) {
        assert!((1..=1024).contains(&group.grpid.get()), "M-20");
        assert!(group.grpid.get() > last, "groups ascend");
        last = group.grpid.get();
        let state = AnaState::from_byte(group.state).expect("M-20: a state that Linux knows");
        assert!(nsids.is_sorted_by_key(|nsid| nsid.get()), "M-23");
        for nsid in nsids {
            let before = groups.insert(nsid.get(), (state, group.chgcnt.get()));
            assert!(before.is_none(), "M-21: {nsid} is in two groups");
        }
    }
    assert_eq!(usize::from(header.ngrps.get()), groups.len(), "M-21: parsed to its end");
    (header.chgcnt.get(), groups)
}

/// A repeatable sequence of small numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn the_ana_log_follows_any_history_and_its_counters_only_rise_m_20_to_m_26() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let mut dice = Dice(42);
        let (mut count, mut groups) = ana_log(&controller).await;
        for turn in 0..60 {
            let mut next: NodeState = state();
            let chosen: Vec<u32> = (1..=12).filter(|_| dice.roll(2) == 0).collect();
            next.subsystems[0] = subsystem(VOLUMES, &chosen);
            let mut expected = BTreeMap::new();
            for nsid in &chosen {
                if dice.roll(3) == 0 {
                    world.lose(*nsid);
                    expected.insert(*nsid, AnaState::Inaccessible);
                } else {
                    world.find(*nsid);
                    expected.insert(*nsid, AnaState::Optimized);
                }
            }
            world.apply(&next);
            let (new_count, new_groups) = ana_log(&controller).await;
            let states: BTreeMap<_, _> =
                new_groups.iter().map(|(nsid, (state, _))| (*nsid, *state)).collect();
            assert_eq!(states, expected, "turn {turn}");
            let states_before: BTreeMap<_, _> =
                groups.iter().map(|(nsid, (state, _))| (*nsid, *state)).collect();
            assert_eq!(new_count > count, states != states_before, "turn {turn}: M-22");
            assert!(new_count >= count, "turn {turn}: M-22");
            for (nsid, (state, changes)) in &new_groups {
                let Some((state_before, changes_before)) = groups.get(nsid) else { continue };
                assert_eq!(changes > changes_before, state != state_before, "group {nsid}");
                assert!(changes >= changes_before && *changes <= new_count, "group {nsid}");
            }
            (count, groups) = (new_count, new_groups);
            world.apply(&next);
            assert_eq!(ana_log(&controller).await.0, count, "nothing changed, nothing counted");
        }
    });
}

#[test]
fn groups_alone_have_no_namespaces_m_24() {
    Rig::start(&state()).host(|local, world| async move {
        let controller = controller(&local, &world).await;
        let command = AdminCommand::GetLogPage {
            lid: lid::ANA,
            lsp: ana::LSP_GROUPS_ONLY,
            rae: true,
            bytes: 4096,
            offset: 0,
            csi: 0,
        };
        let data = admin(controller.admin(), command, 0, Data::In(4096)).await.good().data;
        let groups: Vec<_> = ana::groups(&data)
            .map(|(group, nsids)| (group.grpid.get(), group.nnsids.get(), nsids.len()))
            .collect();
        assert_eq!(groups, [(1, 0, 0), (2, 0, 0)]);
    });
}
