//! CONFORMANCE 1.7 over a real socket, rows T-60 to T-78: what a broken or hostile host sends as the header of a
//! PDU or in a capsule, and what it gets. `bad_data.rs` has the rest.
#![allow(clippy::unwrap_used)]
#![allow(clippy::cast_possible_truncation, reason = "lengths of tests are small")]

mod common;

use afs_fabric::CloseReason;
use afs_nvme::command::{AdminCommand, FabricsCommand};
use afs_nvme::tcp::PduType;
use afs_nvme::{Sgl, Sqe, Status};
use common::raw::{
    BOTH, NONE, Raw, data_header, expect_alive, flush, icreq, io_queue, read, server, write_by_r2t,
    write_in_capsule, writing,
};
use common::toy::STUCK_LBA;
use common::wait_for;

#[test]
fn t_1_icresp_is_128_bytes_and_equals_what_was_asked() {
    let server = server();
    for dgst in [0, 1, 2, 3, 0xff] {
        let mut raw = Raw::open(server.address);
        raw.send(&icreq(11, dgst));
        let response = raw.receive();
        assert_eq!(response.bytes[..8], [1, 0, 128, 0, 128, 0, 0, 0]);
        assert_eq!(response.bytes[8..12], [0, 0, 0, dgst & 3]);
        assert_eq!(response.bytes[12..16], (1_u32 << 20).to_le_bytes());
    }
}

#[test]
fn t_60_first_pdu_must_be_icreq_and_only_the_first() {
    let server = server();
    let mut raw = Raw::open(server.address);
    raw.command(flush(1), &[]);
    raw.expect_term(2, 0);
    let mut raw = Raw::initialized(server.address, NONE);
    raw.send(&icreq(11, 0));
    raw.expect_term(2, 0);
}

#[test]
fn t_62_icreq_fields() {
    let server = server();
    let faults = [
        (8, 1, 8),    // PFV
        (10, 32, 10), // HPDA
        (2, 127, 2),  // hlen
        (4, 129, 4),  // plen
        (4, 127, 4),
        (5, 1, 4),
        (1, 1, 1),  // a digest flag
        (3, 24, 3), // PDO
    ];
    for (at, byte, fei) in faults {
        let mut raw = Raw::open(server.address);
        raw.send(&icreq(at, byte));
        raw.expect_term(1, fei);
    }
    let mut raw = Raw::open(server.address);
    raw.send(&icreq(100, 1));
    assert_eq!(raw.receive().kind(), PduType::IcResp, "reserved bits are ignored");
}

#[test]
fn t_65_unknown_types_and_header_lengths() {
    let server = server();
    for kind in [1, 3, 5, 7, 8, 9, 10, 255] {
        let mut raw = io_queue(&server);
        raw.send(&[kind, 0, 24, 0, 24, 0, 0, 0]);
        raw.expect_term(1, 0);
    }
    for (kind, wrong) in [(2, 23), (4, 71), (4, 0), (6, 25), (6, 255)] {
        let mut raw = io_queue(&server);
        raw.send(&[kind, 0, wrong, 0, 255, 0, 0, 0]);
        raw.expect_term(1, 2);
    }
}

#[test]
fn t_67_data_offsets() {
    let server = server();
    // In-capsule data of 512 bytes: too early, misaligned, beyond the PDU, there without data.
    for (pdo, plen) in [(0, 584), (68, 584), (73, 585), (255, 200), (72, 72_u32)] {
        let mut raw = io_queue(&server);
        let mut bytes = vec![4, 0, 72, pdo];
        bytes.extend_from_slice(&plen.to_le_bytes());
        raw.send(&bytes);
        raw.expect_term(1, 3);
    }
    for pdo in [0, 20, 25, 255] {
        let (mut raw, _) = writing(&server, 4096);
        let mut bytes = vec![6, 0, 24, pdo];
        bytes.extend_from_slice(&100_u32.to_le_bytes());
        raw.send(&bytes);
        raw.expect_term(1, 3);
    }
}

