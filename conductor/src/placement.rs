//! Which disks a new volume goes to. Where replicas go by themselves is `afs-decisions`' part; here
//! is what an operator may say about it, and what should be said to the operator.
//!
//! Volumes are thin, so promising more than there is, is fine; the notes say so. Null disks keep
//! nothing. They are for measuring, so one is chosen by itself only where there is no other working
//! disk; the notes say so then. Naming one with `--disk` always works.

use std::collections::{BTreeMap, BTreeSet};

use afs_decisions::{ClusterView, place};
use uuid::Uuid;

use crate::api::{Disk, DiskKind, DiskState};
use crate::db::no_place;
use crate::refusal::{Kind, Refusal};
use crate::size::human;

/// The disks, and what the person should know about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// For each shard the disks of its replicas.
    pub disks: Vec<Vec<Uuid>>,
    /// The nodes that have them.
    pub nodes: BTreeSet<String>,
    /// For the person.
    pub notes: Vec<String>,
}

/// Chooses among all known disks. A disk without a state belongs to a node that is not up.
pub fn choose(
    disks: &[Disk],
    view: &ClusterView,
    shard_bytes: &[u64],
    replicas: u8,
) -> Result<Choice, Refusal> {
    let places = place(view, shard_bytes, replicas).map_err(no_place)?;
    let by_uuid: BTreeMap<Uuid, &Disk> = disks.iter().map(|disk| (disk.uuid, disk)).collect();
    let mut promised: BTreeMap<Uuid, u64> = BTreeMap::new();
    let mut choice = Choice::default();
    for (shard, bytes) in places.iter().zip(shard_bytes) {
        for place in shard {
            *promised.entry(place.disk).or_default() += bytes;
        }
        choice.disks.push(shard.iter().map(|place| place.disk).collect());
    }
    for (uuid, bytes) in promised {
        let Some(disk) = by_uuid.get(&uuid) else { continue };
        choice.nodes.insert(disk.node.clone());
        choice.notes.extend(note(disk, bytes));
    }
    Ok(choice)
}

/// The one disk that the operator named.
pub fn named(disks: &[Disk], wanted: &str, size_bytes: u64) -> Result<Choice, Refusal> {
    let disk = usable(find(disks, wanted)?)?;
    Ok(Choice {
        disks: vec![vec![disk.uuid]],
        nodes: [disk.node.clone()].into(),
        notes: note(disk, size_bytes).into_iter().collect(),
    })
}

/// The disk of this UUID or path.
pub fn find<'a>(disks: &'a [Disk], wanted: &str) -> Result<&'a Disk, Refusal> {
    let uuid = wanted.parse::<Uuid>().ok();
    let matching: Vec<&Disk> =
        disks.iter().filter(|disk| Some(disk.uuid) == uuid || disk.path == wanted).collect();
    match matching.as_slice() {
        [] => Err(Refusal::not_found(Kind::Disk, wanted, disks.iter().map(|d| d.path.as_str()))),
        [disk] => Ok(disk),
        several => Err(Refusal::DiskAmbiguous {
            path: wanted.to_owned(),
            nodes: several.iter().map(|disk| format!("{} ({})", disk.node, disk.uuid)).collect(),
        }),
    }
}

fn usable(disk: &Disk) -> Result<&Disk, Refusal> {
    let reason = match (disk.state, &disk.error) {
        _ if disk.retired => "it is being emptied".to_owned(),
        (Some(DiskState::Online), _) => return Ok(disk),
        (Some(DiskState::Starting), _) => "it is still starting".to_owned(),
        (Some(DiskState::Failed), Some(error)) => format!("it failed: {error}"),
        (Some(DiskState::Failed), None) => "it failed".to_owned(),
        (None, _) => "its node does not report it".to_owned(),
    };
    Err(Refusal::DiskUnusable { disk: disk.path.clone(), node: disk.node.clone(), reason })
}

