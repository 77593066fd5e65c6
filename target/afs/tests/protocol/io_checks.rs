//! I/O commands with something wrong, in the order of CONFORMANCE 5.2, with the exact status.

use afs_fabric::{HostController, HostQueue};
use afs_nvme::command::{DsmRange, IoCommand, Rw};
use afs_nvme::log::lid;
use afs_nvme::{Sqe, Status};
use afs_reactor::Local;
use zerocopy::IntoBytes;

use crate::rig::*;

const GOOD: u32 = 1;
const READ_ONLY: u32 = 2;
const AWAY: u32 = 3;
const PRACT: u32 = 1 << 29;
const DTYPE: u32 = 1 << 20;
const BLOCK: usize = 4096;

struct Queue {
    queue: HostQueue,
    controller: HostController,
}

/// A queue to a node with a good, a read-only and an absent namespace.
fn test<F, Fut>(part: F)
where
    F: FnOnce(Queue) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let mut state = state();
    state.subsystems[0] = subsystem(VOLUMES, &[GOOD, READ_ONLY, AWAY]);
    state.subsystems[0].namespaces[1].read_only = true;
    let rig = Rig::start(&state);
    rig.world.lose(AWAY);
    rig.world.apply(&state);
    rig.host(|local: Local, world| async move {
        let controller = controller(&local, &world).await;
        let queue = controller.io_queues(1).await.unwrap().remove(0);
        part(Queue { queue, controller }).await;
    });
}

fn rw(lba: u64, blocks: u32) -> Rw {
    Rw { lba, blocks, fua: false }
}

fn read(lba: u64, blocks: u32) -> IoCommand {
    IoCommand::Read(rw(lba, blocks))
}

fn write(lba: u64, blocks: u32) -> IoCommand {
    IoCommand::Write(rw(lba, blocks))
}

fn zeroes(lba: u64, blocks: u32) -> IoCommand {
    IoCommand::WriteZeroes { lba, blocks, deallocate: false, fua: false }
}

fn with(command: IoCommand, nsid: u32, change: impl FnOnce(&mut Sqe)) -> Sqe {
    let mut sqe = command.to_sqe(nsid);
    change(&mut sqe);
    sqe
}

fn set12(bits: u32) -> impl FnOnce(&mut Sqe) {
    move |sqe| sqe.cdw12.set(sqe.cdw12() | bits)
}

impl Queue {
    /// Data that goes with `sqe` when it names `blocks`.
    async fn status(&self, sqe: Sqe, blocks: usize) -> Status {
        let data = vec![0; blocks * BLOCK];
        let data = match sqe.opcode & 3 {
            _ if blocks == 0 => Data::None,
            1 => Data::Out(&data),
            _ => Data::In(data.len()),
        };
        ask(&self.queue, sqe, data).await.status
    }

    async fn expect(&self, sqe: Sqe, blocks: usize, status: Status) {
        assert_eq!(self.status(sqe, blocks).await, status, "{sqe:?}");
    }

    async fn deallocate(&self, nsid: u32, ranges: &[DsmRange], count: u16, bytes: usize) -> Status {
        let mut data = ranges.as_bytes().to_vec();
        data.resize(bytes, 0);
        let command = IoCommand::DatasetManagement { ranges: count, deallocate: true };
        ask(&self.queue, command.to_sqe(nsid), Data::Out(&data)).await.status
    }
}

#[test]
fn fused_commands_and_data_pointers_other_than_sgl_are_refused_first_5_2_t_25() {
    test(|queue| async move {
        for command in [read(0, 1), write(0, 1), IoCommand::Compare(rw(0, 1))] {
            for fuse in 1..=3 {
                let sqe = with(command, GOOD, |sqe| sqe.flags |= fuse);
                queue.expect(sqe, 1, final_status(0x002)).await;
            }
            for psdt in [0, 0x80, 0xc0] {
                let sqe = with(command, GOOD, |sqe| sqe.flags = psdt);
                queue.expect(sqe, 1, final_status(0x002)).await;
            }
        }
        let mut unknown = Sqe::new(0x80);
        unknown.flags |= 1;
        queue.expect(unknown, 0, final_status(0x002)).await;
    });
}

#[test]
fn opcodes_that_are_not_offered_are_refused_whatever_else_is_wrong_5_1() {
    test(|queue| async move {
        let served = [0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x0c, 0x7f];
        for opcode in (0..=u8::MAX).filter(|opcode| !served.contains(opcode)) {
            for nsid in [0, GOOD, AWAY, 77, u32::MAX] {
                let mut sqe = Sqe::new(opcode);
                sqe.nsid.set(nsid);
                queue.expect(sqe, 0, final_status(0x001)).await;
            }
        }
    });
}

