//! Every row of CONFORMANCE 1.7 over a real socket: what a broken or hostile host sends, and what it gets.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::time::Duration;

use afs_fabric::codec::encode::{DataPiece, Encoder};
use afs_fabric::{CloseReason, Digests, Limits, WireLimits};
use afs_nvme::command::{AdminCommand, Connect, FabricsCommand, IoCommand};
use afs_nvme::tcp::{Fes, IcReq, PduType, flags};
use afs_nvme::{Sgl, Sqe, Status};
use common::raw::{Raw, read, write_by_r2t, write_in_capsule};
use common::toy::STUCK_LBA;
use common::{Server, wait_for};
use zerocopy::IntoBytes;

const NONE: Digests = Digests { header: false, data: false };
const BOTH: Digests = Digests { header: true, data: true };

fn server() -> Server {
    Server::start(Limits::default())
}

fn io_queue(server: &Server) -> Raw {
    Raw::connected(server.address, NONE, 1)
}

fn flush(cid: u16) -> Sqe {
    let mut sqe = IoCommand::Flush.to_sqe(1);
    sqe.cid.set(cid);
    sqe
}

/// An ICReq with one byte changed.
fn icreq(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = IcReq::new(0).as_bytes().to_vec();
    bytes[at] = byte;
    bytes
}

/// Header of an H2CData PDU, data to follow.
fn data_header(raw: &Raw, cid: u16, ttag: u16, offset: u32, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let piece = DataPiece { cid, ttag, offset, length, flags: 0 };
    raw.encoder.data(&mut bytes, PduType::H2cData, piece);
    bytes
}

/// An I/O queue with a write of `bytes` (command 9) whose R2T has come; its TTAG.
fn writing(server: &Server, bytes: u32) -> (Raw, u16) {
    let mut raw = io_queue(server);
    raw.command(write_by_r2t(9, 0, bytes), &[]);
    let r2t = raw.receive().r2t();
    assert_eq!((r2t.cccid.get(), r2t.r2to.get(), r2t.r2tl.get()), (9, 0, bytes));
    (raw, r2t.ttag.get())
}

/// Asserts that the queue still works.
#[track_caller]
fn expect_alive(raw: &mut Raw) {
    raw.command(flush(77), &[]);
    let cqe = raw.receive().cqe();
    assert_eq!((cqe.cid(), cqe.status()), (77, Status::SUCCESS));
}

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

#[test]
fn t_80_transfer_tags() {
    let server = server();
    // Out of range; never opened; of another command; all bytes had.
    for (cid, ttag, fes, fei) in [(9, 8, 2, 0), (9, 0xffff, 2, 0), (9, 7, 1, 10), (8, 0, 2, 0)] {
        let (mut raw, open) = writing(&server, 4096);
        assert_eq!(open, 0);
        let header = data_header(&raw, cid, ttag, 0, 4096);
        raw.send(&header);
        raw.expect_term(fes, fei);
    }
    let (mut raw, ttag) = writing(&server, 4096);
    let mut piece = data_header(&raw, 9, ttag, 0, 4096);
    piece.extend_from_slice(&[1; 4096]);
    raw.send(&piece);
    assert_eq!(raw.receive().cqe().status(), Status::SUCCESS);
    raw.send(&piece);
    raw.expect_term(1, 10);
}

#[test]
fn t_83_ranges_of_data() {
    let server = server();
    for (offset, length, fes, fei) in
        [(4096, 4096, 4, 12), (0, 12288, 4, 12), (u32::MAX, 4096, 4, 12), (0, 0, 1, 16)]
    {
        let (mut raw, ttag) = writing(&server, 8192);
        let mut header = data_header(&raw, 9, ttag, offset, length.max(1));
        if length == 0 {
            header[4..8].copy_from_slice(&24_u32.to_le_bytes());
        }
        header[16..20].copy_from_slice(&length.to_le_bytes());
        raw.send(&header);
        raw.expect_term(fes, fei);
    }
    let (mut raw, ttag) = writing(&server, 8192);
    let mut header = data_header(&raw, 9, ttag, 0, 4096);
    header[16..20].copy_from_slice(&4092_u32.to_le_bytes());
    raw.send(&header);
    raw.expect_term(1, 4);
    // A second piece that does not continue the first.
    let (mut raw, ttag) = writing(&server, 8192);
    let mut piece = data_header(&raw, 9, ttag, 0, 4096);
    piece.extend_from_slice(&[0; 4096]);
    piece.extend(data_header(&raw, 9, ttag, 0, 4096));
    raw.send(&piece);
    raw.expect_term(4, 12);
}

