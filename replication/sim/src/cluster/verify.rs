//! After the faults: everything comes together, and nothing was lost.

use std::time::Duration;

use afs_env::Clock;

use super::core::short;
use super::{Cluster, host, machine_of};
use crate::net::Address;

/// How long it may take until everything is in sync and serves.
const RECOVERY_MAX: Duration = Duration::from_secs(240);

impl Cluster {
    /// Waits until every volume serves with all its replicas in sync and no host waits.
    pub(super) async fn come_together(&self) {
        let clock = self.sim().clock().clone();
        // What was the last to fail is noticed within this time.
        clock.sleep(Duration::from_secs(3)).await;
        let until = clock.now() + u64::try_from(RECOVERY_MAX.as_nanos()).unwrap_or(u64::MAX);
        loop {
            let Some(what) = self.unrest() else { return };
            if clock.now() > until || self.has_violation() {
                self.violation(format!("it does not come together: {what}"));
                return;
            }
            clock.sleep(Duration::from_millis(200)).await;
        }
    }

    /// What is not as it should be when nothing is wrong any more.
    fn unrest(&self) -> Option<String> {
        let waiting = self.operations_under_way();
        if waiting > 0 {
            return Some(format!("{waiting} operations of hosts wait; {}", self.describe()));
        }
        let restless = self.volumes().iter().find(|volume| !self.is_at_rest(volume.id))?;
        Some(format!("volume {}: {}", short(restless.id), self.describe()))
    }

    /// Whether every volume is served with all its replicas in sync and equal.
    pub(super) fn at_rest(&self) -> bool {
        self.volumes().iter().all(|volume| self.is_at_rest(volume.id))
    }

    fn is_at_rest(&self, volume: uuid::Uuid) -> bool {
        let leader = self.core().config(volume).and_then(|config| config.leader);
        let node = leader.and_then(|node| self.node(machine_of(Address(node.0))?));
        node.is_some_and(|node| node.at_rest(volume))
    }

    fn describe(&self) -> String {
        let configs: Vec<_> = self.core().configs().iter().map(|c| format!("{c:?}")).collect();
        let nodes: Vec<_> = (0..self.machines())
            .map(|machine| match self.node(machine) {
                Some(node) => format!("node {}: {}", machine + 1, node.describe()),
                None => format!("node {} is down", machine + 1),
            })
            .collect();
        format!("{}\n{}", configs.join("\n"), nodes.join("\n"))
    }

    /// Compares what the replicas hold, and what hosts saw with what they may have seen.
    pub(super) async fn verify(&self) {
        host::read_all(self, self.reader()).await;
        self.compare_replicas().await;
        for machine in 0..self.machines() {
            let Some(node) = self.node(machine) else { continue };
            if let Err(what) = node.store().check_invariants() {
                self.violation(format!("the store of node {}: {what}", machine + 1));
            }
        }
        let checked = self.history().borrow().check();
        if let Err(((volume, lba), violation)) = checked {
            let history = self.history().borrow();
            let operations = history.of_block(volume, lba);
            let shown: Vec<_> = operations.iter().map(|op| format!("{op:?}")).collect();
            self.violation(format!(
                "block {lba} of volume {volume}: {violation}\n{}",
                shown.join("\n")
            ));
        }
    }

    async fn compare_replicas(&self) {
        for config in self.core().configs() {
            for (number, shard) in (0_u32..).zip(&config.shards) {
                let mut first: Option<(u32, Vec<u8>)> = None;
                for member in shard.in_sync() {
                    let machine = machine_of(Address(member.node.0));
                    let Some(node) = machine.and_then(|machine| self.node(machine)) else {
                        continue;
                    };
                    let blocks = config.blocks_of_shard(number);
                    let Some(bytes) = self.bytes_of(&node, member.replica, blocks).await else {
                        self.violation(format!("replica on {} cannot be read", member.node));
                        continue;
                    };
                    match &first {
                        None => first = Some((member.node.0, bytes)),
                        Some((other, expected)) if *expected != bytes => {
                            let blocks = expected.chunks(4096).zip(bytes.chunks(4096));
                            let differ: Vec<usize> = blocks
                                .enumerate()
                                .filter(|(_, (one, two))| one != two)
                                .map(|(lba, _)| lba)
                                .collect();
                            self.violation(format!(
                                "shard {number} of {} differs on node {other} and {}: {differ:?}",
                                short(config.volume),
                                member.node
                            ));
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }

    async fn bytes_of(
        &self,
        node: &super::node::Node,
        replica: uuid::Uuid,
        blocks: u64,
    ) -> Option<Vec<u8>> {
        let replica = node.store().replica(replica.into())?;
        let mut bytes = Vec::new();
        let mut lba = 0;
        while lba < blocks {
            let count = (blocks - lba).min(64);
            let length = usize::try_from(count * 4096).ok()?;
            let buffer = self.pool().alloc(length).await;
            let (buffer, result) = replica.read(lba, buffer).await;
            result.ok()?;
            bytes.extend_from_slice(&buffer);
            lba += count;
        }
        Some(bytes)
    }
}
