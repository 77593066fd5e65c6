//! The lab's own ground: a guest boots, runs commands, and vanishes without a trace.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use nvmf_tests::guest::{Guest, GuestOptions};
use nvmf_tests::prepare::{Kernel, obstacle};

/// Skipped by name where nobody prepared the machine; the lab itself does that first and then tolerates no skip.
fn guest(test: &str) -> Option<Guest> {
    match obstacle(&[Kernel::V6_12]) {
        None => Some(Guest::boot(&GuestOptions::new(Kernel::V6_12)).unwrap()),
        Some(reason) if std::env::var_os("AFS_LAB").is_none() => {
            println!("lab: skipped {test}: {reason}");
            None
        }
        Some(reason) => panic!("{reason}"),
    }
}

#[test]
fn commands_run_side_by_side_and_report_their_end() {
    let Some(guest) = guest("commands_run_side_by_side_and_report_their_end") else { return };
    let failed = guest.run("echo out; echo err >&2; exit 7").unwrap();
    assert_eq!(
        (failed.code, failed.stdout.as_str(), failed.stderr.as_str()),
        (7, "out\n", "err\n")
    );

    let mut listener = guest.spawn("read line; echo got $line; sleep 1000").unwrap();
    let endless = guest.spawn("sleep 1000").unwrap();
    assert!(guest.ok("true").is_ok());
    listener.write_stdin(b"word\n").unwrap();
    listener.wait_for("got word", Duration::from_secs(20)).unwrap();
    let error = endless.wait(Duration::from_millis(100)).unwrap_err();
    assert!(error.to_string().contains("out of time"), "{error}");
    listener.kill().unwrap();
    assert_eq!(listener.wait(Duration::from_secs(20)).unwrap().code, 128 + 9);

    let content: Vec<u8> =
        (0..3_000_000u32).map(|i| b'a' + u8::try_from(i % 23).unwrap_or(0)).collect();
    guest.write_file("/tmp/large", &content).unwrap();
    assert_eq!(guest.ok("cat /tmp/large").unwrap().as_bytes(), content);
    assert!(guest.ok("ls /dev/no-such-device").unwrap_err().to_string().contains("No such file"));

    let folder = guest.folder();
    guest.power_cut().unwrap();
    assert!(!folder.exists());
}
