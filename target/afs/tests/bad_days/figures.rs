//! What a person sees of all this: the dashboards and alerts of `grafana/` against the pages of a cluster.

use crate::common::grafana::metrics_in_use;
use crate::common::http;
use crate::host::Host;
use crate::rig::Cluster;

#[test]
fn every_metric_of_dashboards_and_alerts_is_on_a_page_with_its_meaning() {
    let cluster = Cluster::with_volume();
    let host = Host::new(&cluster);
    host.write(0, 0, 1, 1).unwrap();
    host.read(1, 0, 1).unwrap();
    let nodes = cluster.nodes.iter().map(|node| node.place.node("/metrics").1);
    let conductor = http("GET", &format!("{}/metrics", cluster.api()), None).1;
    let pages: String = nodes.chain([conductor]).collect();
    let missing: Vec<String> = metrics_in_use()
        .into_iter()
        // Only where ZooKeeper is used; its own tests look for them.
        .filter(|metric| !metric.ends_with("_zookeeper_connected"))
        .filter(|metric| !pages.contains(&format!("# HELP {metric} ")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
