//! Get Log Page (CONFORMANCE 4.5). Each log is gathered whole and cut at the offset that was asked for.

use super::{AdminQueue, Answer, copy_from, data};
use crate::controller::{Controller, Role};
use crate::events::Event;
use crate::limits::{ERROR_LOG_ENTRIES, NSID_MAX, TRANSFER_BYTES_MAX};
use crate::metrics::io::Operation;
use crate::namespace::NamespaceMap;
use crate::node::Node;
use crate::subsystem::Subsystem;
use afs_fabric::Request;
use afs_nvme::feature::fid;
use afs_nvme::log::ana::{LSP_GROUPS_ONLY, log_bytes_max};
use afs_nvme::log::effects::{effect, feature, page};
use afs_nvme::log::smart::DATA_UNIT_BYTES;
use afs_nvme::log::*;
use afs_nvme::{Status, opcode, text};
use zerocopy::{FromZeros, IntoBytes};

/// What the host asked for.
pub(super) struct Wanted {
    pub lid: u8,
    pub lsp: u8,
    /// Retain the event: the log is only looked at.
    pub rae: bool,
    pub bytes: u64,
    pub offset: u64,
    pub nsid: u32,
}

/// There is no sensor behind a volume; hosts want a sane temperature (CONFORMANCE 4.5, 02): 25 degrees.
const TEMPERATURE_KELVIN: u16 = 298;
const ALL_NAMESPACES: u32 = u32::MAX;

/// The logs of an I/O controller.
const IO_LOGS: [u8; 8] = [
    lid::SUPPORTED_LOG_PAGES,
    lid::ERROR_INFORMATION,
    lid::SMART,
    lid::FIRMWARE_SLOT,
    lid::CHANGED_NAMESPACES,
    lid::EFFECTS,
    lid::ANA,
    lid::FEATURE_EFFECTS,
];
/// The logs of a discovery controller (CONFORMANCE D-1).
const DISCOVERY_LOGS: [u8; 4] =
    [lid::SUPPORTED_LOG_PAGES, lid::ERROR_INFORMATION, lid::SMART, lid::DISCOVERY];

impl AdminQueue {
    pub(super) async fn log_page(&self, wanted: &Wanted, request: &Request) -> Answer {
        let length = u32::try_from(wanted.bytes).unwrap_or(u32::MAX);
        if length > TRANSFER_BYTES_MAX {
            return Err(Status::INVALID_FIELD.dnr());
        }
        // Before the reading has effects: a log that the host cannot get must not count as read.
        if request.data_len() < length {
            return Err(Status::DATA_SGL_LENGTH_INVALID.dnr());
        }
        if wanted.lid == lid::DISCOVERY {
            return self.discovery_log(wanted, length, request).await;
        }
        let log = self.gather(wanted)?;
        if wanted.offset > log.len() as u64 {
            return Err(Status::INVALID_FIELD);
        }
        data(request, length, |out| {
            copy_from(&log, wanted.offset, out);
        })
        .await
    }

    async fn discovery_log(&self, wanted: &Wanted, length: u32, request: &Request) -> Answer {
        let Role::Discovery(view) = &self.controller.role else {
            return Err(Status::INVALID_FIELD);
        };
        if !wanted.rae {
            self.controller.events.reading(Event::DiscoveryChange);
        }
        let mut inside = false;
        let answer = data(request, length, |out| inside = view.read(wanted.offset, out)).await?;
        if inside { Ok(answer) } else { Err(Status::INVALID_FIELD) }
    }

    fn gather(&self, wanted: &Wanted) -> Result<Vec<u8>, Status> {
        let controller = &self.controller;
        let logs = self.supported_logs();
        if !logs.contains(&wanted.lid) {
            return Err(Status::INVALID_LOG_PAGE.dnr());
        }
        match (wanted.lid, controller.subsystem()) {
            (lid::SUPPORTED_LOG_PAGES, _) => Ok(supported(logs)),
            (lid::ERROR_INFORMATION, _) => Ok(errors(controller)),
            (lid::SMART, subsystem) => {
                // LPA bit 0 is 0: no log per namespace.
                if wanted.nsid != 0 && wanted.nsid != ALL_NAMESPACES {
                    return Err(Status::INVALID_FIELD);
                }
                Ok(smart(&self.node, controller, subsystem.map(|subsystem| &**subsystem)))
            }
            (lid::FIRMWARE_SLOT, _) => Ok(firmware()),
            (lid::CHANGED_NAMESPACES, _) => Ok(changed(controller, wanted.rae)),
            (lid::EFFECTS, _) => Ok(effects()),
            (lid::FEATURE_EFFECTS, _) => Ok(feature_effects()),
            (lid::ANA, Some(subsystem)) => {
                if !wanted.rae {
                    controller.events.reading(Event::AnaChange);
                }
                Ok(ana(&subsystem.namespaces(), wanted.lsp & LSP_GROUPS_ONLY != 0))
            }
            _ => Err(Status::INVALID_LOG_PAGE.dnr()),
        }
    }

    fn supported_logs(&self) -> &'static [u8] {
        match self.controller.role {
            Role::Io(_) => &IO_LOGS,
            Role::Discovery(_) => &DISCOVERY_LOGS,
        }
    }
}

