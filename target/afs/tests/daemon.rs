//! The `afs` program from outside: starts, refusals, stops, restarts.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use common::{Place, Running, afs, keep_busy, refused, run, wait_for};
use serde_json::{Value, json};

#[test]
fn one_command_makes_a_node_that_serves_and_says_what_to_do_next() {
    let place = Place::new();
    let running = place.start(&[&place.disk("64M")]);
    let output = running.output();
    for part in [
        format!("hosts    tcp://{}", place.portal),
        format!("API      http://{}", place.api),
        format!("http://{}/metrics", place.http),
        format!("Next: conductor --api http://{} volume create", place.api),
    ] {
        assert!(output.contains(&part), "{part} is not in\n{output}");
    }
    assert_eq!(place.node("/healthz"), (200, "serving\n".to_owned()));
    assert_eq!(place.status()["phase"], "serving");
    let metrics = place.node("/metrics").1;
    assert!(metrics.contains("afs_disk_journal_size_bytes{disk="), "{metrics}");
    TcpStream::connect(place.portal).unwrap();
    running.signal("TERM");
    let (status, output) = running.wait();
    assert!(status.success(), "{output}");
    assert!(output.contains("closed"), "{output}");
}

#[test]
fn a_disk_that_was_closed_in_good_order_says_so_and_comes_back_with_its_volumes() {
    let place = Place::new();
    let disk = place.disk("64M");
    let running = place.start(&[&disk]);
    place.export("nqn.2026-11.test:a", "v1", 16 << 20);
    let uuid = place.status()["disks"][0]["uuid"].clone();
    running.signal("INT");
    assert!(running.wait().0.success());

    let path = place.path("disk");
    let (status, output) = run(&["disk", "check", path.to_str().unwrap()]);
    assert!(status.success() && output.contains("in good order"), "{output}");
    assert!(output.contains("of 16M"), "the replica is not in\n{output}");

    let running = place.start(&[&disk]);
    assert_eq!(place.status()["disks"][0]["uuid"], uuid);
    let volume = place.call("GET", "/api/v1/volumes/v1", Value::Null);
    assert_eq!(volume["size_bytes"], 16 << 20);
    assert!(running.output().contains("volumes  1"), "{}", running.output());
}

#[test]
fn a_killed_node_starts_again_and_replays() {
    let place = Place::new();
    let disk = place.disk("64M");
    let mut running = place.start(&[&disk]);
    place.export("nqn.2026-11.test:a", "v1", 16 << 20);
    running.kill();
    let running = place.start(&[&disk]);
    assert!(running.output().contains("clean=false"), "{}", running.output());
}

/// Waits until a host's writes have arrived.
fn wait_for_writes(place: &Place) {
    wait_for("writes of the host", || {
        let metrics = place.node("/metrics").1;
        let journal = metrics.lines().find(|line| line.starts_with("afs_disk_first_writes_total"));
        journal.is_some_and(|line| !line.ends_with(" 0")).then_some(())
    });
}

#[test]
fn a_planned_stop_under_load_drains_closes_the_disk_and_is_quick() {
    let place = Place::new();
    let running = place.start(&[&place.disk("64M")]);
    place.export("nqn.2026-11.test:a", "v1", 16 << 20);
    let _host = keep_busy(place.portal, "nqn.2026-11.test:a");
    wait_for_writes(&place);
    let begun = Instant::now();
    running.signal("TERM");
    let (status, output) = running.wait();
    assert!(status.success(), "{output}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}\n{output}", begun.elapsed());
    assert!(!output.contains("did not end in time"), "{output}");
    let (status, output) = run(&["disk", "check", place.path("disk").to_str().unwrap()]);
    assert!(status.success() && output.contains("in good order"), "{output}");
}

#[test]
fn a_node_killed_under_load_serves_again_at_once() {
    let place = Place::new();
    let disk = place.disk("64M");
    let mut running = place.start(&[&disk]);
    place.export("nqn.2026-11.test:a", "v1", 16 << 20);
    let host = keep_busy(place.portal, "nqn.2026-11.test:a");
    wait_for_writes(&place);
    running.kill();
    drop(host);
    let running = place.start(&[&disk]);
    let _host = keep_busy(place.portal, "nqn.2026-11.test:a");
    wait_for("reads", || {
        let metrics = place.node("/metrics").1;
        let reads =
            metrics.lines().find(|line| line.starts_with("afs_namespace_read_seconds_count"));
        reads.is_some_and(|line| !line.ends_with(" 0")).then_some(())
    });
    assert!(running.output().contains("clean=false"), "{}", running.output());
}

