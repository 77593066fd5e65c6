//! All volumes, found by their own id and by the nodes that lead them or hold their replicas: when
//! a node dies, its volumes are found without looking at the others.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::config::{NodeId, VolumeConfig};

/// Volumes by id and by node.
///
/// Invariant: the indices name exactly what the configurations say.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    volumes: BTreeMap<Uuid, VolumeConfig>,
    led: BTreeMap<NodeId, BTreeSet<Uuid>>,
    held: BTreeMap<NodeId, BTreeSet<Uuid>>,
}

impl Directory {
    /// Puts in a configuration, unless one of the same or a later epoch is there: news may come in
    /// any order.
    pub fn put(&mut self, config: VolumeConfig) -> bool {
        if self.volumes.get(&config.volume).is_some_and(|old| old.epoch >= config.epoch) {
            return false;
        }
        self.remove(config.volume);
        if let Some(leader) = config.leader {
            self.led.entry(leader).or_default().insert(config.volume);
        }
        for (_, member) in config.members() {
            self.held.entry(member.node).or_default().insert(config.volume);
        }
        self.volumes.insert(config.volume, config);
        true
    }

    /// Takes out a volume that was deleted.
    pub fn remove(&mut self, volume: Uuid) -> Option<VolumeConfig> {
        let old = self.volumes.remove(&volume)?;
        if let Some(leader) = old.leader {
            forget(&mut self.led, leader, volume);
        }
        for (_, member) in old.members() {
            forget(&mut self.held, member.node, volume);
        }
        Some(old)
    }

    /// A volume.
    pub fn get(&self, volume: Uuid) -> Option<&VolumeConfig> {
        self.volumes.get(&volume)
    }

    /// All volumes, by id.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeConfig> + '_ {
        self.volumes.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.volumes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty()
    }

    /// The volumes that a node leads.
    pub fn led_by(&self, node: NodeId) -> impl Iterator<Item = &VolumeConfig> + '_ {
        self.named(self.led.get(&node))
    }

    /// The volumes of which a node holds a replica.
    pub fn held_by(&self, node: NodeId) -> impl Iterator<Item = &VolumeConfig> + '_ {
        self.named(self.held.get(&node))
    }

    /// How many volumes a node leads.
    pub fn leads(&self, node: NodeId) -> usize {
        self.led.get(&node).map_or(0, BTreeSet::len)
    }

    fn named<'a>(
        &'a self,
        ids: Option<&'a BTreeSet<Uuid>>,
    ) -> impl Iterator<Item = &'a VolumeConfig> + 'a {
        ids.into_iter().flatten().filter_map(|id| self.volumes.get(id))
    }
}

fn forget(index: &mut BTreeMap<NodeId, BTreeSet<Uuid>>, node: NodeId, volume: Uuid) {
    if let Some(volumes) = index.get_mut(&node) {
        volumes.remove(&volume);
        if volumes.is_empty() {
            index.remove(&node);
        }
    }
}
