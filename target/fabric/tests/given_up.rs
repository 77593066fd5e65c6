//! CONFORMANCE M-45: a command of a host that has given its connection up is recognised as such, though the reactor stood still
//! between the arrival of the command and its turn, and has not looked for news since.
#![allow(clippy::unwrap_used)]
#![allow(clippy::cast_possible_truncation, reason = "lengths of tests are small")]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use afs_fabric::{HostOptions, Limits};
use common::raw::{Raw, io_queue, server, write_in_capsule};
use common::toy::{ASKING_LATE_LBA, ASKING_LBA, SLOW_LBA, STANDSTILL_LBA, pool_waits};
use common::{Server, connect, wait_for};

/// What the target knows of a host may be 10 ms old.
const STALE: Duration = Duration::from_millis(20);

/// Has the reactor stand still with a further write at hand; then `meanwhile` happens. Whether the host was found to be there when
/// the write had its turn.
fn found_there(meanwhile: impl FnOnce(&Server, Raw) -> Option<Raw>) -> bool {
    let server = server();
    let mut raw = io_queue(&server);
    let data = [0; 4096];
    let mut both = raw.capsule(write_in_capsule(1, STANDSTILL_LBA, 4096), &data);
    both.extend(raw.capsule(write_in_capsule(2, ASKING_LBA, 4096), &data));
    raw.send(&both);
    wait_for("the reactor to stand still", || {
        server.shared.stands_still.load(Ordering::SeqCst).then_some(())
    });
    let since = Instant::now();
    let raw = meanwhile(&server, raw);
    wait_for("what is known to be old", || (since.elapsed() > STALE).then_some(()));
    server.shared.go_on.store(true, Ordering::SeqCst);
    let found =
        wait_for("the write's turn", || server.shared.host_there.lock().unwrap().first().copied());
    drop(raw);
    found
}

#[test]
fn m_45_a_host_that_closed_while_the_reactor_stood_still_is_gone() {
    assert!(!found_there(|_, raw| {
        drop(raw);
        None
    }));
}

#[test]
fn m_45_a_host_that_waits_is_there() {
    assert!(found_there(|_, raw| Some(raw)));
}

#[test]
fn m_45_a_queue_that_is_to_be_closed_has_no_host() {
    assert!(!found_there(|server, raw| {
        let closers = server.shared.queues.lock().unwrap();
        closers.iter().for_each(|it| it.close(afs_fabric::CloseReason::Requested("a test")));
        Some(raw)
    }));
}

/// While a command waits for a buffer its connection is not read, and nothing that the reactor hears of it is heard.
#[test]
fn m_45_a_host_that_closed_while_a_command_waited_for_a_buffer_is_gone() {
    const POOL_BYTES: usize = 1 << 20;
    /// As much as may come in a capsule.
    const BYTES: usize = 16 << 10;
    /// More than the pool and the reserve hold.
    const FILLERS: usize = 1000;
    let server = Server::with_pool(Limits::default(), POOL_BYTES);
    let waits = |count: u64| {
        wait_for("a command to wait for a buffer", || {
            let waits = server.target().run(|_| async { pool_waits() }).unwrap();
            (waits == count).then_some(())
        });
    };
    let mut raw = io_queue(&server);
    raw.command(write_in_capsule(1, ASKING_LATE_LBA, BYTES as u32), &[0; BYTES]);
    wait_for("the first command to be under way", || {
        (server.shared.in_flight.load(Ordering::SeqCst) == 1).then_some(())
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            server.host(|local, address| async move {
                let options = HostOptions { entries: 1024, ..HostOptions::default() };
                let controller = connect(address, &local, options).await.unwrap();
                let queue = controller.io_queues(1).await.unwrap().remove(0);
                let data = local.pool().alloc(BYTES).await.freeze();
                let writes = (0..FILLERS).map(|_| {
                    let (queue, data) = (queue.clone(), data.clone());
                    local.spawn_local(async move { queue.write(1, SLOW_LBA, data).await })
                });
                for write in writes.collect::<Vec<_>>() {
                    assert!(write.await.unwrap().is_err(), "the slow disk fails");
                }
            });
        });
        waits(1);
        raw.command(write_in_capsule(2, ASKING_LBA, BYTES as u32), &[0; BYTES]);
        waits(2);
        drop(raw);
        // The reactor hears of it.
        waits(2);
        waits(2);
        server.shared.disk.add_permits(1);
    });
    server.closed(3);
    assert_eq!(
        *server.shared.host_there.lock().unwrap(),
        [false],
        "one was begun, and its host is gone"
    );
}
