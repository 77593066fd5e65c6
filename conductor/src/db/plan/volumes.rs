//! The volumes, and who leads and holds them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use afs_decisions::{BLOCK_BYTES, NodeId, VolumeConfig};
use uuid::Uuid;

use crate::db::DbError;
use crate::db::backend::Transaction;
use crate::db::configs;
use crate::db::news::Touch;
use crate::db::query::query_as;
use crate::db::rows::{self, ReplicaRow, VolumeRow};

/// A volume.
#[derive(Debug)]
pub(in crate::db) struct Planned {
    pub(in crate::db) row: VolumeRow,
    pub(in crate::db) config: VolumeConfig,
    /// The disk of each replica.
    disks: BTreeMap<Uuid, Uuid>,
}

/// A replica on a disk: volume, shard, replica.
pub(in crate::db) type Held = (Uuid, u32, Uuid);

/// All volumes.
#[derive(Debug, Default)]
pub(in crate::db) struct Volumes {
    all: HashMap<Uuid, Planned>,
    leads: HashMap<NodeId, BTreeSet<Uuid>>,
    /// How many replicas each node holds.
    holds: HashMap<NodeId, u32>,
    /// By disk.
    held: HashMap<Uuid, BTreeSet<Held>>,
    /// Replicas to delete, by disk.
    retired: HashMap<Uuid, BTreeSet<Uuid>>,
}

/// Whom a change of a volume concerns.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// The leaders before and after.
    pub(super) leaders: [Option<NodeId>; 2],
    /// Disks on which a replica came, went, or became another size.
    pub(super) disks: Vec<Uuid>,
    /// The volume, if hosts see something of it.
    pub(super) exported: Option<Uuid>,
}

impl Volumes {
    pub(super) async fn read(view: &mut Transaction) -> Result<Self, DbError> {
        let (configs, members) = configs::load_all(view).await?;
        let rows = rows::volumes(view).await?;
        let mut rows: HashMap<Uuid, VolumeRow> =
            rows.into_iter().map(|row| (row.uuid, row)).collect();
        let mut disks: HashMap<Uuid, Vec<(Uuid, Uuid)>> = HashMap::new();
        for member in members {
            disks.entry(member.volume).or_default().push((member.uuid, member.disk));
        }
        let mut volumes = Self::default();
        for (uuid, config) in configs {
            let disks = disks.remove(&uuid).unwrap_or_default();
            volumes.put(&config, rows.remove(&uuid), &disks);
        }
        let retired: Vec<(Uuid, Uuid)> =
            query_as("SELECT disk, uuid FROM replicas WHERE state = 'retired'")
                .fetch_all(view)
                .await?;
        for (disk, replica) in retired {
            volumes.retired.entry(disk).or_default().insert(replica);
        }
        Ok(volumes)
    }

    pub(in crate::db) fn get(&self, volume: Uuid) -> Option<&Planned> {
        self.all.get(&volume)
    }

    /// All of them, by name.
    pub(super) fn rows(&self) -> Vec<VolumeRow> {
        let mut rows: Vec<VolumeRow> = self.all.values().map(|it| it.row.clone()).collect();
        rows.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    /// The replicas of all of them, by volume and shard, with the nodes that have their disks.
    pub(super) fn replicas<'a>(
        &self,
        node_of: impl Fn(Uuid) -> Option<&'a str>,
    ) -> Vec<ReplicaRow> {
        let mut replicas: Vec<ReplicaRow> = Vec::new();
        for (volume, Planned { config, disks, .. }) in &self.all {
            replicas.extend(config.members().filter_map(|(shard, member)| {
                let (uuid, disk) = (member.replica, *disks.get(&member.replica)?);
                let node = node_of(disk)?.to_owned();
                Some(ReplicaRow { uuid, volume: *volume, shard, disk, node })
            }));
        }
        replicas.sort_unstable_by_key(|row| (row.volume, row.shard, row.uuid));
        replicas
    }

    /// What is decided about each.
    pub(super) fn configs(&self) -> BTreeMap<Uuid, VolumeConfig> {
        self.all.iter().map(|(volume, planned)| (*volume, planned.config.clone())).collect()
    }

    /// Sum of the sizes of the replicas on a disk.
    pub(super) fn provisioned_on(&self, disk: Uuid) -> u64 {
        let blocks = self.held_on(disk).filter_map(|(volume, shard, _)| {
            self.config(volume).map(|config| config.blocks_of_shard(shard))
        });
        blocks.sum::<u64>().saturating_mul(BLOCK_BYTES)
    }

    pub(in crate::db) fn config(&self, volume: Uuid) -> Option<&VolumeConfig> {
        self.get(volume).map(|planned| &planned.config)
    }

