//! What the SGL of a command says about its data, compared with what the capsule holds
//! (CONFORMANCE T-20 to T-25, T-72 to T-77). Used by the target's codec alone.

use afs_nvme::sqe::{FLAGS_PSDT_MASK, FLAGS_SGL};
use afs_nvme::tcp::{ADMIN_IN_CAPSULE_BYTES, Fes};
use afs_nvme::{SglDescriptor, Sqe, Status, Transfer};

use super::commands::CommandData;
use super::frame::{FieldError, offset};
use super::limits::WireLimits;

/// Offset of the SGL's address in a CapsuleCmd PDU.
const SGL_ADDRESS_OFFSET: u32 = 8 + 24;

/// How a command's data travels, and what is wrong with it if it must be refused.
pub(super) struct Plan {
    pub(super) data: CommandData,
    pub(super) fault: Option<Status>,
}

impl Plan {
    fn of(data: CommandData) -> Plan {
        Plan { data, fault: None }
    }

    fn refused(fault: Status) -> Plan {
        Plan { data: CommandData::None, fault: Some(fault) }
    }
}

/// Decides how the data of `sqe` travels; `capsule_bytes` is what the capsule holds. A fault of the command is
/// in the plan, a fault of the framing is the error.
pub(super) fn plan(
    sqe: &Sqe,
    capsule_bytes: u32,
    admin: bool,
    limits: &WireLimits,
) -> Result<Plan, FieldError> {
    if sqe.flags & FLAGS_PSDT_MASK != FLAGS_SGL {
        return Ok(Plan::refused(Status::INVALID_FIELD.dnr()));
    }
    if sqe.sgl.length.get() == 0 && capsule_bytes == 0 {
        return Ok(Plan::of(CommandData::None));
    }
    match sqe.sgl.parse_tcp() {
        Err(status) => Ok(Plan::refused(status)),
        Ok(SglDescriptor::InCapsule { offset: start, length }) => {
            if start != 0 {
                return Err((Fes::UnsupportedParameter, SGL_ADDRESS_OFFSET));
            }
            if length != capsule_bytes {
                return Err((Fes::InvalidHeaderField, offset::PLEN));
            }
            Ok(in_capsule(sqe, length, admin, limits))
        }
        Ok(other) => {
            if capsule_bytes != 0 {
                return Err((Fes::InvalidHeaderField, offset::PLEN));
            }
            Ok(transport(sqe.transfer(), other.length(), limits))
        }
    }
}

/// CONFORMANCE T-23, T-73, T-75.
fn in_capsule(sqe: &Sqe, length: u32, admin: bool, limits: &WireLimits) -> Plan {
    let limit =
        if admin || sqe.is_fabrics() { ADMIN_IN_CAPSULE_BYTES } else { limits.in_capsule_bytes };
    if sqe.transfer() != Transfer::HostToController {
        Plan::refused(Status::INVALID_FIELD.dnr())
    } else if length > limit {
        Plan::refused(Status::SGL_OFFSET_INVALID.dnr())
    } else {
        Plan::of(CommandData::InCapsule)
    }
}

/// CONFORMANCE T-21, T-77.
fn transport(direction: Transfer, length: u32, limits: &WireLimits) -> Plan {
    if length > limits.max_transfer {
        return Plan::refused(Status::INVALID_FIELD.dnr());
    }
    match direction {
        Transfer::HostToController => Plan::of(CommandData::FromHost(length)),
        Transfer::ControllerToHost => Plan::of(CommandData::ToHost(length)),
        Transfer::None | Transfer::Bidirectional => Plan::of(CommandData::None),
    }
}