#[test]
fn t_83_more_than_maxh2cdata() {
    let wire = WireLimits { max_h2c_data: 4096, ..WireLimits::default() };
    let server = Server::start(Limits { wire, ..Limits::default() });
    let (mut raw, ttag) = writing(&server, 8192);
    let header = data_header(&raw, 9, ttag, 0, 4100);
    raw.send(&header);
    raw.expect_term(5, 16);
}

#[test]
fn t_85_last_flag_early_is_refused_and_missing_is_forgiven() {
    let server = server();
    let (mut raw, ttag) = writing(&server, 8192);
    for offset in [0, 4096] {
        let mut piece = data_header(&raw, 9, ttag, offset, 4096);
        piece.extend_from_slice(&[3; 4096]);
        raw.send(&piece);
    }
    assert_eq!(raw.receive().cqe().status(), Status::SUCCESS, "LAST was missing");
    let (mut raw, ttag) = writing(&server, 8192);
    let mut header = data_header(&raw, 9, ttag, 0, 4096);
    header[1] |= flags::LAST;
    raw.send(&header);
    raw.expect_term(1, 1);
}

#[test]
fn t_86_data_for_a_command_that_takes_none() {
    let server = server();
    let mut raw = io_queue(&server);
    raw.command(read(4, STUCK_LBA, 4096), &[]);
    let header = data_header(&raw, 4, 0, 0, 4096);
    raw.send(&header);
    raw.expect_term(2, 0);
}

#[test]
fn t_87_term_request_of_the_host() {
    let server = server();
    let mut raw = io_queue(&server);
    let mut term = Vec::new();
    Encoder::term(&mut term, PduType::H2cTermReq, Fes::DataOutOfRange, 12, &[1; 24]);
    raw.send(&term);
    raw.expect_close();
    assert_eq!(server.closed(1), [CloseReason::TerminatedByHost { fes: 4, fei: 12 }]);
    for plen in [23, 153_u32] {
        let mut raw = io_queue(&server);
        let mut bytes = vec![2, 0, 24, 0];
        bytes.extend_from_slice(&plen.to_le_bytes());
        raw.send(&bytes);
        raw.expect_term(1, 4);
    }
}

#[test]
fn t_87_term_request_followed_by_close_is_still_told() {
    let server = server();
    let mut raw = io_queue(&server);
    let mut term = Vec::new();
    Encoder::term(&mut term, PduType::H2cTermReq, Fes::HeaderDigest, 7, &[1; 24]);
    raw.send(&term);
    drop(raw);
    assert_eq!(server.closed(1), [CloseReason::TerminatedByHost { fes: 3, fei: 7 }]);
}