    /// The volumes that a node is to lead, in their order.
    pub(in crate::db) fn led_by(&self, node: NodeId) -> impl Iterator<Item = &VolumeConfig> {
        self.leads.get(&node).into_iter().flatten().filter_map(|volume| self.config(*volume))
    }

    /// The replicas on a disk.
    pub(in crate::db) fn held_on(&self, disk: Uuid) -> impl Iterator<Item = Held> {
        self.held.get(&disk).into_iter().flatten().copied()
    }

    /// The replicas to delete on a disk.
    pub(in crate::db) fn retired_on(&self, disk: Uuid) -> impl Iterator<Item = Uuid> {
        self.retired.get(&disk).into_iter().flatten().copied()
    }

    /// How many volumes each node leads, and how many replicas it holds; nothing of those that do neither.
    pub(super) fn loads(&self) -> HashMap<NodeId, (u32, u32)> {
        let mut loads: HashMap<NodeId, (u32, u32)> = HashMap::new();
        for (node, volumes) in &self.leads {
            loads.entry(*node).or_default().0 = u32::try_from(volumes.len()).unwrap_or(u32::MAX);
        }
        for (node, replicas) in &self.holds {
            loads.entry(*node).or_default().1 = *replicas;
        }
        loads.retain(|_, load| *load != (0, 0));
        loads
    }

    /// Takes in a change.
    pub(super) fn touch(&mut self, touch: &Touch) -> Effect {
        match touch {
            Touch::Put { config, row, disks } => self.put(config, row.clone(), disks),
            Touch::Deleted(volume) => match self.take_out(*volume) {
                Some(before) => {
                    let disks = before.disks.values().copied().collect();
                    for (replica, disk) in before.disks {
                        self.retired.entry(disk).or_default().insert(replica);
                    }
                    let leaders = [before.config.leader, None];
                    Effect { leaders, disks, exported: Some(*volume) }
                }
                None => Effect::default(),
            },
            Touch::Forgotten(replica) => {
                let disks = self.retired.iter_mut();
                let on = disks.filter_map(|(disk, all)| all.remove(replica).then_some(*disk));
                Effect { disks: on.collect(), ..Effect::default() }
            }
        }
    }

    fn put(
        &mut self,
        config: &VolumeConfig,
        row: Option<VolumeRow>,
        new: &[(Uuid, Uuid)],
    ) -> Effect {
        let before = self.take_out(config.volume);
        // One that is not known is made with its row.
        let Some(row) = row.or_else(|| before.as_ref().map(|before| before.row.clone())) else {
            return Effect::default();
        };
        let mut known: BTreeMap<Uuid, Uuid> = new.iter().copied().collect();
        if let Some(before) = &before {
            known.extend(&before.disks);
        }
        let mut disks = BTreeMap::new();
        for (shard, member) in config.members() {
            *self.holds.entry(member.node).or_default() += 1;
            // Every replica has a disk; the schema says so.
            let Some(disk) = known.remove(&member.replica) else { continue };
            disks.insert(member.replica, disk);
            self.held.entry(disk).or_default().insert((config.volume, shard, member.replica));
        }
        // Whatever is left was taken out of the volume.
        for (replica, disk) in &known {
            self.retired.entry(*disk).or_default().insert(*replica);
        }
        if let Some(leader) = config.leader {
            self.leads.entry(leader).or_default().insert(config.volume);
        }
        let old = before.as_ref().map(|before| &before.config);
        let same_size = old.is_some_and(|old| old.blocks == config.blocks);
        let same_replicas = before.as_ref().is_some_and(|before| before.disks == disks);
        let same_leader = old.is_some_and(|old| old.leader == config.leader);
        let effect = Effect {
            leaders: [old.and_then(|old| old.leader), config.leader],
            disks: match same_size && same_replicas {
                true => Vec::new(),
                false => disks.values().chain(known.values()).copied().collect(),
            },
            exported: (!same_leader || !same_size).then_some(config.volume),
        };
        self.all.insert(config.volume, Planned { row, config: config.clone(), disks });
        effect
    }

    fn take_out(&mut self, volume: Uuid) -> Option<Planned> {
        let planned = self.all.remove(&volume)?;
        if let Some(leads) = planned.config.leader.and_then(|leader| self.leads.get_mut(&leader)) {
            leads.remove(&volume);
        }
        for (shard, member) in planned.config.members() {
            if let Some(holds) = self.holds.get_mut(&member.node) {
                *holds = holds.saturating_sub(1);
            }
            let disk = planned.disks.get(&member.replica);
            if let Some(held) = disk.and_then(|disk| self.held.get_mut(disk)) {
                held.remove(&(volume, shard, member.replica));
            }
        }
        Some(planned)
    }
}