#[test]
fn a_deleted_volume_leaves_the_disk_and_its_series() {
    let place = Place::new();
    let running = place.start(&[&place.disk("64M")]);
    let nqn = "nqn.2026-11.test:a";
    place.export(nqn, "v1", 16 << 20);
    wait_for("the series of the volume", || {
        place.node("/metrics").1.contains("volume=\"v1\"").then_some(())
    });
    place.call("DELETE", &format!("/api/v1/subsystems/{nqn}/namespaces/1"), Value::Null);
    place.call("DELETE", "/api/v1/volumes/v1", Value::Null);
    wait_for("the deletion", || {
        running.output().contains("deleted a retired replica").then_some(())
    });
    assert!(!place.node("/metrics").1.contains("volume=\"v1\""));
    running.signal("TERM");
    assert!(running.wait().0.success());
    let (_, output) = run(&["disk", "check", place.path("disk").to_str().unwrap()]);
    assert!(!output.contains("replica   "), "{output}");
}

#[test]
fn a_null_disk_keeps_its_identity_over_a_restart() {
    let place = Place::new();
    let running = place.start(&["null:1G", "null:1G"]);
    place.export("nqn.2026-11.test:a", "v1", 1 << 30);
    let before = place.status()["disks"].clone();
    assert_ne!(before[0]["uuid"], before[1]["uuid"]);
    running.signal("TERM");
    assert!(running.wait().0.success());
    let running = place.start(&["null:1G", "null:1G"]);
    assert_eq!(place.status()["disks"], before);
    assert!(running.output().contains("volumes  1"), "{}", running.output());
}

#[test]
fn a_second_process_is_told_who_has_the_data_folder() {
    let place = Place::new();
    let _running = place.start(&["null:1G"]);
    let other = Place::new();
    let output = refused(&mut other.standalone_with_data(&place.path("data"), &["null:1G"], &[]));
    assert!(output.contains("in use by process") && output.contains("--data"), "{output}");
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    for flag in ["--listen", "--http", "--api"] {
        let place = Place::new();
        let address = match flag {
            "--listen" => place.portal,
            "--http" => place.http,
            _ => place.api,
        };
        let _taken = TcpListener::bind(address).unwrap();
        let output = place.refused(&[&place.disk("64M")]);
        assert!(output.contains(&format!("{address} is in use")), "{output}");
        assert!(output.contains(flag), "{output}");
        assert!(!place.path("disk").exists(), "a disk was made before the ports were taken");
    }
}

/// Holds whether or not the machine has RDMA; what is said about it is in the unit tests.
#[test]
fn an_rdma_listener_beside_a_tcp_one_never_keeps_hosts_out() {
    let place = Place::new();
    let rdma = format!("rdma://{}", place.portal);
    let mut command = place.standalone(&["null:1G"], &["--listen", &rdma]);
    let mut running = Running::start(&mut command);
    running.wait_for_output("Next: ");
    TcpStream::connect(place.portal).unwrap();
    let portals = place.status()["portals"].clone();
    assert_eq!(
        portals[0],
        json!({ "portal": format!("tcp://{}", place.portal), "state": "listening" })
    );
    assert_eq!(portals[1]["portal"], rdma);
    let up = portals[1]["state"] == "listening";
    assert_eq!(portals[1]["problem"].is_string(), !up, "{portals}");
    assert_eq!(running.output().contains(&format!("{rdma} NOT YET: ")), !up);
    let metric =
        format!("afs_listener_up{{listener=\"{rdma}\",transport=\"rdma\"}} {}", u8::from(up));
    assert!(place.node("/metrics").1.contains(&metric), "{metric}");
    let told = place.call("GET", "/api/v1/nodes/n1", Value::Null)["portals"].clone();
    let told: Vec<_> = told.as_array().unwrap().iter().map(|one| &one["transport"]).collect();
    assert_eq!(told.contains(&&json!("rdma")), portals[1]["state"] != "unavailable", "{told:?}");
}

#[test]
fn a_node_that_could_serve_nobody_does_not_start() {
    let place = Place::new();
    let start = |more: &[&str]| {
        let mut command = afs(&["standalone", "--disk", "null:1G", "--reactors", "1"]);
        command.arg("--data").arg(place.path("data")).args(more);
        command.arg("--api").arg(place.api.to_string()).arg("--http").arg(place.http.to_string());
        command
    };
    let output = refused(&mut start(&["--listen", "rmda://192.0.2.1:4420"]));
    assert!(output.contains("did you mean rdma://"), "{output}");
    let output = refused(&mut start(&["--listen", "rdma://0.0.0.0:4420"]));
    assert!(output.contains("--advertise"), "{output}");
}