fn note(disk: &Disk, bytes: u64) -> Option<String> {
    if disk.kind == DiskKind::Null {
        return Some(format!("{} is a null disk: the volume keeps nothing", disk.path));
    }
    let promised = disk.provisioned_bytes.saturating_add(bytes);
    if promised <= disk.total_bytes {
        return None;
    }
    Some(format!(
        "disk {} has {}, and {} are promised to volumes now: thin volumes take space only as they \
         are written, and writes fail when the disk is full",
        disk.path,
        human(disk.total_bytes),
        human(promised)
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use afs_decisions::{DiskView, NodeId, NodeView};

    use super::*;

    fn disk(n: u32, kind: DiskKind, total: u64, provisioned: u64) -> Disk {
        Disk {
            uuid: Uuid::from_u128(n.into()),
            node: format!("n{n}"),
            kind,
            path: format!("/disk{n}"),
            total_bytes: total,
            free_bytes: Some(total),
            provisioned_bytes: provisioned,
            retired: false,
            replicas: 0,
            state: Some(DiskState::Online),
            error: None,
        }
    }

    fn view(disks: &[Disk]) -> ClusterView {
        let mut view = ClusterView::new(0);
        for (id, disk) in (1..).zip(disks) {
            let disk = DiskView {
                disk: disk.uuid,
                usable: disk.state == Some(DiskState::Online),
                keeps_data: disk.kind == DiskKind::Store,
                total_bytes: disk.total_bytes,
                free_bytes: disk.total_bytes,
                provisioned_bytes: disk.provisioned_bytes,
            };
            let node = NodeView { alive: true, disks: vec![disk], ..NodeView::default() };
            view.set_node(NodeId(id), node);
        }
        view
    }

    #[test]
    fn overcommit_is_allowed_and_said() {
        let disks = [disk(1, DiskKind::Store, 1 << 30, 0)];
        let choose = |bytes: &[u64]| choose(&disks, &view(&disks), bytes, 1).unwrap();
        assert!(choose(&[1 << 30]).notes.is_empty());
        assert!(choose(&[1 << 31]).notes[0].contains("thin"));
        assert!(choose(&[1 << 29, 1 << 29]).notes.is_empty());
        assert!(choose(&[1 << 30, 1]).notes[0].contains("thin"), "the shards together");
    }

    #[test]
    fn null_disk_is_said_to_keep_nothing() {
        let mut disks = [disk(1, DiskKind::Null, 1 << 50, 0), disk(2, DiskKind::Store, 1 << 30, 0)];
        let choice = choose(&disks, &view(&disks), &[10], 1).unwrap();
        assert_eq!(choice.nodes, ["n2".to_owned()].into());
        assert!(named(&disks, "/disk1", 10).unwrap().notes[0].contains("keeps nothing"));
        disks[1].state = Some(DiskState::Failed);
        assert!(choose(&disks, &view(&disks), &[10], 1).unwrap().notes[0].contains("nothing"));
    }

    #[test]
    fn replicas_need_as_many_nodes() {
        let disks = [1, 2].map(|n| disk(n, DiskKind::Store, 1 << 40, 0));
        assert_eq!(choose(&disks, &view(&disks), &[10], 2).unwrap().nodes.len(), 2);
        let refused = choose(&disks, &view(&disks), &[10], 3);
        assert_eq!(refused, Err(Refusal::TooFewNodes { wanted: 3, found: 2 }));
        assert_eq!(choose(&[], &view(&[]), &[10], 1), Err(Refusal::NoDisk));
    }

    #[test]
    fn disk_that_cannot_be_used_is_refused_with_the_reason() {
        let mut disks = [1, 2].map(|n| disk(n, DiskKind::Store, 100, 0));
        disks[0].state = None;
        assert!(matches!(named(&disks, "/disk1", 1), Err(Refusal::DiskUnusable { .. })));
        assert!(matches!(
            named(&disks, "/disk3", 1),
            Err(Refusal::NotFound { nearest: Some(_), .. })
        ));
        let uuid = disks[1].uuid.to_string();
        assert_eq!(named(&disks, &uuid, 1).unwrap().nodes, ["n2".to_owned()].into());
        disks[1].retired = true;
        assert!(matches!(named(&disks, &uuid, 1), Err(Refusal::DiskUnusable { .. })));
        disks[1].path = disks[0].path.clone();
        assert!(matches!(named(&disks, "/disk1", 1), Err(Refusal::DiskAmbiguous { .. })));
    }
}
