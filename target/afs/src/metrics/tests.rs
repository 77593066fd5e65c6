//! The text of a scrape: what is in it, under which labels, and how much of it there can be.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use super::*;

fn series(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect()
}

fn busy_node() -> Arc<Metrics> {
    let metrics = Metrics::new(2);
    let io = metrics.namespace("nqn.2026-01.test:a", 1, "data");
    io.record(0, Operation::Read, 4096, 70_000, true);
    io.record(1, Operation::Compare, 4096, 70_000, false);
    metrics.queue(0, Transport::Tcp, 1).begin().record(4096, 70_000, true);
    metrics.queue(0, Transport::Rdma, 1).begin().record(8192, 70_000, true);
    metrics.counters().connection_opened(Transport::Tcp);
    metrics.counters().protocol_error("bad_header_length");
    metrics
}

#[test]
fn a_scrape_shows_what_was_counted_under_its_labels() {
    let text = busy_node().render();
    let labels = r#"nqn="nqn.2026-01.test:a",nsid="1",volume="data""#;
    for line in [
        format!("afs_namespace_operations_total{{{labels},operation=\"read\"}} 1"),
        format!("afs_namespace_bytes_total{{{labels},operation=\"read\"}} 4096"),
        format!("afs_namespace_errors_total{{{labels},operation=\"compare\"}} 1"),
        format!("afs_namespace_read_seconds_count{{{labels}}} 1"),
        "afs_queue_bytes_total{reactor=\"0\",transport=\"tcp\",queue=\"1\"} 4096".to_owned(),
        "afs_queue_bytes_total{reactor=\"0\",transport=\"rdma\",queue=\"1\"} 8192".to_owned(),
        "afs_connections{transport=\"tcp\"} 1".to_owned(),
        "afs_connections{transport=\"rdma\"} 0".to_owned(),
        "afs_protocol_errors_total{kind=\"bad_header_length\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("process_open_fds "), "{text}");
    assert!(text.contains("process_cpu_seconds_total"), "{text}");
}

#[test]
fn no_series_appears_twice_and_every_family_is_typed_once() {
    let text = busy_node().render();
    let all = series(&text);
    let distinct: HashSet<_> = all.iter().collect();
    assert_eq!(all.len(), distinct.len(), "{text}");
    let types: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    assert_eq!(types.len(), types.iter().collect::<HashSet<_>>().len(), "{text}");
    for name in all {
        let family = name.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end));
        let typed = |name: &str| types.iter().any(|line| line.split(' ').nth(2) == Some(name));
        assert!(typed(family) || base.is_some_and(typed), "{name} has no type");
    }
}

#[test]
fn the_same_namespace_gives_the_same_figures_under_its_new_name() {
    let metrics = Metrics::new(1);
    metrics.namespace("nqn.a", 1, "old").record(0, Operation::Write, 1, 1, true);
    let again = metrics.namespace("nqn.a", 1, "new");
    assert_eq!(again.snapshot(Operation::Write).operations(), 1);
    let text = metrics.render();
    assert!(text.contains("volume=\"new\"") && !text.contains("volume=\"old\""), "{text}");
}

#[test]
fn a_forgotten_namespace_leaves_no_series() {
    let metrics = busy_node();
    metrics.forget("nqn.2026-01.test:a", 1);
    assert!(!metrics.render().contains("afs_namespace"));
}

#[test]
fn many_queue_ids_share_a_bounded_number_of_series() {
    let metrics = Metrics::new(1);
    for queue in 0..=u16::MAX {
        metrics.queue(0, Transport::Tcp, queue);
    }
    assert_eq!(metrics.queues.lock().len(), usize::from(QUEUE_LABEL_MAX) + 1);
}

#[test]
fn hostile_names_in_labels_are_escaped_the_same_way_everywhere() {
    let metrics = Metrics::new(1);
    metrics.namespace("nqn.a", 1, "x\"\n\\y").record(0, Operation::Read, 1, 1, true);
    let text = metrics.render();
    let escaped = r#"volume="x\"\n\\y""#;
    let lines = text.lines().filter(|line| line.starts_with("afs_namespace"));
    assert!(lines.clone().count() > 3);
    for line in lines {
        assert!(line.contains(escaped), "{line}");
    }
}
