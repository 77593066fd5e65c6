//! Identify (CONFORMANCE 4.2 to 4.4): what a host learns about controllers and namespaces.
//!
//! Everything but the controller's own number and the firmware revision is the same on all nodes (CONFORMANCE M-7, M-8).

use super::{AdminQueue, Answer, data};
use crate::controller::Role;
use crate::keep_alive::KAS_100MS;
use crate::limits::*;
use crate::namespace::{Namespace, NamespaceMap};
use crate::properties::VERSION;
use crate::subsystem::Subsystem;
use afs_fabric::Request;
use afs_nvme::identify::*;
use afs_nvme::nqn::Nqn;
use afs_nvme::{Status, text};
use std::sync::Arc;
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// The NVM command set.
const CSI_NVM: u8 = 0;
/// Warning and critical temperatures in kelvin: what drives of this class report (CONFORMANCE 4.3).
const TEMPERATURE_WARNING: u16 = 343;
const TEMPERATURE_CRITICAL: u16 = 353;

impl AdminQueue {
    pub(super) async fn identify(
        &self,
        nsid: u32,
        what: u8,
        cntid: u16,
        csi: u8,
        request: &Request,
    ) -> Answer {
        let subsystem = match &self.controller.role {
            Role::Io(subsystem) => subsystem,
            Role::Discovery(_) if what == cns::CONTROLLER => {
                return structure(request, &self.discovery_controller()).await;
            }
            Role::Discovery(_) => return Err(Status::INVALID_FIELD.dnr()),
        };
        let map = subsystem.namespaces();
        match what {
            cns::CONTROLLER => structure(request, &self.io_controller(subsystem)).await,
            cns::NAMESPACE | cns::ALLOCATED_NAMESPACE => {
                structure(request, &namespace(&map, nsid)?).await
            }
            cns::ACTIVE_NAMESPACES | cns::ALLOCATED_NAMESPACES => {
                structure(request, &namespaces(&map, nsid)?).await
            }
            cns::COMMAND_SET_ACTIVE_NAMESPACES | cns::COMMAND_SET_ALLOCATED_NAMESPACES => {
                only_nvm(csi)?;
                structure(request, &namespaces(&map, nsid)?).await
            }
            cns::DESCRIPTORS => structure(request, &descriptors(active(&map, nsid)?)).await,
            cns::COMMAND_SET_NAMESPACE => {
                only_nvm(csi)?;
                valid(nsid)?;
                structure(request, &IdentifyNvmNamespace::new_zeroed()).await
            }
            cns::COMMAND_SET_CONTROLLER => {
                only_nvm(csi)?;
                structure(request, &nvm_controller()).await
            }
            cns::INDEPENDENT_NAMESPACE => {
                structure(request, &independent(active(&map, nsid)?)).await
            }
            cns::NAMESPACE_CONTROLLERS => {
                active(&map, nsid)?;
                structure(request, &controllers(subsystem, cntid)).await
            }
            cns::SUBSYSTEM_CONTROLLERS => structure(request, &controllers(subsystem, cntid)).await,
            cns::COMMAND_SETS => structure(request, &CommandSetVectors::nvm_only()).await,
            _ => Err(Status::INVALID_FIELD.dnr()),
        }
    }

    /// What both kinds of controller share.
    fn controller_base(&self, nqn: &Nqn) -> IdentifyController {
        let mut id = IdentifyController::new_zeroed();
        id.fr = text::padded(env!("CARGO_PKG_VERSION"));
        id.mdts = MDTS;
        id.cntlid = self.controller.id.get().into();
        id.ver = VERSION.into();
        id.oaes = self.supported_events().into();
        id.ctratt = (ctratt::HOST_ID_128 | ctratt::TRAFFIC_BASED_KEEP_ALIVE).into();
        id.aerl = EVENT_REQUESTS_MAX - 1;
        id.elpe = ERROR_LOG_ENTRIES_0BASED;
        id.kas = KAS_100MS.into();
        id.sqes = 0x66;
        id.cqes = 0x44;
        id.maxcmd = (MQES + 1).into();
        id.subnqn = nqn.to_field();
        self.controller.link.describe(&mut id);
        id
    }

    fn discovery_controller(&self) -> IdentifyController {
        let mut id = self.controller_base(&Nqn::discovery());
        id.sn = text::padded(&self.node.options.name);
        id.mn = text::padded(conductor::api::MODEL);
        id.cntrltype = cntrltype::DISCOVERY;
        id.lpa = lpa::EXTENDED_DATA;
        id.ioccsz = 4.into(); // there are no I/O queues (D-2)
        id
    }

