//! Settings from flags, environment and file: which wins, and what is said about mistakes.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use clap::{Args, Command, FromArgMatches};

use super::*;

fn parse_file(text: &str) -> Result<Settings, FileError> {
    file::parse(text, Path::new("afs.toml"))
}

fn flags(flags: &[&str]) -> Settings {
    let command = Settings::augment_args(Command::new("afs"));
    let words = std::iter::once("afs").chain(flags.iter().copied());
    Settings::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap()
}

fn usable() -> Settings {
    Settings {
        data: Some("/tmp/x".into()),
        disk: vec!["null:1G".to_owned()],
        ..Settings::default()
    }
}

#[test]
fn the_readme_explains_every_key_and_shows_the_unit() {
    let readme = include_str!("../../../../README.md");
    let (_, node) = readme.split_once("**A node** (`afs.toml`):").unwrap();
    let (node, _) = node.split_once("**A conductor**").unwrap();
    let command = Settings::augment_args(Command::new("afs"));
    for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
        let key = argument.get_long().unwrap().replace('-', "_");
        let row = |line: &str| line.starts_with(&format!("| `{key}` |"));
        assert!(node.lines().any(row), "`{key}` is not in the README");
    }
    assert!(readme.contains(include_str!("../../afs.service")), "afs.service is not in the README");
}

#[test]
fn every_flag_is_a_key_of_the_file_and_has_its_variable() {
    let command = Settings::augment_args(Command::new("afs"));
    for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
        let key = argument.get_long().unwrap().replace('-', "_");
        let variable = argument.get_env().unwrap().to_str().unwrap();
        assert_eq!(variable, format!("AFS_{}", key.to_ascii_uppercase()));
        let value = match key.as_str() {
            "disk" | "listen" | "advertise" | "peer_listen" => "[\"x\"]",
            "reactors" | "zookeeper_session_timeout_ms" => "1",
            "assume_whole_blocks" => "true",
            "log_format" => "\"json\"",
            _ => "\"x\"",
        };
        let settings = parse_file(&format!("{key} = {value}")).unwrap();
        assert_ne!(settings, Settings::default(), "{key}");
        assert_eq!(Settings::default().or(settings.clone()), settings, "{key} is lost when merged");
    }
}

#[test]
fn a_flag_wins_over_the_file() {
    let file = parse_file("node = \"file\"\ndisk = [\"a:1G\", \"b:1G\"]\nreactors = 3").unwrap();
    let merged = flags(&["--node", "flag", "--disk", "null:2G"]).or(file);
    assert_eq!(merged.node.as_deref(), Some("flag"));
    assert_eq!(merged.disk, ["null:2G"]);
    assert_eq!(merged.reactors, Some(3));
}

#[test]
fn both_transports_are_read_from_flags_and_from_the_file() {
    let listen = ["tcp://192.0.2.1:4420", "rdma://[2001:db8::1]:4420"];
    let from_file = parse_file(&format!("listen = {listen:?}")).unwrap();
    let from_flags = flags(&["--listen", listen[0], "--listen", listen[1]]);
    let at_once = flags(&["--listen", &listen.join(",")]);
    for settings in [from_file, from_flags, at_once] {
        let config = NodeConfig::new(&Settings { listen: settings.listen, ..usable() }).unwrap();
        let found: Vec<_> = config.listeners.iter().map(|one| one.listen.to_string()).collect();
        assert_eq!(found, listen);
    }
}

#[test]
fn other_nodes_connect_by_either_transport_to_one_address_or_to_several() {
    let both = ["rdma://10.0.0.11:4430", "tcp://10.0.0.11:4430"];
    let listening = |settings: Settings| {
        let settings = Settings { peer_listen: settings.peer_listen, ..usable() };
        let listeners = NodeConfig::new(&settings).unwrap().listeners;
        let peers = listeners.iter().filter(|one| one.door == Door::Peers);
        peers.map(|one| one.listen.to_string()).collect::<Vec<_>>()
    };
    let one = parse_file(&format!("peer_listen = {:?}", both[0])).unwrap();
    assert_eq!(listening(one), both[..1]);
    for settings in [
        parse_file(&format!("peer_listen = {both:?}")).unwrap(),
        parse_file(&format!("peer_listen = {:?}", both.join(","))).unwrap(),
        flags(&["--peer-listen", both[0], "--peer-listen", both[1]]),
    ] {
        assert_eq!(listening(settings), both);
    }
    let error = parse_file("peer_listen = 5").unwrap_err().to_string();
    assert!(error.contains("a text or a list of texts"), "{error}");
}

