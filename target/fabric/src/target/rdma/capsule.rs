//! What the SGL of a command over RDMA says about its data, compared with what the capsule holds (CONFORMANCE 2.2).

use afs_nvme::sqe::{FLAGS_PSDT_MASK, FLAGS_SGL};
use afs_nvme::{SglDescriptor, Sqe, Status, Transfer};
use afs_reactor::verbs::RemoteMemory;

use crate::codec::CommandData;

/// Bytes of a capsule before its data (CONFORMANCE R-10).
pub(super) const CAPSULE_BYTES: usize = 64;

/// What bounds the data of a command.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// In-capsule data, in bytes; 0 on admin queues (CONFORMANCE ).
    pub(super) in_capsule: u32,
    /// Any transfer, in bytes (CONFORMANCE R-21).
    pub(super) transfer: u32,
}

/// How a command's data travels, and what is wrong with it if it must be refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) data: CommandData,
    /// The host's memory, for data that is not in the capsule.
    pub(super) remote: Option<RemoteMemory>,
    /// Key to invalidate with the response, whatever that says (CONFORMANCE R-15).
    pub(super) invalidate: Option<u32>,
    pub(super) fault: Option<Status>,
}

impl Plan {
    const NONE: Plan =
        Plan { data: CommandData::None, remote: None, invalidate: None, fault: None };

    fn refused(fault: Status) -> Plan {
        Plan { fault: Some(fault), ..Plan::NONE }
    }
}

/// Decides how the data of `sqe` travels; `capsule_data` is how many bytes came behind the command.
pub(super) fn plan(sqe: &Sqe, capsule_data: u32, bounds: Bounds) -> Plan {
    if sqe.flags & FLAGS_PSDT_MASK != FLAGS_SGL {
        return Plan::refused(Status::INVALID_FIELD.dnr());
    }
    match sqe.sgl.parse_rdma() {
        Err(status) => Plan::refused(status),
        Ok(SglDescriptor::InCapsule { offset, length }) => {
            in_capsule(sqe, offset, length, capsule_data, bounds.in_capsule)
        }
        Ok(SglDescriptor::Keyed { address, length, key, invalidate }) => {
            let remote = RemoteMemory { address, key };
            let plan = keyed(sqe, remote, length, bounds.transfer);
            Plan { invalidate: (invalidate && length > 0).then_some(key), ..plan }
        }
        Ok(SglDescriptor::Transport { .. }) => {
            Plan::refused(Status::SGL_DESCRIPTOR_TYPE_INVALID.dnr())
        }
    }
}

fn in_capsule(sqe: &Sqe, offset: u64, length: u32, capsule_data: u32, limit: u32) -> Plan {
    if length == 0 {
        Plan::NONE
    } else if sqe.transfer() != Transfer::HostToController {
        Plan::refused(Status::INVALID_FIELD.dnr())
    } else if offset != 0 || length > limit {
        Plan::refused(Status::SGL_OFFSET_INVALID.dnr())
    } else if length != capsule_data {
        Plan::refused(Status::DATA_SGL_LENGTH_INVALID.dnr())
    } else {
        Plan { data: CommandData::InCapsule, ..Plan::NONE }
    }
}

fn keyed(sqe: &Sqe, remote: RemoteMemory, length: u32, limit: u32) -> Plan {
    if length > limit {
        return Plan::refused(Status::INVALID_FIELD.dnr());
    }
    let data = match sqe.transfer() {
        _ if length == 0 => CommandData::None,
        Transfer::HostToController => CommandData::FromHost(length),
        Transfer::ControllerToHost => CommandData::ToHost(length),
        Transfer::None | Transfer::Bidirectional => CommandData::None,
    };
    Plan { data, remote: Some(remote), ..Plan::NONE }
}

#[cfg(test)]
mod tests {
    use afs_nvme::Sgl;
    use afs_nvme::command::{IoCommand, Rw};

    use super::*;

