//! The text that a scrape gets.
//!
//! Counters and gauges go through a recorder of `metrics-exporter-prometheus`, built anew for each
//! scrape: so a namespace or disk that is gone leaves no series behind, and nothing is kept between
//! scrapes. That recorder takes samples for histograms, not finished buckets; those lines are
//! written here, in the same text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::io::{Snapshot, bucket_bound_seconds};

/// Labels of one series, names and values.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

static METADATA: Metadata<'static> = Metadata::new("afs", Level::INFO, None);

/// One scrape in the making.
pub struct Exposition {
    recorder: PrometheusRecorder,
    written_here: BTreeMap<String, String>,
}

impl Default for Exposition {
    fn default() -> Self {
        Exposition::new()
    }
}

impl Exposition {
    /// An empty scrape.
    pub fn new() -> Exposition {
        Exposition {
            recorder: PrometheusBuilder::new().build_recorder(),
            written_here: BTreeMap::new(),
        }
    }

    /// A value that only grows while the process lives. The name ends in `_total`.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: u64,
    ) {
        let unit: Option<Unit> = None;
        self.recorder.describe_counter(KeyName::from_const_str(name), unit, help.into());
        self.recorder.register_counter(&key(name, labels), &METADATA).absolute(value);
    }

    /// A value that goes up and down, in base units.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        value: f64,
    ) {
        let unit: Option<Unit> = None;
        self.recorder.describe_gauge(KeyName::from_const_str(name), unit, help.into());
        self.recorder.register_gauge(&key(name, labels), &METADATA).set(value);
    }

    /// Latencies, exported in seconds with cumulative buckets.
    pub fn histogram(&mut self, name: &str, help: &str, labels: Labels<'_>, value: &Snapshot) {
        write_histogram(self.family(name, help, "histogram"), name, &label_text(labels), value);
    }

    /// A counter that is not a whole number, such as seconds; the recorder keeps only whole ones.
    pub fn counter_seconds(&mut self, name: &str, help: &str, labels: Labels<'_>, value: f64) {
        let labels = label_text(labels);
        let labels = labels.trim_end_matches(',');
        let _ = writeln!(self.family(name, help, "counter"), "{name}{{{labels}}} {value}");
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) -> &mut String {
        self.written_here
            .entry(name.to_owned())
            .or_insert_with(|| format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"))
    }

    /// The finished text, version 0.0.4 of the Prometheus format.
    pub fn finish(self) -> String {
        let mut text = self.recorder.handle().render();
        for family in self.written_here.into_values() {
            text.push_str(&family);
            text.push('\n');
        }
        text
    }
}

fn key(name: &'static str, labels: Labels<'_>) -> Key {
    let labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label::new(*name, SharedString::from((*value).to_owned())))
        .collect();
    Key::from_parts(name, labels)
}

/// `name="value",…` with a comma at the end, so that `le` can follow.
fn label_text(labels: Labels<'_>) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{name}=\"{value}\",");
    }
    text
}

fn write_histogram(text: &mut String, name: &str, labels: &str, value: &Snapshot) {
    let mut count = 0;
    for (bucket, commands) in value.buckets.iter().enumerate() {
        count += commands;
        let bound = match bucket_bound_seconds(bucket) {
            Some(seconds) => seconds.to_string(),
            None => "+Inf".to_owned(),
        };
        let _ = writeln!(text, "{name}_bucket{{{labels}le=\"{bound}\"}} {count}");
    }
    let labels = labels.trim_end_matches(',');
    let seconds = value.nanos as f64 / 1e9;
    let _ = writeln!(text, "{name}_sum{{{labels}}} {seconds}");
    let _ = writeln!(text, "{name}_count{{{labels}}} {count}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::metrics::io::{IoMetrics, Operation};

    #[test]
    fn histogram_buckets_are_cumulative_and_end_at_the_count() {
        let io = IoMetrics::new(1);
        io.record(0, Operation::Read, 4096, 500, true);
        io.record(0, Operation::Read, 4096, 1_500, true);
        io.record(0, Operation::Read, 4096, u64::from(u32::MAX) * 1000, true);
        let mut scrape = Exposition::new();
        scrape.histogram(
            "afs_x_seconds",
            "X.",
            &[("nqn", "a\"b\\c\n")],
            &io.snapshot(Operation::Read),
        );
        let text = scrape.finish();
        let counts: Vec<u64> = text
            .lines()
            .filter(|line| line.starts_with("afs_x_seconds_bucket"))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(counts.is_sorted());
        assert_eq!((counts[0], counts[1], counts.last()), (1, 2, Some(&3)));
        assert!(text.contains(r#"nqn="a\"b\\c\n",le="+Inf"} 3"#), "{text}");
        assert!(text.contains("\nafs_x_seconds_count{nqn=\"a\\\"b\\\\c\\n\"} 3\n"), "{text}");
    }

    #[test]
    fn each_family_has_its_help_and_type_once() {
        let mut scrape = Exposition::new();
        for volume in ["a", "b"] {
            scrape.counter("afs_c_total", "C.", &[("volume", volume)], 1);
            scrape.gauge("afs_g_bytes", "G.", &[("volume", volume)], 1.5);
            scrape.histogram("afs_h_seconds", "H.", &[("volume", volume)], &Snapshot::default());
            scrape.counter_seconds("afs_s_seconds_total", "S.", &[("volume", volume)], 0.25);
        }
        let text = scrape.finish();
        let families = [
            "afs_c_total counter",
            "afs_g_bytes gauge",
            "afs_h_seconds histogram",
            "afs_s_seconds_total counter",
        ];
        for name in families {
            assert_eq!(text.matches(&format!("# TYPE {name}\n")).count(), 1, "{text}");
        }
        assert!(text.contains("afs_c_total{volume=\"b\"} 1\n"), "{text}");
        assert!(text.contains("afs_g_bytes{volume=\"a\"} 1.5\n"), "{text}");
        assert!(text.contains("afs_s_seconds_total{volume=\"b\"} 0.25\n"), "{text}");
    }
}