#[test]
fn an_address_for_other_nodes_that_they_could_not_use_is_refused() {
    for (text, part) in [
        ("10.0.0.11:4430", "tcp://ADDR:PORT or rdma://ADDR:PORT"),
        ("tcp://0.0.0.0:4430", "by which they reach this one"),
        ("rdma://[::]:4430", "by which they reach this one"),
        ("rdma://10.0.0.11", "by which they reach this one"),
        ("rdma://10.0.0.11:0", "needs its port"),
        ("udp://10.0.0.11:4430", "no transport `udp`"),
        ("tcp://127.0.0.1:4420", "given twice"),
    ] {
        let settings = Settings { peer_listen: vec![text.to_owned()], ..usable() };
        let error = NodeConfig::new(&settings).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_mistyped_key_is_named_with_what_was_meant() {
    let error = parse_file("lisen = [\"tcp://127.0.0.1\"]").unwrap_err().to_string();
    assert!(
        error.contains("afs.toml")
            && error.contains("`lisen`")
            && error.contains("did you mean `listen`?"),
        "{error}"
    );
    let error = parse_file("log-format = \"json\"").unwrap_err().to_string();
    assert!(error.contains("did you mean `log_format`?"), "{error}");
    let error = parse_file("zzz = 1").unwrap_err().to_string();
    assert!(error.contains("the keys are node, data"), "{error}");
}

#[test]
fn a_value_of_the_wrong_type_is_shown_with_its_line() {
    let error = parse_file("node = \"a\"\nreactors = \"many\"").unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("reactors = \"many\""), "{error}");
    assert!(parse_file("node = ").unwrap_err().to_string().contains("line 1"));
    assert!(parse_file("reactors = -1").is_err());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Settings::default().with_file(Some(Path::new("/nowhere/afs.toml"))).unwrap_err();
    assert!(error.to_string().contains("/nowhere/afs.toml"), "{error}");
}

#[test]
fn disks_are_read_in_every_form() {
    let file = |path: &str, bytes| DiskSpec::File { path: path.into(), bytes };
    for (text, disk) in [
        ("/var/lib/afs/disk:1G", file("/var/lib/afs/disk", Some(1 << 30))),
        ("disk.img", file("disk.img", None)),
        ("a:b:16M", file("a:b", Some(16 << 20))),
        ("/dev/nvme0n1", DiskSpec::Device { path: "/dev/nvme0n1".into() }),
        ("null:1T", DiskSpec::Null { bytes: 1 << 40 }),
    ] {
        assert_eq!(DiskSpec::parse(text), Ok(disk), "{text}");
    }
}

#[test]
fn disks_that_make_no_sense_are_refused() {
    for (text, part) in [
        ("", "not a disk"),
        (":1G", "not a disk"),
        ("null", "not a disk"),
        ("disk:lots", "not a size"),
        ("disk:", "not a size"),
        ("disk:1M", "too small"),
        ("/dev/sda:1G", "used whole"),
    ] {
        let error = DiskSpec::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let twice = ["a:1G".to_owned(), "a:2G".to_owned()];
    assert_eq!(disk_spec::parse_all(&twice), Err(DiskSpecError::Twice("a".to_owned())));
    let two_nulls = ["null:1G".to_owned(), "null:1G".to_owned()];
    assert_eq!(disk_spec::parse_all(&two_nulls).unwrap().len(), 2);
    assert_eq!(disk_spec::parse_all(&[]), Err(DiskSpecError::None));
}

#[test]
fn defaults_make_a_node_for_this_machine() {
    let config = NodeConfig::new(&usable()).unwrap();
    assert_eq!(config.http, DEFAULT_HTTP.parse().unwrap());
    assert_eq!(config.listeners.len(), 1);
    assert!(config.reactors >= 1 && is_node_name(&config.node));
    assert!(config.buffer_bytes as u64 >= BUFFER_BYTES_MIN);
}

#[test]
fn values_out_of_range_are_named_with_their_key() {
    let wrong = [
        (Settings { data: None, ..usable() }, "--data"),
        (Settings { node: Some("Bad Name".to_owned()), ..usable() }, "node = Bad Name"),
        (Settings { node: Some("-a".to_owned()), ..usable() }, "node = -a"),
        (Settings { reactors: Some(0), ..usable() }, "reactors = 0"),
        (Settings { reactors: Some(100_000), ..usable() }, "reactors = 100000"),
        (Settings { http: Some("49181".to_owned()), ..usable() }, "http = 49181"),
        (Settings { buffers: Some("x".to_owned()), ..usable() }, "buffers = x"),
        (
            Settings { buffers: Some("1M".to_owned()), reactors: Some(2), ..usable() },
            "at least 32M",
        ),
        (Settings { disk: vec![], ..usable() }, "no disk"),
        (Settings { zookeeper: Some("a:2181".to_owned()), ..usable() }, "`cluster` is not"),
        (Settings { cluster: Some("c".to_owned()), ..usable() }, "`zookeeper` is not"),
    ];
    for (settings, part) in wrong {
        let error = NodeConfig::new(&settings).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}