#[test]
fn t_68_pdu_lengths_are_bounded_before_anything_is_read() {
    let server = server();
    let largest = [(4, 72, 72 + 4 + 128 + 16384 + 4), (6, 24, 24 + 4 + 128 + (1 << 20) + 4_u32)];
    for (kind, hlen, largest) in largest {
        for plen in [0, u32::from(hlen) - 1, largest + 1, u32::MAX] {
            let mut raw = io_queue(&server);
            let mut bytes = vec![kind, 0, hlen, hlen];
            bytes.extend_from_slice(&plen.to_le_bytes());
            raw.send(&bytes);
            raw.expect_term(1, 4);
        }
    }
    // With header digests, the header alone is too short.
    let mut raw = Raw::connected(server.address, BOTH, 1);
    raw.send(&[4, 1, 72, 0, 72, 0, 0, 0]);
    raw.expect_term(1, 4);
}

#[test]
fn t_69_digest_flags_must_be_as_negotiated() {
    let server = server();
    for (digests, pdu_flags, plen) in [
        (NONE, 1, 72_u32),
        (NONE, 2, 584),
        (BOTH, 0, 76),
        (BOTH, 1, 76 + 516), // data without its digest flag
        (BOTH, 3, 76),       // a data digest without data
    ] {
        let mut raw = Raw::connected(server.address, digests, 1);
        let mut bytes = vec![4, pdu_flags, 72, 0];
        bytes.extend_from_slice(&plen.to_le_bytes());
        raw.send(&bytes);
        raw.expect_term(1, 1);
    }
}

#[test]
fn t_70_wrong_header_digest_ends_the_connection_and_is_quoted() {
    let server = server();
    let mut raw = Raw::connected(server.address, BOTH, 1);
    let mut capsule = raw.capsule(flush(1), &[]);
    capsule[72..76].copy_from_slice(&[1, 2, 3, 4]);
    raw.send(&capsule);
    raw.expect_term(3, 0x0403_0201);
}

