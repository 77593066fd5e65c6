//! Completion status codes, with the names of the specification (NVMe Base 2.0 §4.6.1, fabrics
//! §3.3, CONFORMANCE 3.1 and 5.4). Everything that answers a command ends in one of these.

use std::fmt;

/// Status of a command: status code type and status code, plus the retry bits.
///
/// Kept as the status field of a completion without its phase bit: code in bits 7:0, code type in
/// 10:8, command retry delay in 12:11, *more* in 13, *do not retry* in 14.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

const CODE_MASK: u16 = 0x07ff;
const MORE: u16 = 0x2000;
const DNR: u16 = 0x4000;
const FIELD_MASK: u16 = 0x7fff;

impl Status {
    /// A status from `SCT << 8 | SC` (11 bits; higher bits are cut off), retry allowed.
    pub const fn from_code(code: u16) -> Status {
        Status(code & CODE_MASK)
    }

    /// Reads the status field of a completion; the phase bit is dropped.
    pub const fn from_wire(field: u16) -> Status {
        Status((field >> 1) & FIELD_MASK)
    }

    /// The status field of a completion, phase bit 0 as on all fabrics.
    pub const fn to_wire(self) -> u16 {
        self.0 << 1
    }

    /// The same status with *do not retry* set. Never use it on a path status
    /// (CONFORMANCE I-1), nor on a Connect refused for a passing reason (CONFORMANCE F-4).
    pub const fn dnr(self) -> Status {
        Status(self.0 | DNR)
    }

    /// The same status with *more* set: the error log holds an entry about this command.
    pub const fn more(self) -> Status {
        Status(self.0 | MORE)
    }

    /// `SCT << 8 | SC`, without retry bits.
    pub const fn code(self) -> u16 {
        self.0 & CODE_MASK
    }

    /// Whether the host is told not to retry.
    pub const fn is_dnr(self) -> bool {
        self.0 & DNR != 0
    }

    /// Whether the error log is said to hold more about this command.
    pub const fn is_more(self) -> bool {
        self.0 & MORE != 0
    }

    /// Whether the command succeeded.
    pub const fn is_success(self) -> bool {
        self.code() == 0
    }

    /// Whether this is a path related status (SCT 3), on which a multipath host fails over.
    pub const fn is_path(self) -> bool {
        self.code() >> 8 == 3
    }
}

