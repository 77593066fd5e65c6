//! CONFORMANCE 1.7 over a real socket, rows T-80 to T-93: data that was not asked for, hosts that stop, vanish or
//! send noise, and what each of them gets.
#![allow(clippy::unwrap_used)]
#![allow(clippy::cast_possible_truncation, reason = "lengths of tests are small")]

mod common;

use std::io::Write;
use std::time::Duration;

use afs_fabric::codec::encode::Encoder;
use afs_fabric::{CloseReason, Limits, WireLimits};
use afs_nvme::Status;
use afs_nvme::command::Connect;
use afs_nvme::tcp::{Fes, PduType, flags};
use common::raw::{
    BOTH, NONE, Raw, data_header, expect_alive, flush, icreq, io_queue, read, server,
    write_in_capsule, writing,
};
use common::toy::STUCK_LBA;
use common::{Server, wait_for};

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

/// A small generator of noise: xorshift, so that a failure can be repeated.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn noise_and_cut_pdus_in_every_state_harm_nobody_else() {
    let server = server();
    let mut other = io_queue(&server);
    let mut noise = Noise(0x5eed);
    for round in 0..400 {
        let mut raw = match round % 5 {
            0 => Raw::open(server.address),
            1 => Raw::initialized(server.address, BOTH),
            2 => Raw::connected(server.address, NONE, 0),
            3 => Raw::connected(server.address, BOTH, 1),
            _ => writing(&server, 8192).0,
        };
        let mut bytes = match round % 3 {
            0 => Vec::new(),
            1 => raw.capsule(write_in_capsule(1, 0, 4096), &[1; 4096]),
            _ => data_header(&raw, 9, 0, 0, 4096),
        };
        bytes.extend((0..noise.next() % 64).map(|_| noise.next().to_le_bytes()[0]));
        bytes.truncate(noise.next() as usize % (bytes.len() + 1));
        // The target may have closed before all of it was sent.
        let _ = raw.stream.write_all(&bytes);
    }
    expect_alive(&mut other);
    drop(other);
    wait_for("all queue pairs to end", || {
        (server.shared.in_flight.load(std::sync::atomic::Ordering::SeqCst) == 0).then_some(())
    });
    server.closed(server.shared.queues.lock().unwrap().len());
    server.wait_for_full_pool();
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
