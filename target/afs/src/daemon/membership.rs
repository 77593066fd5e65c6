//! The node among others: registered in ZooKeeper while it runs. I/O never waits for it.

use std::sync::Arc;
use std::time::Duration;

use afs_coordination::{Conductors, Coordination, DiskRecord, Link, NodeRecord, ZooKeeper};
use conductor::api::{DiskKind, DiskReport, DiskState};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::NodeConfig;
use crate::disks::DiskSet;
use crate::listeners::Listeners;
use crate::metrics::Source;
use crate::metrics::export::Exposition;
use crate::queue::Door;

/// How soon others learn of a disk that failed or a listener that came. The conductor is told by reports, at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A node's registration.
pub(super) struct Membership {
    coordination: Arc<Coordination>,
    task: JoinHandle<()>,
}

/// What does not change while the node runs.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) place: String,
    pub(super) http: String,
}

impl Membership {
    /// Registers and keeps that up to date, where ZooKeeper is configured.
    pub(super) fn start(
        config: &NodeConfig,
        identity: Identity,
        listeners: Arc<Listeners>,
        disks: Arc<DiskSet>,
    ) -> Option<Membership> {
        let zookeeper = ZooKeeper::start(config.zookeeper.clone()?);
        let coordination = Arc::new(Coordination::ZooKeeper(zookeeper));
        let registered = Arc::clone(&coordination);
        let task = tokio::spawn(async move {
            loop {
                registered.register(record(&identity, &listeners, &disks));
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Some(Membership { coordination, task })
    }

    /// The conductors that ZooKeeper knows.
    pub(super) fn conductors(&self) -> watch::Receiver<Conductors> {
        self.coordination.conductors()
    }

    /// For the metrics.
    pub(super) fn source(&self) -> Arc<dyn Source> {
        Arc::new(Connected(self.coordination.link()))
    }

    /// Leaves, so that nobody has to find out.
    pub(super) async fn end(self) {
        self.task.abort();
        self.coordination.close().await;
    }
}

fn record(identity: &Identity, listeners: &Listeners, disks: &DiskSet) -> NodeRecord {
    let reports: Vec<DiskReport> = disks.iter().map(|disk| disk.report()).collect();
    let works =
        |disk: &&DiskReport| disk.state == DiskState::Online && disk.kind == DiskKind::Store;
    NodeRecord {
        name: identity.name.clone(),
        place: identity.place.clone(),
        addresses: listeners.advertised(Door::Hosts).iter().map(ToString::to_string).collect(),
        internal: Vec::new(),
        http: Some(identity.http.clone()),
        capacity_bytes: reports.iter().filter(works).map(|disk| disk.total_bytes).sum(),
        disks: reports
            .into_iter()
            .map(|disk| DiskRecord {
                uuid: disk.uuid,
                path: disk.path,
                total_bytes: disk.total_bytes,
                online: disk.state == DiskState::Online,
            })
            .collect(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

struct Connected(watch::Receiver<Link>);

impl Source for Connected {
    fn collect(&self, scrape: &mut Exposition) {
        let connected = *self.0.borrow() == Link::Connected;
        scrape.gauge(
            "afs_zookeeper_connected",
            "1 while ZooKeeper is there; absent where none is used.",
            &[],
            f64::from(u8::from(connected)),
        );
    }
}
