//! Conductors and nodes that do nothing but coordinate.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its own part")]

use std::time::{Duration, Instant};

use afs_coordination::*;
use nvmf_tests::zookeeper::Server;
use tokio::sync::watch;

/// Short, so that tests are, and long enough for a machine that does other things as well.
pub const SESSION: Duration = Duration::from_millis(1500);
pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn config(server: &Server, cluster: &str) -> ZooKeeperConfig {
    ZooKeeperConfig::new(&server.address(), cluster)
        .unwrap()
        .with_session_timeout(SESSION)
        .unwrap()
        .watching_nodes(true)
}

pub fn join(config: ZooKeeperConfig) -> Coordination {
    Coordination::ZooKeeper(ZooKeeper::start(config))
}

/// A conductor with this API.
pub fn conductor(config: ZooKeeperConfig, api: &str) -> Coordination {
    let coordination = join(config);
    coordination.stand(ConductorRecord {
        api: api.to_owned(),
        host: "h".to_owned(),
        software: "test".to_owned(),
        token: None,
    });
    coordination
}

pub fn node(name: &str, place: &str) -> NodeRecord {
    NodeRecord { name: name.to_owned(), place: place.to_owned(), ..NodeRecord::default() }
}

/// Waits until a channel holds what it should; how long that took.
pub async fn until<T: Clone + std::fmt::Debug>(
    what: &str,
    mut channel: watch::Receiver<T>,
    is_so: impl Fn(&T) -> bool,
) -> Duration {
    let begin = Instant::now();
    let found =
        tokio::time::timeout(DEADLINE, channel.wait_for(|value| is_so(value))).await.is_ok();
    assert!(found, "{what}: not within {DEADLINE:?}: {:?}", *channel.borrow());
    begin.elapsed()
}

pub async fn until_role(coordination: &Coordination, role: Role) -> Duration {
    until(&format!("{role:?}"), coordination.role(), |now| *now == role).await
}

pub fn apis(coordination: &Coordination) -> Vec<String> {
    coordination.conductors().borrow().0.iter().map(|record| record.api.clone()).collect()
}