#[test]
fn t_70_wrong_data_digest_fails_only_its_command() {
    let server = server();
    let mut raw = Raw::connected(server.address, BOTH, 1);
    let mut capsule = raw.capsule(write_in_capsule(3, 0, 4096), &[5; 4096]);
    *capsule.last_mut().unwrap() ^= 1;
    raw.send(&capsule);
    let cqe = raw.receive().cqe();
    assert_eq!((cqe.cid(), cqe.status()), (3, Status::TRANSIENT_TRANSPORT_ERROR));
    expect_alive(&mut raw);
    // By R2T, in two pieces, the first of which is damaged: answered after the second.
    raw.command(write_by_r2t(4, 0, 8192), &[]);
    let ttag = raw.receive().r2t().ttag.get();
    for (offset, damage) in [(0, 1), (4096, 0)] {
        let mut piece = data_header(&raw, 4, ttag, offset, 4096);
        piece.extend_from_slice(&[7; 4096]);
        raw.encoder.data_digest(&mut piece, &[7; 4096]);
        *piece.last_mut().unwrap() ^= damage;
        raw.send(&piece);
    }
    let cqe = raw.receive().cqe();
    assert_eq!((cqe.cid(), cqe.status()), (4, Status::TRANSIENT_TRANSPORT_ERROR));
    expect_alive(&mut raw);
    assert!(server.shared.memory.lock().unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn t_72_capsule_data_must_be_what_the_sgl_says() {
    let server = server();
    for (sgl, bytes) in [(4096, 4092), (4096, 4100), (4096, 0), (0, 512)] {
        let mut raw = io_queue(&server);
        raw.command(write_in_capsule(1, 0, sgl), &vec![0; bytes]);
        raw.expect_term(1, 4);
    }
    let mut raw = io_queue(&server);
    raw.command(write_by_r2t(1, 0, 4096), &[0; 4096]);
    raw.expect_term(1, 4);
}

#[test]
fn t_73_capsule_offset_and_size() {
    let server = server();
    let mut raw = io_queue(&server);
    let mut sqe = write_in_capsule(1, 0, 4096);
    sqe.sgl.address.set(8);
    raw.command(sqe, &[0; 4096]);
    raw.expect_term(6, 32);
    // 8 KiB is the limit of admin queues and of Fabrics commands.
    let mut raw = Raw::connected(server.address, NONE, 0);
    let mut sqe = Sqe::new(9);
    for (bytes, status) in
        [(8196, Status::SGL_OFFSET_INVALID.dnr()), (16384, Status::SGL_OFFSET_INVALID.dnr())]
    {
        sqe.sgl = Sgl::in_capsule(bytes);
        raw.command(sqe, &vec![0; bytes as usize]);
        assert_eq!(raw.receive().cqe().status(), status);
    }
    let mut sqe =
        AdminCommand::SetFeatures { fid: 7, save: false, cdw11: 0x1_0001, cdw12: 0 }.to_sqe(0);
    sqe.sgl = Sgl::in_capsule(8192);
    raw.command(sqe, &[0; 8192]);
    assert_eq!(raw.receive().cqe().status(), Status::SUCCESS);
}

#[test]
fn t_75_capsule_data_on_a_command_that_takes_none() {
    let server = server();
    let mut raw = io_queue(&server);
    for sqe in [read(5, 0, 4096), flush(5)] {
        let mut sqe = sqe;
        sqe.sgl = Sgl::in_capsule(4096);
        raw.command(sqe, &[0; 4096]);
        let cqe = raw.receive().cqe();
        assert_eq!((cqe.cid(), cqe.status()), (5, Status::INVALID_FIELD.dnr()));
    }
    expect_alive(&mut raw);
    assert_eq!(*server.shared.refused.lock().unwrap(), [Status::INVALID_FIELD.dnr(); 2]);
}

#[test]
fn t_76_bad_sgl_types_and_t_25_psdt() {
    let server = server();
    let mut raw = io_queue(&server);
    for kind in [0x00, 0x02, 0x20, 0x30, 0x40, 0x4f, 0x5b, 0xff] {
        let mut sqe = write_by_r2t(6, 0, 4096);
        sqe.sgl.kind = kind;
        raw.command(sqe, &[]);
        assert_eq!(raw.receive().cqe().status(), Status::SGL_DESCRIPTOR_TYPE_INVALID.dnr());
    }
    for psdt in [0x00, 0x80, 0xc0] {
        let mut sqe = write_by_r2t(6, 0, 4096);
        sqe.flags = psdt;
        raw.command(sqe, &[]);
        assert_eq!(raw.receive().cqe().status(), Status::INVALID_FIELD.dnr());
    }
    expect_alive(&mut raw);
}

#[test]
fn t_77_longer_than_mdts() {
    let server = server();
    let mut raw = io_queue(&server);
    for bytes in [(1 << 20) + 4096, u32::MAX] {
        for sqe in [write_by_r2t(8, 0, bytes), read(8, 0, bytes)] {
            raw.command(sqe, &[]);
            assert_eq!(raw.receive().cqe().status(), Status::INVALID_FIELD.dnr());
        }
    }
    expect_alive(&mut raw);
}

#[test]
fn t_78_more_commands_than_the_queue_is_deep() {
    let server = server();
    let mut raw = io_queue(&server);
    for cid in 0..8 {
        raw.command(read(cid, STUCK_LBA, 4096), &[]);
    }
    wait_for("all to be started", || {
        (server.shared.in_flight.load(std::sync::atomic::Ordering::SeqCst) == 8).then_some(())
    });
    raw.command(read(8, STUCK_LBA, 4096), &[]);
    raw.expect_close();
    assert_eq!(server.closed(1), [CloseReason::TooManyCommands]);
}

#[test]
fn t_78_commands_before_connect_are_answered() {
    let server = server();
    let mut raw = Raw::initialized(server.address, NONE);
    let mut capsules = raw.capsule(flush(1), &[]);
    let property =
        FabricsCommand::PropertyGet { offset: 0x1c, size: afs_nvme::fabrics::PropertySize::Four };
    capsules.extend(raw.capsule(property.to_sqe(), &[]));
    raw.send(&capsules);
    assert_eq!(raw.receive().cqe().status(), Status::COMMAND_SEQUENCE_ERROR);
    assert_eq!(raw.receive().cqe().status(), Status::SUCCESS);
}

#[test]
fn t_78_duplicate_command_id() {
    let server = server();
    let mut raw = io_queue(&server);
    raw.command(read(3, STUCK_LBA, 4096), &[]);
    raw.command(flush(3), &[]);
    raw.expect_close();
    assert_eq!(server.closed(1), [CloseReason::DuplicateCommandId(3)]);
    assert_eq!(server.shared.in_flight.load(std::sync::atomic::Ordering::SeqCst), 0);
}