#[test]
fn t_89_pdus_after_our_term_request_are_ignored() {
    let server = server();
    let mut raw = io_queue(&server);
    let mut bytes = vec![255, 0, 24, 0, 24, 0, 0, 0];
    bytes.extend(raw.capsule(write_in_capsule(1, 0, 4096), &[9; 4096]));
    raw.send(&bytes);
    assert_eq!(raw.receive().term().0, 1);
    // The target may close at any time now.
    let more = raw.capsule(write_in_capsule(2, 0, 4096), &[9; 4096]);
    let _ = raw.stream.write_all(&more);
    server.closed(1);
    assert!(server.shared.memory.lock().unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn t_92_close_drops_what_is_in_flight() {
    let server = server();
    let (mut raw, ttag) = writing(&server, 8192);
    raw.command(read(1, STUCK_LBA, 4096), &[]);
    let mut half = data_header(&raw, 9, ttag, 0, 8192);
    half.extend_from_slice(&[1; 5000]);
    raw.send(&half);
    drop(raw);
    assert_eq!(server.closed(1), [CloseReason::PeerClosed]);
    assert_eq!(server.shared.in_flight.load(std::sync::atomic::Ordering::SeqCst), 0);
    server.wait_for_full_pool();
}

fn impatient() -> Limits {
    Limits {
        icreq_timeout: Duration::from_millis(50),
        connect_timeout: Duration::from_millis(50),
        stall_timeout: Duration::from_millis(50),
        linger_timeout: Duration::from_millis(50),
        ..Limits::default()
    }
}

#[test]
fn t_8_handshakes_have_deadlines() {
    let server = Server::start(impatient());
    let mut silent = Raw::open(server.address);
    silent.expect_close();
    let mut half = Raw::open(server.address);
    half.send(&icreq(11, 0)[..100]);
    half.expect_close();
    assert_eq!(server.closed(2), [CloseReason::NoIcRequest, CloseReason::NoIcRequest]);
    let mut unconnected = Raw::initialized(server.address, NONE);
    unconnected.expect_close();
    assert_eq!(server.closed(3)[2], CloseReason::NoConnect);
}

#[test]
fn t_89_hosts_that_stop_half_way_are_given_up() {
    let server = Server::start(impatient());
    let mut in_header = io_queue(&server);
    let capsule = in_header.capsule(flush(1), &[]);
    in_header.send(&capsule[..30]);
    in_header.expect_close();
    let (mut before_data, _) = writing(&server, 4096);
    before_data.expect_close();
    let (mut in_data, ttag) = writing(&server, 4096);
    let mut half = data_header(&in_data, 9, ttag, 0, 4096);
    half.extend_from_slice(&[0; 100]);
    in_data.send(&half);
    in_data.expect_close();
    assert_eq!(
        server.closed(3),
        [CloseReason::Stalled, CloseReason::Stalled, CloseReason::Stalled]
    );
    server.wait_for_full_pool();
}

#[test]
fn t_89_idle_hosts_are_left_alone() {
    let server = Server::start(impatient());
    let mut idle = io_queue(&server);
    idle.command(read(1, STUCK_LBA, 4096), &[]);
    // A second host that does get stalled shows that several limits have passed.
    for _ in 0..3 {
        writing(&server, 4096).0.expect_close();
    }
    expect_alive(&mut idle);
}

#[test]
fn t_89_host_that_never_reads_is_bounded_and_given_up() {
    let server = Server::start(impatient());
    let mut raw = io_queue(&server);
    for round in 0..u16::MAX {
        let capsule = raw.capsule(read(round, 0, 1 << 20), &[]);
        if raw.stream.write_all(&capsule).is_err() {
            break;
        }
        if !server.shared.closed.lock().unwrap().is_empty() {
            break;
        }
    }
    let reason = server.closed(1).remove(0);
    assert!(
        matches!(reason, CloseReason::Stalled | CloseReason::TooManyCommands),
        "no more than the queue depth is held: {reason:?}"
    );
    server.wait_for_full_pool();
}

#[test]
fn t_89_linger_after_term_request_ends() {
    let server = Server::start(impatient());
    let mut raw = io_queue(&server);
    raw.send(&[255, 0, 24, 0, 24, 0, 0, 0]);
    raw.receive().term();
    // Never closing from this side: the target's socket goes away, and a write finds out.
    wait_for("the socket to go away", || raw.stream.write_all(&[0]).is_err().then_some(()));
}

#[test]
fn sqhd_counts_completions_modulo_the_queue_unless_flow_control_is_off() {
    let server = server();
    let mut raw = io_queue(&server);
    for round in 2..20 {
        raw.command(flush(round), &[]);
        assert_eq!(
            raw.receive().cqe().sq_head.get(),
            round % 8,
            "Connect was the first completion"
        );
    }
    let mut raw = Raw::initialized(server.address, NONE);
    let connect = Connect { qid: 1, sqsize: 7, disable_sq_flow: true, kato_ms: 0 };
    raw.command(connect.to_sqe(), &[0; 1024]);
    assert_eq!(raw.receive().cqe().sq_head.get(), 0xffff);
}

#[test]
fn thousands_of_half_open_connections_disturb_nobody() {
    let limits = Limits { half_open_per_peer: 256, half_open_total: 512, ..Limits::default() };
    let server = Server::start(limits);
    let mut open = Vec::new();
    for index in 0..10_000 {
        let mut raw = Raw::open(server.address);
        if index % 3 == 0 {
            raw.send(&icreq(0, 0)[..index % 128]);
        }
        open.push(raw);
        if open.len() > 400 {
            open.remove(0);
        }
    }
    let mut raw = io_queue(&server);
    expect_alive(&mut raw);
    drop(open);
    server.closed(9_000);
}
