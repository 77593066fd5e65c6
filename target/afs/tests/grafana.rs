//! The files of `grafana/` against the real things: a node with I/O, a real Prometheus, every query of the dashboard.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use common::grafana::{folder as grafana, metrics_in_use};
use common::{Place, Running, free_address, http, keep_busy, wait_for};
use serde_json::Value;

const NQN: &str = "nqn.2026-11.test:seen";

fn read(name: &str) -> String {
    fs::read_to_string(grafana().join(name)).unwrap()
}

/// Whether the program is there. In CI it must be.
fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI needs `{program}`: apt-get install prometheus"
        );
        eprintln!("SKIPPED: `{program}` is not installed (apt-get install prometheus)");
    }
    found
}

fn dashboard(name: &str) -> Value {
    let text = fs::read_to_string(grafana().join("dashboards").join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The node's dashboard's queries, with its variables filled in: (panel, query).
fn queries() -> Vec<(String, String)> {
    let dashboard = dashboard("afs-node.json");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "10s").replace("$instance", ".+");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

/// The repository's configuration with the ports of this test and a short interval.
fn prometheus_config(place: &Place) -> PathBuf {
    let text = fs::read_to_string(grafana().join("prometheus.yml")).unwrap();
    let replaced = text
        .replace("127.0.0.1:49181", &place.http.to_string())
        .replace("127.0.0.1:49180", &place.api.to_string())
        .replace("_interval: 5s", "_interval: 1s");
    assert_ne!(text, replaced);
    fs::copy(grafana().join("rules.yml"), place.path("rules.yml")).unwrap();
    fs::write(place.path("prometheus.yml"), replaced).unwrap();
    place.path("prometheus.yml")
}

fn start_prometheus(place: &Place) -> (Running, SocketAddr) {
    let address = free_address();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", prometheus_config(place).display()))
        .arg(format!("--storage.tsdb.path={}", place.path("prometheus").display()))
        .arg(format!("--web.listen-address={address}"));
    (Running::start(&mut command), address)
}

/// Runs a query; the values of its series that are numbers.
fn query(prometheus: SocketAddr, query: &str) -> Vec<f64> {
    let url = reqwest::Url::parse_with_params(
        &format!("http://{prometheus}/api/v1/query"),
        [("query", query)],
    );
    let (code, text) = http("GET", url.unwrap().as_str(), None);
    if code == 0 || code == 503 {
        return Vec::new();
    }
    assert_eq!(code, 200, "{query}: {text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let series = answer["data"]["result"].as_array().unwrap();
    let values = series.iter().map(|one| one["value"][1].as_str().unwrap().parse().unwrap());
    values.filter(|value: &f64| value.is_finite()).collect()
}

#[test]
fn a_real_prometheus_scrapes_both_daemons_and_every_panel_has_data() {
    if !installed("prometheus") {
        return;
    }
    let place = Place::new();
    let _node = place.start(&[&place.disk("64M"), "null:1G"]);
    // The disk with the journal takes the volume: its path is named.
    let disk = place.path("disk");
    place.call(
        "POST",
        "/api/v1/volumes",
        serde_json::json!({ "name": "seen", "size_bytes": 16 << 20, "disk": disk }),
    );
    place.call("POST", "/api/v1/subsystems", serde_json::json!({ "nqn": NQN }));
    place.call(
        "POST",
        &format!("/api/v1/subsystems/{NQN}/namespaces"),
        serde_json::json!({ "volume": "seen" }),
    );
    place.call(
        "POST",
        &format!("/api/v1/subsystems/{NQN}/hosts"),
        serde_json::json!({ "host": "any" }),
    );
    let _host = keep_busy(place.portal, NQN);
    let (_prometheus, address) = start_prometheus(&place);

    wait_for("both targets to be up", || (query(address, "up == 1").len() == 2).then_some(()));
    let queries = queries();
    assert!(queries.len() > 30, "{}", queries.len());
    for (panel, text) in queries {
        wait_for(&format!("data of panel `{panel}`: {text}"), || {
            (!query(address, &text).is_empty()).then_some(())
        });
    }
    let latency = "histogram_quantile(0.5, rate(afs_namespace_read_seconds_bucket[10s]))";
    let latency = query(address, latency);
    assert!(latency.iter().all(|seconds| (1e-7..10.0).contains(seconds)), "{latency:?}");
    assert!(query(address, "ALERTS{alertstate=\"firing\"}").is_empty());
}

#[test]
fn prometheus_accepts_the_whole_scrape() {
    if !installed("promtool") {
        return;
    }
    let place = Place::new();
    let _node = place.start(&[&place.disk("64M")]);
    place.export(NQN, "seen", 16 << 20);
    let scrape = place.node("/metrics").1;
    fs::write(place.path("scrape"), &scrape).unwrap();
    let input = fs::File::open(place.path("scrape")).unwrap();
    let checked =
        Command::new("promtool").args(["check", "metrics"]).stdin(input).output().unwrap();
    let problems = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{problems}\n{scrape}");
}

#[test]
fn every_panel_has_a_unit_and_says_what_it_shows() {
    let dashboards = [dashboard("afs-node.json"), dashboard("afs-cluster.json")];
    let panels = dashboards.iter().flat_map(|dashboard| dashboard["panels"].as_array().unwrap());
    for panel in panels {
        let title = &panel["title"];
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{title}");
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title} has no query");
    }
}

#[test]
fn every_alert_says_what_to_do_and_stands_in_the_readme() {
    let (rules, readme) = (read("rules.yml"), read("README.md"));
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 17, "{}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in grafana/README.md");
    }
}

#[test]
fn every_metric_in_use_is_explained() {
    let readme = read("README.md");
    let used = metrics_in_use();
    assert!(used.len() > 40, "{}", used.len());
    for metric in used {
        assert!(readme.contains(&format!("`{metric}`")), "{metric} is not in grafana/README.md");
    }
}

#[test]
fn rules_and_configuration_load_in_a_stock_prometheus() {
    if !installed("promtool") {
        return;
    }
    let config = grafana().join("prometheus.yml");
    let checked = Command::new("promtool").args(["check", "config"]).arg(config).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