    fn io_controller(&self, subsystem: &Arc<Subsystem>) -> IdentifyController {
        let mut id = self.controller_base(&subsystem.identity.nqn);
        id.sn = text::padded(&subsystem.identity.serial);
        id.mn = text::padded(&subsystem.identity.model);
        id.rab = 6;
        id.cmic = cmic::MULTI_PORT | cmic::MULTI_CONTROLLER | cmic::ANA;
        id.cntrltype = cntrltype::IO;
        id.acl = ABORTS_MAX - 1;
        id.frmw = 0x03; // one slot, read-only
        id.lpa = lpa::EFFECTS | lpa::EXTENDED_DATA | lpa::SUPPORTED_PAGES;
        id.wctemp = TEMPERATURE_WARNING.into();
        id.cctemp = TEMPERATURE_CRITICAL.into();
        id.anatt = ANA_TRANSITION_SECONDS;
        id.anacap = anacap::ALL_STATES;
        id.anagrpmax = NSID_MAX.into();
        id.nanagrpid = NSID_MAX.into();
        id.nn = NSID_MAX.into();
        id.mnan = NSID_MAX.into();
        id.oncs = (oncs::COMPARE
            | oncs::DATASET_MANAGEMENT
            | oncs::WRITE_ZEROES
            | oncs::FEATURE_SELECT
            | oncs::VERIFY)
            .into();
        // No volatile cache: what is acknowledged is durable (CONFORMANCE 4.3, VWC).
        id.vwc = vwc::FLUSH_ALL_SUPPORTED;
        id.psd[0].mp = 0x09C4.into();
        id
    }
}

async fn structure<T: IntoBytes + Immutable>(request: &Request, layout: &T) -> Answer {
    const { assert!(size_of::<T>() == 4096) }
    if request.data_len() != 4096 {
        return Err(Status::DATA_SGL_LENGTH_INVALID.dnr()); // T-26
    }
    data(request, 4096, |out| out.copy_from_slice(layout.as_bytes())).await
}

fn only_nvm(csi: u8) -> Result<(), Status> {
    if csi == CSI_NVM { Ok(()) } else { Err(Status::INVALID_IO_COMMAND_SET.dnr()) }
}

/// An NSID that could be a namespace's (CONFORMANCE 4.2, CNS 00).
fn valid(nsid: u32) -> Result<(), Status> {
    if (1..=NSID_MAX).contains(&nsid) { Ok(()) } else { Err(Status::INVALID_NAMESPACE.dnr()) }
}

fn active(map: &NamespaceMap, nsid: u32) -> Result<&Namespace, Status> {
    map.get(nsid).map(Arc::as_ref).ok_or(Status::INVALID_NAMESPACE.dnr())
}

fn namespaces(map: &NamespaceMap, after: u32) -> Result<NamespaceList, Status> {
    if after >= u32::MAX - 1 {
        return Err(Status::INVALID_NAMESPACE.dnr());
    }
    Ok(NamespaceList::new(after, map.active_after(after)))
}

/// Controllers that this node knows; those of other nodes are for the hosts that connect there to see.
fn controllers(subsystem: &Subsystem, from: u16) -> ControllerList {
    ControllerList::new(from, subsystem.controllers().iter().map(|controller| controller.id.get()))
}

fn namespace(map: &NamespaceMap, nsid: u32) -> Result<IdentifyNamespace, Status> {
    valid(nsid)?;
    let mut id = IdentifyNamespace::new_zeroed();
    // A number that is valid and not in use reads as zeroes.
    let Some(namespace) = map.get(nsid) else { return Ok(id) };
    let used = namespace.source.as_ref().map_or(0, |source| source.allocated_bytes());
    id.nsze = namespace.blocks.into();
    id.ncap = namespace.blocks.into();
    id.nuse = (used / u64::from(BLOCK_BYTES)).min(namespace.blocks).into();
    id.nsfeat = nsfeat::THIN | nsfeat::ATOMICS | nsfeat::OPTIMAL_IO;
    id.nmic = nmic::SHARED;
    id.dlfeat = dlfeat::READS_ZERO | dlfeat::WRITE_ZEROES_DEALLOCATE;
    // One block is the atomic unit: all limits are 0's based and 0.
    id.nvmcap = (u128::from(namespace.blocks) * u128::from(BLOCK_BYTES)).into();
    id.anagrpid = namespace.nsid.get().into();
    id.nsattr = if namespace.read_only { nsattr::WRITE_PROTECTED } else { 0 };
    id.nguid = namespace.nguid;
    id.lbaf[0].lbads = BLOCK_SHIFT;
    Ok(id)
}

fn independent(namespace: &Namespace) -> IdentifyIndependentNamespace {
    let mut id = IdentifyIndependentNamespace::new_zeroed();
    id.nsfeat = nsfeat::THIN;
    id.nmic = nmic::SHARED;
    id.anagrpid = namespace.nsid.get().into();
    id.nsattr = if namespace.read_only { nsattr::WRITE_PROTECTED } else { 0 };
    id.nstat = nstat::READY;
    id
}

fn descriptors(namespace: &Namespace) -> DescriptorList {
    DescriptorList::new(&[
        Descriptor::Nguid(namespace.nguid),
        Descriptor::Uuid(*namespace.uuid.as_bytes()),
        Descriptor::Csi(CSI_NVM),
    ])
}

fn nvm_controller() -> IdentifyNvmController {
    let mut id = IdentifyNvmController::new_zeroed();
    id.wzsl = WRITE_ZEROES_SHIFT;
    id.dmrsl = DEALLOCATE_BLOCKS_MAX.into();
    id
}
