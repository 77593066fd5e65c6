//! Taking in a node's report: checks, canonical addresses, and the events that come of it.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::api::{
    DiskReport, DiskState, NodeReport, PortalReport, ReplicaState, ReportAnswer, Severity,
};
use crate::db::DbError;
use crate::names;
use crate::refusal::{Kind, Refusal};

use super::Shared;

/// How hosts can connect.
const TRANSPORTS: [&str; 2] = ["tcp", "rdma"];
/// No cluster decides so often; what comes above could not be counted any more.
const REVISION_MAX: u64 = 1 << 62;
const PORTALS_MAX: usize = 64;
const DISKS_MAX: usize = 256;
/// Longest text in a report, such as a path or an error.
const TEXT_MAX: usize = 4096;
/// Nodes report so many times within the time after which they would be down.
const REPORTS_PER_TIMEOUT: u32 = 3;

/// Checks a report and takes it in.
pub(super) async fn take_in(
    shared: &Shared,
    name: &str,
    mut report: NodeReport,
) -> Result<ReportAnswer, DbError> {
    check(name, &mut report)?;
    let heard = shared.live.heard_from(name);
    let known = shared.db.known_revision()?;
    // A thousand nodes report several times a second. What MetaDB rests on hardly ever changes while a node is there.
    let is_news = !heard.was_up || report.applied_revision > known;
    let times_back = shared.db.times_back();
    let registers = is_news || !shared.live.has_registered(&report, times_back);
    let revision = if registers {
        let has = |node: &str, disk| shared.live.may_have(node, disk);
        let registered = shared.db.register(&report, has).await;
        if matches!(registered, Err(DbError::Refused(_))) {
            shared.live.unheard(name, heard);
        }
        registered?.revision
    } else {
        known
    };
    let (before, now) = shared.live.update(report, registers.then_some(times_back));
    for (kind, message) in news(before.as_deref(), &now) {
        shared.db.note(Severity::Warning, kind, name, message).await?;
    }
    let every = shared.front.config.node_timeout / REPORTS_PER_TIMEOUT;
    Ok(ReportAnswer {
        revision,
        report_every_ms: every.as_millis().try_into().unwrap_or(u64::MAX),
        cluster: shared.db.cluster(),
    })
}

fn check(name: &str, report: &mut NodeReport) -> Result<(), Refusal> {
    if !names::is_name(name) {
        return Err(Refusal::BadName { kind: Kind::Node, name: name.to_owned() });
    }
    let bad = |reason: String| Refusal::BadReport { node: name.to_owned(), reason };
    if report.node != name {
        return Err(bad(format!("it calls itself {}", report.node)));
    }
    if report.applied_revision > REVISION_MAX {
        return Err(bad(format!("there is no revision {}", report.applied_revision)));
    }
    if report.portals.len() > PORTALS_MAX || report.disks.len() > DISKS_MAX {
        return Err(bad(format!("more than {PORTALS_MAX} portals or {DISKS_MAX} disks")));
    }
    for portal in &mut report.portals {
        check_portal(portal).map_err(bad)?;
    }
    check_disks(&report.disks).map_err(bad)?;
    let errors = report.volumes.iter().filter_map(|volume| volume.error.as_ref());
    let texts = errors.chain(&report.http).chain([&report.version]);
    check_lengths(texts).map_err(bad)
}

/// `CONFORMANCE D-7`, `M-53`: an address that hosts can reach, in one spelling.
fn check_portal(portal: &mut PortalReport) -> Result<(), String> {
    let PortalReport { transport, address, service } = &portal;
    if !TRANSPORTS.contains(&transport.as_str()) {
        return Err(format!("{transport:?} is not a transport; there are `tcp` and `rdma`"));
    }
    let ip: IpAddr = address.parse().map_err(|_| format!("{address:?} is not an IP address"))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("hosts cannot connect to {ip}; list the node's own addresses"));
    }
    let port: u16 = service.parse().map_err(|_| format!("{service:?} is not a port"))?;
    if port == 0 {
        return Err("0 is not a port".to_owned());
    }
    (portal.address, portal.service) = (ip.to_string(), port.to_string());
    Ok(())
}

fn check_disks(disks: &[DiskReport]) -> Result<(), String> {
    let mut paths = HashMap::new();
    for disk in disks {
        if let Some(other) = paths.insert(disk.uuid, &disk.path) {
            return Err(format!(
                "disks {other} and {} have one identity, {}",
                disk.path, disk.uuid
            ));
        }
    }
    check_lengths(disks.iter().flat_map(|disk| [Some(&disk.path), disk.error.as_ref()]).flatten())
}

fn check_lengths<'a>(mut texts: impl Iterator<Item = &'a String>) -> Result<(), String> {
    match texts.any(|text| text.len() > TEXT_MAX) {
        true => Err(format!("a text in it is longer than {TEXT_MAX} bytes")),
        false => Ok(()),
    }
}

/// What went wrong since the report before.
fn news(before: Option<&NodeReport>, now: &NodeReport) -> Vec<(&'static str, String)> {
    let failed_disk = |disk: &DiskReport| disk.state == DiskState::Failed;
    let known_disk = |disk: &DiskReport| {
        let mut disks = before.iter().flat_map(|report| &report.disks);
        disks.any(|old| old.uuid == disk.uuid && failed_disk(old))
    };
    let disks = now.disks.iter().filter(|disk| failed_disk(disk) && !known_disk(disk));
    let disks = disks.map(|disk| {
        let error = disk.error.as_deref().unwrap_or("no reason given");
        ("disk_failed", format!("disk {} ({}) failed: {error}", disk.path, disk.uuid))
    });
    let old_failures: HashMap<_, _> = before
        .iter()
        .flat_map(|report| &report.volumes)
        .filter(|volume| volume.state == ReplicaState::Failed)
        .map(|volume| (volume.replica, &volume.error))
        .collect();
    let failures = now.volumes.iter().filter(|volume| {
        volume.state == ReplicaState::Failed
            && old_failures.get(&volume.replica) != Some(&&volume.error)
    });
    let replicas = failures.map(|volume| {
        let error = volume.error.as_deref().unwrap_or("no reason given");
        let (replica, volume) = (volume.replica, volume.volume);
        ("replica_failed", format!("replica {replica} of volume {volume} failed: {error}"))
    });
    disks.chain(replicas).collect()
}