#[test]
fn a_namespace_that_is_not_there_is_invalid_for_good_and_one_that_is_away_is_a_matter_of_the_path()
{
    test(|queue| async move {
        for nsid in [0, 4, 1024, 1025, u32::MAX - 1, u32::MAX] {
            for command in [read(0, 1), write(u64::MAX, 1)] {
                queue.expect(command.to_sqe(nsid), 1, final_status(0x00b)).await;
            }
            queue.expect(zeroes(0, 1).to_sqe(nsid), 0, final_status(0x00b)).await;
            let status = queue.deallocate(nsid, &[DsmRange::new(0, 1)], 1, 4096).await;
            assert_eq!(status, final_status(0x00b));
        }
        // Without DNR, and before anything else about the command is looked at (I-1).
        for command in [read(0, 1), write(u64::MAX, 1)] {
            queue.expect(command.to_sqe(AWAY), 1, Status::ANA_INACCESSIBLE).await;
            let sqe = with(command, AWAY, set12(PRACT));
            queue.expect(sqe, 2, Status::ANA_INACCESSIBLE).await;
        }
        queue.expect(IoCommand::Flush.to_sqe(AWAY), 0, Status::ANA_INACCESSIBLE).await;
        queue.expect(zeroes(0, 1).to_sqe(AWAY), 0, Status::ANA_INACCESSIBLE).await;
        let status = queue.deallocate(AWAY, &[DsmRange::new(0, 1)], 1, 4096).await;
        assert_eq!(status, Status::ANA_INACCESSIBLE);
    });
}

#[test]
fn flush_of_all_namespaces_succeeds_and_of_none_does_not_5_1() {
    test(|queue| async move {
        for nsid in [GOOD, READ_ONLY, u32::MAX] {
            queue.expect(IoCommand::Flush.to_sqe(nsid), 0, Status::SUCCESS).await;
        }
        queue.expect(IoCommand::Flush.to_sqe(0), 0, final_status(0x00b)).await;
    });
}

#[test]
fn a_read_only_namespace_takes_everything_but_changes_5_2() {
    test(|queue| async move {
        let protected = final_status(0x020);
        queue.expect(write(0, 1).to_sqe(READ_ONLY), 1, protected).await;
        queue.expect(write(u64::MAX, 1).to_sqe(READ_ONLY), 1, protected).await;
        queue.expect(zeroes(0, 1).to_sqe(READ_ONLY), 0, protected).await;
        let status = queue.deallocate(READ_ONLY, &[DsmRange::new(0, 1)], 1, 4096).await;
        assert_eq!(status, protected);
        queue.expect(read(0, 1).to_sqe(READ_ONLY), 1, Status::SUCCESS).await;
        queue.expect(IoCommand::Compare(rw(0, 1)).to_sqe(READ_ONLY), 1, Status::SUCCESS).await;
        queue.expect(IoCommand::Verify(rw(0, 1)).to_sqe(READ_ONLY), 0, Status::SUCCESS).await;
    });
}

#[test]
fn a_range_beyond_the_end_is_out_of_range_before_flags_and_lengths_are_looked_at_5_2_i_7() {
    test(|queue| async move {
        let out = final_status(0x080);
        let ranges = [
            (BLOCKS, 1),
            (BLOCKS - 1, 2),
            (0, 1025),
            (u64::MAX, 1),
            (u64::MAX, 65536),
            (u64::MAX - 65535, 65536),
        ];
        for (lba, blocks) in ranges {
            for command in
                [read(lba, blocks), write(lba, blocks), IoCommand::Compare(rw(lba, blocks))]
            {
                queue.expect(command.to_sqe(GOOD), 1, out).await;
                queue.expect(with(command, GOOD, set12(PRACT)), 1, out).await;
            }
            for command in [zeroes(lba, blocks), IoCommand::Verify(rw(lba, blocks))] {
                queue.expect(command.to_sqe(GOOD), 0, out).await;
                queue.expect(with(command, GOOD, set12(PRACT)), 0, out).await;
            }
        }
        queue.expect(read(BLOCKS - 1, 1).to_sqe(GOOD), 1, Status::SUCCESS).await;
        queue.expect(zeroes(0, BLOCKS as u32).to_sqe(GOOD), 0, Status::SUCCESS).await;
        let whole = IoCommand::Verify(rw(0, BLOCKS as u32));
        queue.expect(whole.to_sqe(GOOD), 0, Status::SUCCESS).await;
    });
}

#[test]
fn more_than_mdts_and_flags_that_are_not_offered_are_invalid_fields_5_2_t_77() {
    test(|queue| async move {
        let invalid = final_status(0x002);
        for command in [read(0, 257), write(0, 257), IoCommand::Compare(rw(0, 257))] {
            // Too long by its block count alone, with an SGL that would be good or short.
            queue.expect(command.to_sqe(GOOD), 256, invalid).await;
            queue.expect(command.to_sqe(GOOD), 1, invalid).await;
        }
        queue.expect(read(0, 256).to_sqe(GOOD), 256, Status::SUCCESS).await;
        queue.expect(write(0, 256).to_sqe(GOOD), 256, Status::SUCCESS).await;
        for command in [read(0, 1), write(0, 1), IoCommand::Compare(rw(0, 1))] {
            queue.expect(with(command, GOOD, set12(PRACT)), 1, invalid).await;
            // Also with an SGL that is wrong: row 10 is before row 11.
            queue.expect(with(command, GOOD, set12(PRACT)), 2, invalid).await;
        }
        for command in [zeroes(0, 1), IoCommand::Verify(rw(0, 1))] {
            queue.expect(with(command, GOOD, set12(PRACT)), 0, invalid).await;
        }
        queue.expect(with(write(0, 1), GOOD, set12(DTYPE)), 1, invalid).await;
    });
}

