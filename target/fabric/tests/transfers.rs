//! Commands between the host side and the target side of this crate, over loopback.
#![allow(clippy::unwrap_used)]
#![allow(clippy::cast_possible_truncation, reason = "lengths of tests are small")]

mod common;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use afs_fabric::{
    CloseReason, Digests, HostController, HostData, HostError, HostOptions, HostQueue, Limits,
    read_discovery_log,
};
use afs_nvme::Status;
use afs_nvme::command::{AdminCommand, IoCommand, Rw};
use afs_nvme::tcp::PduType;
use afs_reactor::Local;
use common::raw::{NONE, Raw, data_header, flush, io_queue, read, write_in_capsule, writing};
use common::toy::{DISCOVERY_ENTRIES, FAILING_LBA, SLOW_LBA, STANDSTILL_LBA, STUCK_LBA};
use common::{Server, connect, options, wait_for};

/// Long enough for an answer on a busy machine.
const KATO_MS: u32 = 1000;

/// Flag of the last H2CData PDU of an R2T.
const LAST_PDU: u8 = 1 << 2;

const SIZES: [usize; 6] = [4096, 8192, 16384, 20480, 131_072, 1 << 20];

fn all_digests() -> impl Iterator<Item = Digests> {
    (0..4).map(Digests::from_wire)
}

async fn open(
    address: SocketAddr,
    local: &Local,
    options: HostOptions,
) -> (HostController, HostQueue) {
    let controller = connect(address, local, options).await.unwrap();
    let queue = controller.io_queues(1).await.unwrap().remove(0);
    (controller, queue)
}

fn pattern(buffer: &mut [u8], seed: usize) {
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = (index / 4096 + index + seed * 31) as u8;
    }
}

async fn write_and_read_back(queue: &HostQueue, bytes: usize, lba: u64, seed: usize) {
    let pool = queue.local().pool();
    let mut data = pool.alloc(bytes).await;
    pattern(&mut data, seed);
    let data = data.freeze();
    queue.write(1, lba, data.clone()).await.unwrap();
    let back = queue.read(1, lba, pool.alloc(bytes).await).await.unwrap();
    assert!(*back == *data, "{bytes} bytes at {lba}");
}

#[test]
fn every_size_survives_under_every_digest_in_capsule_and_by_r2t() {
    let server = Server::start(Limits::default());
    for digests in all_digests() {
        for in_capsule_bytes in [0, 4096, 16384] {
            server.host(move |local, address| async move {
                let options = HostOptions { digests, in_capsule_bytes, ..HostOptions::default() };
                let (_controller, queue) = open(address, &local, options).await;
                for (seed, bytes) in SIZES.into_iter().enumerate() {
                    write_and_read_back(&queue, bytes, 3, seed).await;
                }
            });
        }
    }
    server.wait_for_full_pool();
}

#[test]
fn reads_honour_every_padding_that_a_host_may_ask_for() {
    let server = Server::start(Limits::default());
    for hpda in [1, 2, 7, 15, 31] {
        server.host(move |local, address| async move {
            let digests = Digests { header: hpda % 2 == 1, data: true };
            let options = HostOptions { hpda, digests, ..HostOptions::default() };
            let (_controller, queue) = open(address, &local, options).await;
            write_and_read_back(&queue, 4096, 0, 1).await;
            write_and_read_back(&queue, 1 << 20, 0, 2).await;
        });
    }
}

#[test]
fn success_flag_replaces_the_completion_when_flow_control_is_off() {
    for (disable_flow_control, success_flag) in [(true, false), (false, true)] {
        let server = Server::start(Limits { success_flag, ..Limits::default() });
        server.host(move |local, address| async move {
            let options = HostOptions { disable_flow_control, ..HostOptions::default() };
            let (_controller, queue) = open(address, &local, options).await;
            write_and_read_back(&queue, 4096, 0, 1).await;
            write_and_read_back(&queue, 1 << 20, 0, 2).await;
        });
    }
}