fn supported(logs: &[u8]) -> Vec<u8> {
    let mut log = SupportedLogPages::new_zeroed();
    for lid in logs {
        log.pages[usize::from(*lid)] = page::SUPPORTED.into();
    }
    log.as_bytes().to_vec()
}

fn errors(controller: &Controller) -> Vec<u8> {
    let mut log = controller.errors.newest_first().as_bytes().to_vec();
    log.resize(ERROR_LOG_ENTRIES * size_of::<ErrorEntry>(), 0);
    log
}

fn firmware() -> Vec<u8> {
    let mut log = FirmwareSlotLog::new_zeroed();
    log.afi = 1;
    log.revisions[0] = text::padded(env!("CARGO_PKG_VERSION"));
    log.as_bytes().to_vec()
}

fn changed(controller: &Controller, retain: bool) -> Vec<u8> {
    if !retain {
        controller.events.reading(Event::NamespaceAttribute);
    }
    ChangedNamespaces::new(controller.changed_namespaces(!retain)).as_bytes().to_vec()
}

fn effects() -> Vec<u8> {
    let mut log = EffectsLog::new_zeroed();
    for opcode in 0..=u8::MAX {
        let index = usize::from(opcode);
        if opcode::admin::name(opcode).is_some() {
            log.admin[index] = effect::SUPPORTED.into();
        }
        if opcode::io::name(opcode).is_some() {
            let writes = matches!(
                opcode,
                opcode::io::WRITE | opcode::io::WRITE_ZEROES | opcode::io::DATASET_MANAGEMENT
            );
            let change = if writes { effect::CHANGES_BLOCKS } else { 0 };
            log.io[index] = (effect::SUPPORTED | change).into();
        }
    }
    log.as_bytes().to_vec()
}

fn feature_effects() -> Vec<u8> {
    let mut log = FeatureEffectsLog::new_zeroed();
    for supported in [
        fid::ARBITRATION,
        fid::POWER_MANAGEMENT,
        fid::TEMPERATURE_THRESHOLD,
        fid::ERROR_RECOVERY,
        fid::NUMBER_OF_QUEUES,
        fid::INTERRUPT_COALESCING,
        fid::INTERRUPT_VECTOR,
        fid::WRITE_ATOMICITY,
        fid::ASYNC_EVENT_CONFIGURATION,
        fid::KEEP_ALIVE_TIMEOUT,
        fid::HOST_BEHAVIOR,
        fid::HOST_IDENTIFIER,
    ] {
        log.features[usize::from(supported)] =
            (feature::SUPPORTED | feature::SCOPE_CONTROLLER).into();
    }
    log.as_bytes().to_vec()
}

/// One group per namespace, by ascending NSID (CONFORMANCE 6.3).
fn ana(map: &NamespaceMap, groups_only: bool) -> Vec<u8> {
    let count = u16::try_from(map.iter().count()).unwrap_or(u16::MAX);
    let mut log = AnaHeader::new(map.ana_changes, count).as_bytes().to_vec();
    for namespace in map.iter().take(count.into()) {
        let nsid = namespace.nsid.get();
        let members = u32::from(!groups_only);
        let group = AnaGroup::new(nsid, members, namespace.ana_changes, namespace.ana);
        log.extend_from_slice(group.as_bytes());
        if !groups_only {
            log.extend_from_slice(&nsid.to_le_bytes());
        }
    }
    // Tools read all that the identify data promises, in pieces of 4096 bytes: no offset of those lies beyond the end.
    let promised = usize::try_from(log_bytes_max(NSID_MAX, NSID_MAX)).unwrap_or(log.len());
    log.resize(promised.max(log.len()), 0);
    log
}

fn smart(node: &Node, controller: &Controller, subsystem: Option<&Subsystem>) -> Vec<u8> {
    let mut log = SmartLog::new_zeroed();
    log.temperature = TEMPERATURE_KELVIN.into();
    log.available_spare = 100;
    log.available_spare_threshold = 10;
    log.power_cycles = 1.into();
    log.power_on_hours = u128::from(node.started.elapsed().as_secs() / 3600).into();
    log.error_log_entries = u128::from(controller.errors.count()).into();
    if let Some(subsystem) = subsystem {
        add_traffic(&mut log, &subsystem.namespaces());
    }
    log.as_bytes().to_vec()
}

/// What hosts read and wrote since the node started.
fn add_traffic(log: &mut SmartLog, map: &NamespaceMap) {
    let units = |bytes: u64| u128::from(bytes.div_ceil(DATA_UNIT_BYTES));
    let (mut read, mut written) = ((0, 0), (0, 0));
    for namespace in map.iter() {
        let reads = namespace.metrics.snapshot(Operation::Read);
        let writes = namespace.metrics.snapshot(Operation::Write);
        read = (read.0 + reads.bytes, read.1 + reads.operations());
        written = (written.0 + writes.bytes, written.1 + writes.operations());
    }
    log.data_units_read = units(read.0).into();
    log.data_units_written = units(written.0).into();
    log.host_reads = u128::from(read.1).into();
    log.host_writes = u128::from(written.1).into();
}
