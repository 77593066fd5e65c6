//! The `afs` program and the service manager that watches it.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use common::{Place, Running, SOON, wait_for};

const WATCHDOG: Duration = Duration::from_millis(600);
const BEAT: &str = "WATCHDOG=1";

/// What the manager was told next; none after silence.
fn heard(socket: &UnixDatagram, patience: Duration) -> Option<String> {
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut text = [0; 128];
    match socket.recv(&mut text) {
        Ok(bytes) => Some(String::from_utf8(text[..bytes].to_vec()).unwrap()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_service_manager_hears_of_the_start_of_beats_until_the_node_freezes_and_of_the_end() {
    let place = Place::new();
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    let mut command = place.standalone(&[&place.disk("64M")], &[]);
    command.env("NOTIFY_SOCKET", place.path("notify"));
    command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string()).env_remove("WATCHDOG_PID");
    let running = Running::start(&mut command);
    let next = || heard(&socket, SOON).unwrap();

    let ready = wait_for("READY=1", || Some(next()).filter(|told| told.starts_with("READY=1")));
    assert!(ready.contains("STATUS=serving"), "{ready}");
    assert_eq!(place.node("/healthz"), (200, "serving\n".to_owned()));
    assert_eq!(next(), BEAT);
    assert_eq!(next(), BEAT);

    running.stand_still();
    // A beat that was on its way is no sign of life.
    let silence = (0..3).find(|_| heard(&socket, WATCHDOG).is_none());
    assert!(silence.is_some(), "a process that stands still beats");
    running.signal("CONT");
    assert_eq!(next(), BEAT);

    running.signal("TERM");
    wait_for("STOPPING=1", || next().starts_with("STOPPING=1").then_some(()));
    let (status, output) = running.wait();
    assert!(status.success(), "{output}");
}