#[test]
fn what_a_disk_holds_is_never_overwritten_unasked() {
    let place = Place::new();
    let path = place.path("disk");
    let mut image = vec![0; 64 << 20];
    image[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    fs::write(&path, &image).unwrap();
    let output = place.refused(&[path.to_str().unwrap()]);
    assert!(output.contains("ext") && output.contains("afs disk format --force"), "{output}");
    assert_eq!(fs::read(&path).unwrap(), image);

    let output = place.refused(&[place.path("none").to_str().unwrap()]);
    assert!(output.contains("no such file"), "{output}");
    let output = place.refused(&[place.path("").to_str().unwrap()]);
    assert!(output.contains("neither a block device nor a regular file"), "{output}");
}

#[test]
fn two_disks_with_one_identity_are_refused() {
    let place = Place::new();
    let disk = place.disk("64M");
    let running = place.start(&[&disk]);
    running.signal("TERM");
    assert!(running.wait().0.success());
    fs::copy(place.path("disk"), place.path("copy")).unwrap();
    let output = place.refused(&[&disk, place.path("copy").to_str().unwrap()]);
    assert!(output.contains("two disks carry one identity"), "{output}");
}

#[test]
fn a_disk_that_another_process_uses_is_refused() {
    let place = Place::new();
    let disk = place.disk("64M");
    let _running = place.start(&[&disk]);
    let other = Place::new();
    let output = other.refused(&[&disk]);
    assert!(output.contains("already in use"), "{output}");
    let (status, output) = run(&["disk", "check", place.path("disk").to_str().unwrap()]);
    assert!(!status.success() && output.contains("already in use"), "{output}");
}

#[test]
fn a_disk_cut_short_is_called_that_and_the_other_disk_serves() {
    let place = Place::new();
    let (first, second) = (place.disk("64M"), format!("{}:64M", place.path("second").display()));
    let running = place.start(&[&first, &second]);
    running.signal("TERM");
    assert!(running.wait().0.success());
    fs::File::options().write(true).open(place.path("disk")).unwrap().set_len(32 << 20).unwrap();

    let output = place.refused(&[&first]);
    assert!(output.contains("cut short"), "{output}");

    let running = place.start(&[&first, &second]);
    assert!(running.output().contains("FAILED"), "{}", running.output());
    let disks = place.call("GET", "/api/v1/disks", Value::Null);
    let states: Vec<_> =
        disks.as_array().unwrap().iter().map(|disk| disk["state"].clone()).collect();
    assert!(states.contains(&json!("failed")) && states.contains(&json!("online")), "{disks}");
    let metrics = place.node("/metrics").1;
    assert!(
        metrics.lines().any(|line| line.starts_with("afs_disk_online") && line.ends_with(" 0")),
        "{metrics}"
    );
}

#[test]
fn a_disk_of_another_size_than_asked_for_is_refused() {
    let place = Place::new();
    let running = place.start(&[&place.disk("64M")]);
    running.signal("TERM");
    assert!(running.wait().0.success());
    let output = place.refused(&[&place.disk("128M")]);
    assert!(output.contains("has 64M but 128M was asked for"), "{output}");
}

#[test]
fn damaged_superblocks_are_a_clear_error() {
    let place = Place::new();
    let disk = place.disk("64M");
    let running = place.start(&[&disk]);
    running.signal("TERM");
    assert!(running.wait().0.success());
    let file = fs::File::options().write(true).open(place.path("disk")).unwrap();
    for offset in [100, (64 << 10) + 100] {
        file.write_all_at(&[0xa5; 8], offset).unwrap();
    }
    let output = place.refused(&[&disk]);
    assert!(output.contains("superblocks are damaged"), "{output}");
}

#[test]
fn a_node_waits_for_its_conductor_refusing_hosts_and_later_restarts_without_it() {
    let place = Place::new();
    let serve = |place: &Place| {
        let mut command = afs(&["serve", "--node", "n2", "--disk", "null:1G", "--reactors", "1"]);
        command.arg("--data").arg(place.path("node"));
        command.arg("--listen").arg(format!("tcp://{}", place.portal));
        command.arg("--http").arg(place.http.to_string());
        command.arg("--conductor").arg(format!("http://{}", place.api));
        Running::start(&mut command)
    };
    let mut node = serve(&place);
    node.wait_for_output("waiting for the conductor");
    assert_eq!(place.node("/healthz").0, 503);
    assert!(
        TcpStream::connect(place.portal).is_err(),
        "a host got in before the tables were loaded"
    );

    let conductor = Place { api: place.api, ..Place::new() };
    let mut conductor_process = conductor.start(&["null:1G"]);
    node.wait_for_output("hosts may connect");
    TcpStream::connect(place.portal).unwrap();
    conductor_process.kill();
    node.wait_for_output("I/O goes on");
    TcpStream::connect(place.portal).unwrap();
    node.kill();

    let mut node = serve(&place);
    node.wait_for_output("serving as last told");
    node.wait_for_output("hosts may connect");
    TcpStream::connect(place.portal).unwrap();
}

#[test]
fn settings_from_a_file_with_a_wrong_key_are_refused_with_the_right_one() {
    let place = Place::new();
    let file = place.path("afs.toml");
    fs::write(&file, "disks = [\"null:1G\"]\n").unwrap();
    let (status, output) = run(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("`disks`") && output.contains("did you mean `disk`?"), "{output}");
}

#[test]
fn json_log_lines_are_json_and_standard_output_stays_for_people() {
    let place = Place::new();
    let mut running =
        Running::start(&mut place.standalone(&["null:1G"], &["--log-format", "json"]));
    running.wait_for_output("Next: ");
    running.signal("TERM");
    let (_, output) = running.wait();
    let lines: Vec<&str> = output.lines().filter(|line| line.starts_with('{')).collect();
    assert!(lines.len() > 2, "{output}");
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}
