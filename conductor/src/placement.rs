//! Which disk a new volume goes to.
//!
//! Today a volume has one replica. It goes to the working disk, on a node that is up, with the
//! most space not yet promised to other volumes (total minus the sizes of what is on it), then to
//! the one with the most free space. Volumes are thin, so promising more than there is, is fine;
//! the notes say so.
//!
//! Null disks keep nothing. They are for measuring, so one is chosen by itself only where there is
//! no other working disk; the notes say so then. Naming one with `--disk` always works.

use uuid::Uuid;

use crate::api::{Disk, DiskKind, DiskState};
use crate::refusal::{Kind, Refusal};
use crate::size::human;

/// The disk, and what the person should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The disk to use.
    pub disk: Uuid,
    /// The node that has it.
    pub node: String,
    /// For the person.
    pub notes: Vec<String>,
}

/// Chooses among all known disks. A disk without a state belongs to a node that is not up.
pub fn choose(disks: &[Disk], wanted: Option<&str>, size_bytes: u64) -> Result<Choice, Refusal> {
    let disk = match wanted {
        Some(wanted) => named(disks, wanted)?,
        None => best(disks)?,
    };
    Ok(Choice { disk: disk.uuid, node: disk.node.clone(), notes: notes(disk, size_bytes) })
}

fn best(disks: &[Disk]) -> Result<&Disk, Refusal> {
    let usable = disks.iter().filter(|disk| disk.state == Some(DiskState::Online));
    let key = |disk: &&Disk| {
        let promised = i128::from(disk.total_bytes) - i128::from(disk.provisioned_bytes);
        let keeps_data = disk.kind == DiskKind::Store;
        // The uuid last, so that equal disks give the same answer each time.
        (keeps_data, promised, disk.free_bytes, disk.uuid)
    };
    usable.max_by_key(key).ok_or(Refusal::NoDisk)
}

fn named<'a>(disks: &'a [Disk], wanted: &str) -> Result<&'a Disk, Refusal> {
    let uuid = wanted.parse::<Uuid>().ok();
    let matching: Vec<&Disk> =
        disks.iter().filter(|disk| Some(disk.uuid) == uuid || disk.path == wanted).collect();
    match matching.as_slice() {
        [] => Err(Refusal::not_found(Kind::Disk, wanted, disks.iter().map(|d| d.path.as_str()))),
        [disk] => usable(disk),
        several => Err(Refusal::DiskAmbiguous {
            path: wanted.to_owned(),
            nodes: several.iter().map(|disk| format!("{} ({})", disk.node, disk.uuid)).collect(),
        }),
    }
}

fn usable(disk: &Disk) -> Result<&Disk, Refusal> {
    let reason = match (disk.state, &disk.error) {
        (Some(DiskState::Online), _) => return Ok(disk),
        (Some(DiskState::Starting), _) => "it is still starting".to_owned(),
        (Some(DiskState::Failed), Some(error)) => format!("it failed: {error}"),
        (Some(DiskState::Failed), None) => "it failed".to_owned(),
        (None, _) => "its node does not report it".to_owned(),
    };
    Err(Refusal::DiskUnusable { disk: disk.path.clone(), node: disk.node.clone(), reason })
}

fn notes(disk: &Disk, size_bytes: u64) -> Vec<String> {
    if disk.kind == DiskKind::Null {
        return vec![format!("{} is a null disk: the volume keeps nothing", disk.path)];
    }
    let promised = disk.provisioned_bytes.saturating_add(size_bytes);
    if promised <= disk.total_bytes {
        return Vec::new();
    }
    vec![format!(
        "disk {} has {}, and {} are promised to volumes now: thin volumes take space only as they \
         are written, and writes fail when the disk is full",
        disk.path,
        human(disk.total_bytes),
        human(promised)
    )]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn disk(n: u128, kind: DiskKind, total: u64, provisioned: u64) -> Disk {
        Disk {
            uuid: Uuid::from_u128(n),
            node: "n1".to_owned(),
            kind,
            path: format!("/disk{n}"),
            total_bytes: total,
            free_bytes: Some(total),
            provisioned_bytes: provisioned,
            state: Some(DiskState::Online),
            error: None,
        }
    }

    #[test]
    fn disk_with_the_most_unpromised_space_is_chosen() {
        let disks = [
            disk(1, DiskKind::Store, 100, 60),
            disk(2, DiskKind::Store, 100, 20),
            disk(3, DiskKind::Store, 1000, 1500),
        ];
        assert_eq!(choose(&disks, None, 10).unwrap().disk, Uuid::from_u128(2));
    }

    #[test]
    fn null_disk_is_chosen_only_by_name_or_where_there_is_no_other() {
        let mut disks =
            [disk(1, DiskKind::Null, 1 << 50, 0), disk(2, DiskKind::Store, 1 << 30, 1 << 40)];
        assert_eq!(choose(&disks, None, 10).unwrap().disk, Uuid::from_u128(2));
        let named = choose(&disks, Some("/disk1"), 10).unwrap();
        assert_eq!(named.disk, Uuid::from_u128(1));
        assert!(named.notes[0].contains("keeps nothing"));
        disks[1].state = Some(DiskState::Failed);
        assert_eq!(choose(&disks, None, 10).unwrap().disk, Uuid::from_u128(1));
    }

    #[test]
    fn overcommit_is_allowed_and_said() {
        let disks = [disk(1, DiskKind::Store, 1 << 30, 0)];
        assert!(choose(&disks, None, 1 << 30).unwrap().notes.is_empty());
        assert!(choose(&disks, None, 1 << 31).unwrap().notes[0].contains("thin"));
    }

    #[test]
    fn disk_that_cannot_be_used_is_refused_with_the_reason() {
        let mut disks = [disk(1, DiskKind::Store, 100, 0), disk(2, DiskKind::Store, 100, 0)];
        disks[0].state = None;
        assert!(matches!(choose(&disks, Some("/disk1"), 1), Err(Refusal::DiskUnusable { .. })));
        assert!(matches!(
            choose(&disks, Some("/disk3"), 1),
            Err(Refusal::NotFound { nearest: Some(_), .. })
        ));
        assert_eq!(choose(&disks, Some(&disks[1].uuid.to_string()), 1).unwrap().node, "n1");
        disks[1].path = disks[0].path.clone();
        assert!(matches!(choose(&disks, Some("/disk1"), 1), Err(Refusal::DiskAmbiguous { .. })));
        assert_eq!(choose(&[], None, 1), Err(Refusal::NoDisk));
    }
}