#[test]
fn hints_are_taken_and_ignored_5_1() {
    test(|queue| async move {
        // LR, FUA, PRCHK and STC; DSM hints and DSPEC in CDW13, tags in CDW14 and 15.
        let hints = |sqe: &mut Sqe| {
            sqe.cdw12.set(sqe.cdw12() | 1 << 31 | 1 << 30 | 7 << 26 | 1 << 24);
            sqe.cdw13.set(0xffff_0007);
            sqe.cdw14.set(u32::MAX);
            sqe.cdw15.set(u32::MAX);
        };
        queue.expect(with(read(0, 1), GOOD, hints), 1, Status::SUCCESS).await;
        queue.expect(with(write(0, 1), GOOD, hints), 1, Status::SUCCESS).await;
        let deallocating =
            IoCommand::WriteZeroes { lba: 0, blocks: 1, deallocate: true, fua: true };
        queue.expect(deallocating.to_sqe(GOOD), 0, Status::SUCCESS).await;
    });
}

#[test]
fn an_sgl_that_does_not_fit_the_blocks_is_refused_t_26_t_75() {
    test(|queue| async move {
        let wrong = final_status(0x00f);
        for command in [read(0, 2), write(0, 2), IoCommand::Compare(rw(0, 2))] {
            for blocks in [0, 1, 3, 8] {
                queue.expect(command.to_sqe(GOOD), blocks, wrong).await;
            }
        }
        // Data in the capsule of a command that gives data.
        let status = ask(&queue.queue, read(0, 1).to_sqe(GOOD), Data::Out(&[0; 4096])).await.status;
        assert_eq!(status, final_status(0x002));
        queue.expect(read(0, 2).to_sqe(GOOD), 2, Status::SUCCESS).await;
    });
}

#[test]
fn deallocation_takes_the_payload_of_linux_and_checks_every_range_5_1_t_24() {
    test(|queue| async move {
        let range = DsmRange::new(0, 8);
        assert_eq!(queue.deallocate(GOOD, &[range], 1, 4096).await, Status::SUCCESS);
        assert_eq!(queue.deallocate(GOOD, &[range], 1, 16).await, Status::SUCCESS);
        assert_eq!(queue.deallocate(GOOD, &[range; 256], 256, 4096).await, Status::SUCCESS);
        assert_eq!(queue.deallocate(GOOD, &[range, range], 2, 16).await, final_status(0x00f));
        assert_eq!(queue.deallocate(GOOD, &[range; 255], 256, 4080).await, final_status(0x00f));
        // Beyond the count there may be anything.
        let garbage = DsmRange::new(u64::MAX, u32::MAX);
        assert_eq!(queue.deallocate(GOOD, &[range, garbage], 1, 4096).await, Status::SUCCESS);
        for bad in [DsmRange::new(BLOCKS, 1), DsmRange::new(BLOCKS - 1, 2), garbage] {
            let status = queue.deallocate(GOOD, &[range, range, bad], 3, 4096).await;
            assert_eq!(status, final_status(0x080), "{bad:?}");
        }
        assert_eq!(queue.deallocate(GOOD, &[DsmRange::new(0, 0)], 1, 4096).await, Status::SUCCESS);
        let command = IoCommand::DatasetManagement { ranges: 1, deallocate: true };
        queue.expect(command.to_sqe(GOOD), 0, final_status(0x00f)).await;
        let hint = IoCommand::DatasetManagement { ranges: 1, deallocate: false };
        queue.expect(hint.to_sqe(GOOD), 1, Status::SUCCESS).await;
    });
}

#[test]
fn a_disabled_controller_serves_no_io_and_failed_commands_leave_the_queue_usable_5_2_i_13() {
    test(|queue| async move {
        queue.expect(read(BLOCKS, 1).to_sqe(GOOD), 1, final_status(0x080)).await;
        queue.expect(write(0, 2).to_sqe(GOOD), 1, final_status(0x00f)).await;
        queue.expect(read(0, 1).to_sqe(GOOD), 1, Status::SUCCESS).await;
        let data = log(queue.controller.admin(), lid::ERROR_INFORMATION, 0, 128, true).await;
        let counts = data.good().data.chunks_exact(64).map(|entry| entry[0]).collect::<Vec<_>>();
        assert_eq!(counts, [2, 1], "both failures are in the error log");
    });
}
