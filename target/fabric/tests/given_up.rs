//! CONFORMANCE M-45: a command of a host that has given its connection up is recognised as such, though the reactor stood still
//! between the arrival of the command and its turn, and has not looked for news since.
#![allow(clippy::unwrap_used)]
#![allow(clippy::cast_possible_truncation, reason = "lengths of tests are small")]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::raw::{Raw, io_queue, server, write_in_capsule};
use common::toy::{ASKING_LBA, STANDSTILL_LBA};
use common::{Server, wait_for};

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