#[test]
fn many_commands_in_flight_each_get_their_own_data() {
    let server = Server::start(Limits::default());
    for digests in all_digests() {
        server.host(move |local, address| async move {
            let options = HostOptions {
                digests,
                in_capsule_bytes: 8192,
                entries: 65,
                ..HostOptions::default()
            };
            let (_controller, queue) = open(address, &local, options).await;
            let mut tasks = Vec::new();
            for worker in 0..100_u64 {
                let queue = queue.clone();
                let bytes = SIZES[worker as usize % 4];
                tasks.push(local.spawn_local(async move {
                    for round in 0..20 {
                        write_and_read_back(&queue, bytes, worker * 5, round).await;
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
    server.wait_for_full_pool();
}

#[test]
fn writes_wait_for_buffers_when_the_pool_is_empty() {
    // One MiB of pool, 32 writers of 256 KiB and 32 of 16 KiB in capsule: R2Ts are withheld (T-35).
    let server = Server::with_pool(Limits::default(), 1 << 20);
    server.host(|local, address| async move {
        let (_controller, queue) = open(address, &local, HostOptions::default()).await;
        let mut tasks = Vec::new();
        for worker in 0..64_u64 {
            let queue = queue.clone();
            let bytes = if worker % 2 == 0 { 256 << 10 } else { 16 << 10 };
            tasks.push(local.spawn_local(async move {
                let pool = queue.local().pool().clone();
                for round in 0..8 {
                    let mut data = pool.alloc(bytes).await;
                    pattern(&mut data, round);
                    queue.write(1, 0, data.freeze()).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    server.wait_for_full_pool();
}

#[test]
fn admin_queue_answers_while_io_holds_all_buffers() {
    let server = Server::with_pool(Limits::default(), 1 << 20);
    server.host(|local, address| async move {
        let options = HostOptions { in_capsule_bytes: 0, ..HostOptions::default() };
        let (controller, queue) = open(address, &local, options).await;
        for _ in 0..4 {
            let queue = queue.clone();
            drop(local.spawn_local(async move {
                let data = queue.local().pool().alloc(1 << 20).await.freeze();
                let _ = queue.write(1, STUCK_LBA, data).await;
            }));
        }
        for _ in 0..100 {
            controller
                .admin()
                .command(AdminCommand::KeepAlive.to_sqe(0), HostData::None)
                .await
                .unwrap();
            controller.identify().await.unwrap();
        }
    });
}

#[test]
fn command_that_fails_early_is_answered_after_its_data_has_come() {
    let server = Server::start(Limits::default());
    server.host(|local, address| async move {
        let options = HostOptions { in_capsule_bytes: 0, ..HostOptions::default() };
        let (_controller, queue) = open(address, &local, options).await;
        for _ in 0..20 {
            let data = local.pool().alloc(1 << 20).await.freeze();
            // The host side ends the connection when a completion overtakes the data of its R2T.
            let error = queue.write(1, FAILING_LBA, data).await.unwrap_err();
            assert!(
                matches!(error, HostError::Status { status: Status::WRITE_FAULT, .. }),
                "{error}"
            );
        }
        write_and_read_back(&queue, 1 << 20, 0, 1).await;
    });
    server.wait_for_full_pool();
}

#[test]
fn longer_transfers_than_mdts_are_refused_without_harm() {
    let server = Server::start(Limits {
        wire: afs_fabric::WireLimits { max_transfer: 128 << 10, ..Default::default() },
        ..Limits::default()
    });
    server.host(|local, address| async move {
        let (_controller, queue) = open(address, &local, HostOptions::default()).await;
        let sqe = IoCommand::Read(Rw { lba: 0, blocks: 64, fua: false }).to_sqe(1);
        let buffer = local.pool().alloc(256 << 10).await;
        let (cqe, _) = queue.submit(sqe, HostData::In(buffer)).await.unwrap();
        assert_eq!(cqe.status(), Status::INVALID_FIELD.dnr(), "CONFORMANCE T-77");
        write_and_read_back(&queue, 128 << 10, 0, 1).await;
    });
}

#[test]
fn a_batch_of_commands_costs_one_receive_and_one_send() {
    let server = Server::start(Limits::default());
    let mut raw = Raw::connected(server.address, NONE, 1);
    let socket_calls = || {
        // A task of the reactor runs after the round that is under way, so all of it is counted.
        server.target().run(|_| async {}).unwrap();
        server.target().stats().socket_calls
    };
    let before = socket_calls();
    let mut batch = Vec::new();
    for cid in 0..8 {
        batch.extend(raw.capsule(read(cid, 0, 4096), &[]));
    }
    raw.send(&batch);
    for cid in 0..8 {
        assert_eq!(raw.receive().kind(), PduType::C2hData);
        assert_eq!(raw.receive().cqe().cid(), cid);
    }
    assert_eq!(socket_calls() - before, 2, "no second receive only to see that there is no more");
}

#[test]
fn discovery_log_that_changes_while_it_is_read_is_read_again() {
    let server = Server::start(Limits::default());
    let log = server.host(|local, address| async move {
        let controller = connect(address, &local, HostOptions::default()).await.unwrap();
        read_discovery_log(&controller).await.unwrap()
    });
    let ports: Vec<u64> = log.entries.iter().map(|entry| u64::from(entry.portid.get())).collect();
    assert_eq!(log.generation, 2);
    assert_eq!(ports, (0..DISCOVERY_ENTRIES).collect::<Vec<_>>());
}

#[test]
fn events_wait_while_keep_alive_goes_on_until_shutdown() {
    let server = Server::start(Limits::default());
    server.host(|local, address| async move {
        let mut options = options(HostOptions::default());
        options.kato_ms = KATO_MS;
        let controller = Rc::new(HostController::connect(address, &local, options).await.unwrap());
        let waiting = Rc::clone(&controller);
        let event = local.spawn_local(async move { waiting.next_event().await });
        let before = controller.admin().counters().commands;
        while controller.admin().counters().commands < before + 10 {
            tokio::task::yield_now().await;
        }
        assert!(!event.is_finished());
        event.abort();
        let _ = event.await;
        Rc::into_inner(controller).unwrap().shutdown().await.unwrap();
    });
    assert_eq!(server.closed(1), [CloseReason::PeerClosed]);
}

/// A read that takes exactly what the socket holds leaves it to the next one to find that nothing is left. Whatever comes after that
/// must be heard of: it was not, unless another command of the queue ended, until the time limit of half a minute.
#[test]
fn what_follows_a_read_of_exactly_all_is_heard_of() {
    // As much as the target reads ahead of a large transfer.
    const AHEAD: usize = 4096;
    const TRANSFER: u32 = 32 << 10;
    let server = Server::start(Limits::default());
    let (mut raw, ttag) = writing(&server, TRANSFER);
    let mut header = data_header(&raw, 9, ttag, 0, TRANSFER);
    header[1] |= LAST_PDU;
    raw.send(&header);
    let mut other = io_queue(&server);
    for cid in [1, 2] {
        // The target has turned to the header when it answers these.
        other.command(flush(cid), &[]);
        other.receive();
    }
    other.command(write_in_capsule(3, STANDSTILL_LBA, 4096), &[0; 4096]);
    wait_for("the reactor to stand still", || {
        server.shared.stands_still.load(Ordering::SeqCst).then_some(())
    });
    let next = raw.capsule(write_in_capsule(10, 0, 4096), &[0; 4096]);
    let (begun, rest) = next.split_at(AHEAD);
    raw.send(&[&vec![7; TRANSFER as usize], begun].concat());
    server.shared.go_on.store(true, Ordering::SeqCst);
    assert_eq!(raw.receive().cqe().cid(), 9);
    raw.send(rest);
    assert_eq!(raw.receive().cqe().cid(), 10);
}

/// The connection stays, and so does the kernel's end of it; only nobody answers. So does a connection over RDMA whose other end
/// is gone, where the device tries again for ever.
#[test]
fn all_queues_of_a_controller_that_falls_silent_end() {
    let server = Server::start(Limits::default());
    let shared = Arc::clone(&server.shared);
    server.host(move |local, address| async move {
        let mut options = options(HostOptions::default());
        options.kato_ms = KATO_MS;
        let controller = HostController::connect(address, &local, options).await.unwrap();
        let queue = controller.io_queues(1).await.unwrap().remove(0);
        let data = local.pool().alloc(4096).await.freeze();
        assert_eq!(queue.write(1, STANDSTILL_LBA, data).await, Err(HostError::Closed));
        assert!(shared.stands_still.load(Ordering::SeqCst));
        assert_eq!(controller.admin().wait_closed().await, HostError::Closed);
        assert_eq!(queue.closed(), Some(HostError::Closed));
        shared.go_on.store(true, Ordering::SeqCst);
    });
    server.closed(2);
}

/// A node asks so for what it forwards: while it waits its host may go elsewhere (CONFORMANCE M-45).
#[test]
fn a_command_that_is_withdrawn_while_it_waits_for_its_turn_is_not_sent() {
    let server = Server::start(Limits::default());
    let shared = Arc::clone(&server.shared);
    server.host(move |local, address| async move {
        let (_controller, queue) =
            open(address, &local, HostOptions { entries: 2, ..HostOptions::default() }).await;
        let flush = || (IoCommand::Flush.to_sqe(1), HostData::None);
        let (withdrawn, asked) = (Cell::new(false), Cell::new(0));
        let is_withdrawn = || {
            asked.set(asked.get() + 1);
            withdrawn.get()
        };
        let data = local.pool().alloc(4096).await.freeze();
        let (_, waited, ()) = tokio::join!(
            biased;
            queue.write(1, SLOW_LBA, data),
            queue.submit_unless(is_withdrawn, flush().0, flush().1),
            async {
                assert_eq!(asked.get(), 0, "its turn has not come");
                withdrawn.set(true);
                shared.disk.add_permits(1);
            }
        );
        assert_eq!((waited.err(), asked.get()), (Some(HostError::Withdrawn), 1));
        let sent = queue.counters().send_calls;
        assert!(queue.submit_unless(|| true, flush().0, flush().1).await.is_err());
        assert_eq!(queue.counters().send_calls, sent, "nothing is sent");
        // It kept nobody's turn.
        queue.flush(1).await.unwrap();
    });
}

#[test]
fn commands_of_a_queue_that_is_closed_end_with_the_reason() {
    let server = Server::start(Limits::default());
    let shared = Arc::clone(&server.shared);
    server.host(move |local, address| async move {
        let (_controller, queue) = open(address, &local, HostOptions::default()).await;
        let stuck = queue.clone();
        let read = local.spawn_local(async move {
            let buffer = stuck.local().pool().alloc(4096).await;
            stuck.read(1, STUCK_LBA, buffer).await.err()
        });
        queue.flush(1).await.unwrap();
        shared.queues.lock().unwrap()[1].close(CloseReason::Requested("test"));
        assert_eq!(queue.wait_closed().await, HostError::Closed);
        assert_eq!(read.await.unwrap(), Some(HostError::Closed));
        assert_eq!(queue.flush(1).await, Err(HostError::Closed));
    });
}