macro_rules! statuses {
    ($($code:literal $name:ident $doc:literal)*) => {
        impl Status {
            $(#[doc = concat!($doc, " (", stringify!($code), ").")]
            pub const $name: Status = Status::from_code($code);)*

            /// Name of the constant that has this code; Connect's meaning where two share one.
            pub const fn name(self) -> Option<&'static str> {
                match self.code() {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }

        #[cfg(test)]
        const ALL: &[Status] = &[$(Status::$name),*];
    };
}

statuses! {
    0x000 SUCCESS "Successful completion"
    0x001 INVALID_OPCODE "Opcode not known or not offered"
    0x002 INVALID_FIELD "A reserved or unsupported value in a defined field"
    0x003 COMMAND_ID_CONFLICT "Command identifier already in use"
    0x004 DATA_TRANSFER_ERROR "Data or metadata could not be transferred"
    0x005 ABORTED_POWER_LOSS "Aborted because of a power loss notification"
    0x006 INTERNAL_ERROR "Internal error"
    0x007 ABORT_REQUESTED "Aborted by an Abort command"
    0x008 ABORTED_SQ_DELETION "Aborted because its submission queue was deleted"
    0x009 ABORTED_FAILED_FUSED "Aborted because the other fused command failed"
    0x00a ABORTED_MISSING_FUSED "Aborted because the other fused command is missing"
    0x00b INVALID_NAMESPACE "Invalid namespace or format"
    0x00c COMMAND_SEQUENCE_ERROR "Not allowed at this point of a command sequence"
    0x00d INVALID_SGL_SEGMENT_DESCRIPTOR "Invalid SGL segment descriptor"
    0x00e INVALID_SGL_DESCRIPTOR_COUNT "Invalid number of SGL descriptors"
    0x00f DATA_SGL_LENGTH_INVALID "Length of the data SGL does not fit the command"
    0x010 METADATA_SGL_LENGTH_INVALID "Length of the metadata SGL does not fit the command"
    0x011 SGL_DESCRIPTOR_TYPE_INVALID "SGL descriptor type not supported"
    0x014 ATOMIC_WRITE_UNIT_EXCEEDED "Longer than the atomic write unit"
    0x016 SGL_OFFSET_INVALID "Offset in an SGL descriptor not valid"
    0x018 HOST_ID_INCONSISTENT "Host identifier of inconsistent format"
    0x019 KEEP_ALIVE_EXPIRED "Keep alive timer expired"
    0x01a KEEP_ALIVE_INVALID "Keep alive timeout not valid"
    0x01b ABORTED_PREEMPT "Aborted because a reservation was preempted"
    0x020 NAMESPACE_WRITE_PROTECTED "Namespace is write protected"
    0x021 COMMAND_INTERRUPTED "Interrupted; worth a retry later"
    0x022 TRANSIENT_TRANSPORT_ERROR "Transient transport error, such as a data digest mismatch"
    0x029 IO_COMMAND_SET_NOT_SUPPORTED "I/O command set not supported"
    0x02a IO_COMMAND_SET_NOT_ENABLED "I/O command set not enabled"
    0x02c INVALID_IO_COMMAND_SET "Invalid I/O command set"
    0x080 LBA_OUT_OF_RANGE "Beyond the size of the namespace"
    0x081 CAPACITY_EXCEEDED "No space left for a thin namespace"
    0x082 NAMESPACE_NOT_READY "Namespace not ready"
    0x083 RESERVATION_CONFLICT "Held off by a reservation of another host"
    0x101 INVALID_QUEUE_ID "Queue identifier out of range"
    0x102 INVALID_QUEUE_SIZE "Queue size out of range"
    0x103 ABORT_LIMIT_EXCEEDED "More Abort commands than ACL allows"
    0x105 ASYNC_EVENT_LIMIT_EXCEEDED "More asynchronous event requests than AERL allows"
    0x109 INVALID_LOG_PAGE "Log page not supported"
    0x10d FEATURE_NOT_SAVEABLE "Feature cannot be saved"
    0x10e FEATURE_NOT_CHANGEABLE "Feature cannot be changed"
    0x10f FEATURE_NOT_NAMESPACE_SPECIFIC "Feature is not namespace specific"
    0x180 CONNECT_INCOMPATIBLE_FORMAT "Connect: record format not supported"
    0x181 CONNECT_CONTROLLER_BUSY "Connect: temporarily full or in transition"
    0x182 CONNECT_INVALID_PARAMETERS "Connect: a field is wrong; the result says which"
    0x183 CONNECT_RESTART_DISCOVERY "Connect: the host should run discovery again"
    0x184 CONNECT_INVALID_HOST "Connect: host not allowed"
    0x190 DISCOVERY_RESTART "Discovery log changed while it was read"
    0x191 AUTHENTICATION_REQUIRED "Authentication required first"
    0x280 WRITE_FAULT "Data could not be written"
    0x281 UNRECOVERED_READ_ERROR "Data could not be read"
    0x282 GUARD_CHECK_ERROR "End-to-end guard check failed"
    0x283 APPLICATION_TAG_CHECK_ERROR "End-to-end application tag check failed"
    0x284 REFERENCE_TAG_CHECK_ERROR "End-to-end reference tag check failed"
    0x285 COMPARE_FAILURE "Compare found a difference"
    0x286 ACCESS_DENIED "Access denied"
    0x287 DEALLOCATED_BLOCK "Deallocated or unwritten logical block"
    0x300 INTERNAL_PATH_ERROR "Path: internal error of this controller"
    0x301 ANA_PERSISTENT_LOSS "Path: ANA group in state persistent loss"
    0x302 ANA_INACCESSIBLE "Path: ANA group in state inaccessible"
    0x303 ANA_TRANSITION "Path: ANA group in state change"
    0x360 CONTROLLER_PATH_ERROR "Path: error seen by the controller"
    0x370 HOST_PATH_ERROR "Path: error seen by the host; never sent by a controller"
    0x371 ABORTED_BY_HOST "Path: aborted by the host; never sent by a controller"
}

impl Status {
    /// I/O meaning of 0x182: attempted write to a read-only range.
    pub const READ_ONLY_RANGE: Status = Status::from_code(0x182);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} (0x{:03x}", self.code())?,
            None => write!(f, "status (0x{:03x}", self.code())?,
        }
        f.write_str(if self.is_dnr() { ", do not retry)" } else { ")" })
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_has_code_type_and_dnr_where_the_host_looks() {
        assert_eq!(Status::SUCCESS.to_wire(), 0);
        assert_eq!(Status::INVALID_FIELD.dnr().to_wire(), 0x8004);
        assert_eq!(Status::ANA_INACCESSIBLE.to_wire(), 0x0604);
        assert_eq!(Status::WRITE_FAULT.more().to_wire(), 0x4500);
    }

    #[test]
    fn every_named_status_survives_the_wire_and_is_named_once() {
        for (index, status) in ALL.iter().enumerate() {
            assert_eq!(Status::from_wire(status.to_wire()), *status);
            assert_eq!(Status::from_wire(status.dnr().to_wire() | 1), status.dnr());
            assert!(status.name().is_some());
            assert!(ALL[..index].iter().all(|other| other != status));
        }
    }

    #[test]
    fn text_names_the_status_and_its_retry_bit() {
        assert_eq!(Status::INVALID_FIELD.dnr().to_string(), "INVALID_FIELD (0x002, do not retry)");
        assert_eq!(format!("{:?}", Status::from_code(0x1ff)), "status (0x1ff)");
    }

    #[test]
    fn only_code_type_three_is_a_path_status() {
        let paths: Vec<u16> = ALL.iter().filter(|s| s.is_path()).map(|s| s.code()).collect();
        assert_eq!(paths, [0x300, 0x301, 0x302, 0x303, 0x360, 0x370, 0x371]);
    }
}