    const BOUNDS: Bounds = Bounds { in_capsule: 4096, transfer: 1 << 20 };
    const MEMORY: RemoteMemory = RemoteMemory { address: 0x1000, key: 7 };

    fn rw() -> Rw {
        Rw { lba: 0, blocks: 1, fua: false }
    }

    fn write(sgl: Sgl) -> Sqe {
        Sqe { sgl, ..IoCommand::Write(rw()).to_sqe(1) }
    }

    fn read(sgl: Sgl) -> Sqe {
        Sqe { sgl, ..IoCommand::Read(rw()).to_sqe(1) }
    }

    fn keyed(length: u32, invalidate: bool) -> Sgl {
        let RemoteMemory { address, key } = MEMORY;
        SglDescriptor::Keyed { address, length, key, invalidate }.to_sgl()
    }

    #[test]
    fn keyed_data_travels_by_read_or_write_and_asks_for_invalidation_only_by_its_type() {
        let found = plan(&write(keyed(4096, false)), 0, BOUNDS);
        assert_eq!((found.data, found.remote), (CommandData::FromHost(4096), Some(MEMORY)));
        assert_eq!((found.invalidate, found.fault), (None, None));
        let found = plan(&read(keyed(4096, true)), 0, BOUNDS);
        assert_eq!((found.data, found.invalidate), (CommandData::ToHost(4096), Some(7)));
    }

    #[test]
    fn refused_command_still_has_its_key_invalidated() {
        let found = plan(&read(keyed((1 << 20) + 4096, true)), 0, BOUNDS);
        assert_eq!(found.fault, Some(Status::INVALID_FIELD.dnr()));
        assert_eq!(found.invalidate, Some(7));
    }

    #[test]
    fn null_transfer_has_no_data_and_no_key() {
        let found = plan(&read(keyed(0, true)), 0, BOUNDS);
        assert_eq!((found.data, found.invalidate, found.fault), (CommandData::None, None, None));
    }

    #[test]
    fn in_capsule_data_must_be_there_whole_and_within_the_limit() {
        let good = plan(&write(Sgl::in_capsule(4096)), 4096, BOUNDS);
        assert_eq!((good.data, good.fault), (CommandData::InCapsule, None));
        let fault = |sqe: Sqe, bytes| plan(&sqe, bytes, BOUNDS).fault;
        let offset = Some(Status::SGL_OFFSET_INVALID.dnr());
        let length = Some(Status::DATA_SGL_LENGTH_INVALID.dnr());
        assert_eq!(fault(write(Sgl::in_capsule(8192)), 8192), offset);
        assert_eq!(fault(write(Sgl::in_capsule(4096)), 2048), length);
        assert_eq!(fault(write(Sgl::in_capsule(2048)), 4096), length);
        let shifted = SglDescriptor::InCapsule { offset: 16, length: 512 }.to_sgl();
        assert_eq!(fault(write(shifted), 528), offset);
        assert_eq!(fault(read(Sgl::in_capsule(4096)), 4096), Some(Status::INVALID_FIELD.dnr()));
    }

    #[test]
    fn admin_queue_takes_no_data_in_capsule() {
        let bounds = Bounds { in_capsule: 0, ..BOUNDS };
        let found = plan(&write(Sgl::in_capsule(1024)), 1024, bounds);
        assert_eq!(found.fault, Some(Status::SGL_OFFSET_INVALID.dnr()));
    }

    #[test]
    fn descriptors_of_tcp_and_prp_lists_are_refused() {
        let found = plan(&write(Sgl::transport(4096)), 0, BOUNDS);
        assert_eq!(found.fault, Some(Status::SGL_DESCRIPTOR_TYPE_INVALID.dnr()));
        let prp = Sqe { flags: 0, ..write(keyed(4096, false)) };
        assert_eq!(plan(&prp, 0, BOUNDS).fault, Some(Status::INVALID_FIELD.dnr()));
    }
}
