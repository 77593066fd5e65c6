//! Identify Controller (CNS 01h, CONFORMANCE 4.3) and its NVM command set part (CNS 06h, 5.3).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Identify Controller (4096 bytes). Start from `FromZeros::new_zeroed`.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyController {
    /// PCI vendor id, or 0.
    pub vid: U16,
    /// PCI subsystem vendor id, or 0.
    pub ssvid: U16,
    /// Serial number of the subsystem, padded with spaces, the same on all nodes.
    pub sn: [u8; 20],
    /// Model number, padded with spaces, the same on all nodes.
    pub mn: [u8; 40],
    /// Firmware revision, padded with spaces.
    pub fr: [u8; 8],
    /// Recommended arbitration burst, 2^n commands.
    pub rab: u8,
    /// IEEE OUI, least significant byte first, or 0.
    pub ieee: [u8; 3],
    /// Multi-path capabilities; see [`cmic`].
    pub cmic: u8,
    /// Largest transfer, 2^n pages of 4 KiB; 0 is no limit.
    pub mdts: u8,
    /// Id of this controller; must equal Connect's result.
    pub cntlid: U16,
    /// Version, equal to property VS.
    pub ver: U32,
    /// Resume latency in µs.
    pub rtd3r: U32,
    /// Shutdown time in µs; 0 makes Linux wait 5 s.
    pub rtd3e: U32,
    /// Asynchronous events on offer; see [`oaes`].
    pub oaes: U32,
    /// Attributes; see [`ctratt`].
    pub ctratt: U32,
    /// Read recovery levels.
    pub rrls: U16,
    /// Reserved.
    pub reserved102: [u8; 9],
    /// Controller type; see [`cntrltype`].
    pub cntrltype: u8,
    /// FRU identifier.
    pub fguid: [u8; 16],
    /// Command retry delay 1 in units of 100 ms.
    pub crdt1: U16,
    /// Command retry delay 2.
    pub crdt2: U16,
    /// Command retry delay 3.
    pub crdt3: U16,
    /// Reserved.
    pub reserved134: [u8; 119],
    /// Subsystem report of the management interface.
    pub nvmsr: u8,
    /// VPD write cycles.
    pub vwci: u8,
    /// Management endpoint capabilities.
    pub mec: u8,
    /// Optional admin commands; 0.
    pub oacs: U16,
    /// Abort commands at once, less one.
    pub acl: u8,
    /// Asynchronous event requests at once, less one.
    pub aerl: u8,
    /// Firmware slots; 0x03 is one, read-only.
    pub frmw: u8,
    /// Log page attributes; see [`lpa`].
    pub lpa: u8,
    /// Error log entries, less one.
    pub elpe: u8,
    /// Power states, less one.
    pub npss: u8,
    /// Vendor admin command format.
    pub avscc: u8,
    /// Autonomous power states; 0.
    pub apsta: u8,
    /// Warning temperature in kelvin.
    pub wctemp: U16,
    /// Critical temperature in kelvin.
    pub cctemp: U16,
    /// Firmware activation time in units of 100 ms.
    pub mtfa: U16,
    /// Preferred host memory buffer.
    pub hmpre: U32,
    /// Least host memory buffer.
    pub hmmin: U32,
    /// Total capacity in bytes, or 0.
    pub tnvmcap: U128,
    /// Free capacity in bytes, or 0.
    pub unvmcap: U128,
    /// Replay protected memory.
    pub rpmbs: U32,
    /// Extended self-test time in minutes.
    pub edstt: U16,
    /// Self-test options.
    pub dsto: u8,
    /// Firmware update granularity.
    pub fwug: u8,
    /// Keep-alive granularity in units of 100 ms; never 0.
    pub kas: U16,
    /// Host thermal management.
    pub hctma: U16,
    /// Lowest thermal management temperature.
    pub mntmt: U16,
    /// Highest thermal management temperature.
    pub mxtmt: U16,
    /// Sanitize capabilities; 0.
    pub sanicap: U32,
    /// Least host memory descriptor.
    pub hmminds: U32,
    /// Most host memory descriptors.
    pub hmmaxd: U16,
    /// Highest NVM set.
    pub nsetidmax: U16,
    /// Highest endurance group.
    pub endgidmax: U16,
    /// Longest time in ANA state change, in seconds; never 0.
    pub anatt: u8,
    /// ANA capabilities; see [`anacap`].
    pub anacap: u8,
    /// Highest ANA group id.
    pub anagrpmax: U32,
    /// Number of ANA groups.
    pub nanagrpid: U32,
    /// Size of the persistent event log.
    pub pels: U32,
    /// Domain.
    pub domainid: U16,
    /// Reserved.
    pub reserved358: [u8; 10],
    /// Largest endurance group capacity.
    pub megcap: U128,
    /// Reserved.
    pub reserved384: [u8; 128],
    /// Submission entry sizes; 0x66.
    pub sqes: u8,
    /// Completion entry sizes; 0x44.
    pub cqes: u8,
    /// Outstanding commands per queue (MQES + 1); never 0.
    pub maxcmd: U16,
    /// Highest NSID.
    pub nn: U32,
    /// Optional I/O commands; see [`oncs`].
    pub oncs: U16,
    /// Fused operations; 0.
    pub fuses: U16,
    /// Format attributes.
    pub fna: u8,
    /// Volatile write cache; see [`vwc`].
    pub vwc: u8,
    /// Atomic write unit in blocks, less one.
    pub awun: U16,
    /// Atomic write unit under power failure in blocks, less one.
    pub awupf: U16,
    /// Vendor I/O command format.
    pub icsvscc: u8,
    /// Namespace write protection; 0.
    pub nwpc: u8,
    /// Atomic compare and write unit, less one.
    pub acwu: U16,
    /// Copy descriptor formats.
    pub cdfs: U16,
    /// SGL support; see [`sgls`].
    pub sgls: U32,
    /// Most active namespaces; 1 to NN when ANA is reported.
    pub mnan: U32,
    /// Most namespaces of a domain.
    pub maxdna: U128,
    /// Most namespaces of a controller.
    pub maxcna: U32,
    /// Reserved.
    pub reserved564: [u8; 204],
    /// Name of the subsystem, NUL-terminated.
    pub subnqn: [u8; 256],
    /// Reserved.
    pub reserved1024: [u8; 768],
    /// Size of an I/O command capsule in units of 16 bytes; at least 4.
    pub ioccsz: U32,
    /// Size of an I/O response capsule in units of 16 bytes; 1.
    pub iorcsz: U32,
    /// Offset of in-capsule data in units of 16 bytes; 0.
    pub icdoff: U16,
    /// Fabrics attributes; bit 0 clear is the dynamic controller model.
    pub fcatt: u8,
    /// Most SGL descriptors; 1.
    pub msdbd: u8,
    /// Optional fabrics commands; 0.
    pub ofcs: U16,
    /// Discovery controller type; 0.
    pub dctype: u8,
    /// Reserved.
    pub reserved1807: [u8; 241],
    /// Power states.
    pub psd: [PowerState; 32],
    /// Vendor specific.
    pub vendor: [u8; 1024],
}

assert_layout!(IdentifyController, 4096, { vid @ 0, ssvid @ 2, sn @ 4, mn @ 24, fr @ 64, rab @ 72, ieee @ 73, cmic @ 76, mdts @ 77, cntlid @ 78, ver @ 80, rtd3r @ 84, rtd3e @ 88, oaes @ 92, ctratt @ 96, rrls @ 100, reserved102 @ 102, cntrltype @ 111, fguid @ 112, crdt1 @ 128, crdt2 @ 130, crdt3 @ 132, reserved134 @ 134, nvmsr @ 253, vwci @ 254, mec @ 255, oacs @ 256, acl @ 258, aerl @ 259, frmw @ 260, lpa @ 261, elpe @ 262, npss @ 263, avscc @ 264, apsta @ 265, wctemp @ 266, cctemp @ 268, mtfa @ 270, hmpre @ 272, hmmin @ 276, tnvmcap @ 280, unvmcap @ 296, rpmbs @ 312, edstt @ 316, dsto @ 318, fwug @ 319, kas @ 320, hctma @ 322, mntmt @ 324, mxtmt @ 326, sanicap @ 328, hmminds @ 332, hmmaxd @ 336, nsetidmax @ 338, endgidmax @ 340, anatt @ 342, anacap @ 343, anagrpmax @ 344, nanagrpid @ 348, pels @ 352, domainid @ 356, reserved358 @ 358, megcap @ 368, reserved384 @ 384, sqes @ 512, cqes @ 513, maxcmd @ 514, nn @ 516, oncs @ 520, fuses @ 522, fna @ 524, vwc @ 525, awun @ 526, awupf @ 528, icsvscc @ 530, nwpc @ 531, acwu @ 532, cdfs @ 534, sgls @ 536, mnan @ 540, maxdna @ 544, maxcna @ 560, reserved564 @ 564, subnqn @ 768, reserved1024 @ 1024, ioccsz @ 1792, iorcsz @ 1796, icdoff @ 1800, fcatt @ 1802, msdbd @ 1803, ofcs @ 1804, dctype @ 1806, reserved1807 @ 1807, psd @ 2048, vendor @ 3072 });

/// A power state descriptor (32 bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PowerState {
    /// Greatest power in units of 10 mW.
    pub mp: U16,
    /// Reserved.
    pub reserved2: u8,
    /// Scale of `mp`, non-operational state.
    pub flags: u8,
    /// Entry latency in µs.
    pub enlat: U32,
    /// Exit latency in µs.
    pub exlat: U32,
    /// Relative read and write throughput and latency.
    pub relative: [u8; 4],
    /// Idle and active power.
    pub power: [u8; 7],
    /// Reserved.
    pub reserved23: [u8; 9],
}

assert_layout!(PowerState, 32, { mp @ 0, reserved2 @ 2, flags @ 3, enlat @ 4, exlat @ 8, relative @ 12, power @ 16, reserved23 @ 23 });

/// Identify Controller of the NVM command set (4096 bytes): limits (CONFORMANCE 5.3).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyNvmController {
    /// Verify size limit, 2^n pages of 4 KiB; 0 is no limit.
    pub vsl: u8,
    /// Write zeroes size limit, 2^n pages of 4 KiB; 0 is that of MDTS.
    pub wzsl: u8,
    /// Write uncorrectable size limit.
    pub wusl: u8,
    /// Most ranges of a dataset management command; 0 is 256.
    pub dmrl: u8,
    /// Most blocks of one range; 0 is no limit.
    pub dmrsl: U32,
    /// Most blocks of all ranges; 0 is no limit.
    pub dmsl: U64,
    /// Reserved.
    pub reserved16: [u8; 4080],
}

assert_layout!(IdentifyNvmController, 4096, { vsl @ 0, wzsl @ 1, wusl @ 2, dmrl @ 3, dmrsl @ 4, dmsl @ 8, reserved16 @ 16 });

/// Bits of `cmic`.
pub mod cmic {
    /// More than one port.
    pub const MULTI_PORT: u8 = 1;
    /// More than one controller; without it Linux refuses a second path.
    pub const MULTI_CONTROLLER: u8 = 1 << 1;
    /// ANA reporting.
    pub const ANA: u8 = 1 << 3;
}

/// Bits of `oaes`, the same as those of feature 0Bh.
pub use crate::feature::events as oaes;

/// Bits of `ctratt`.
pub mod ctratt {
    /// 128-bit host identifiers.
    pub const HOST_ID_128: u32 = 1;
    /// TBKAS: any command is a sign of life (CONFORMANCE A-53).
    pub const TRAFFIC_BASED_KEEP_ALIVE: u32 = 1 << 6;
}

/// Values of `cntrltype`.
pub mod cntrltype {
    /// Controller with I/O queues.
    pub const IO: u8 = 1;
    /// Discovery controller.
    pub const DISCOVERY: u8 = 2;
}

/// Bits of `lpa`.
pub mod lpa {
    /// SMART log per namespace.
    pub const SMART_PER_NAMESPACE: u8 = 1;
    /// Commands supported and effects log.
    pub const EFFECTS: u8 = 1 << 1;
    /// Extended data: 32-bit length and an offset in Get Log Page.
    pub const EXTENDED_DATA: u8 = 1 << 2;
    /// Supported log pages and feature effects logs.
    pub const SUPPORTED_PAGES: u8 = 1 << 5;
}

/// Bits of `anacap`.
pub mod anacap {
    /// Bits 4:0: all five states may be reported.
    pub const ALL_STATES: u8 = 0x1f;
    /// A namespace never changes its group while attached.
    pub const FIXED_GROUP: u8 = 1 << 6;
}

/// Bits of `oncs`.
pub mod oncs {
    /// Compare.
    pub const COMPARE: u16 = 1;
    /// Write uncorrectable.
    pub const WRITE_UNCORRECTABLE: u16 = 1 << 1;
    /// Dataset management.
    pub const DATASET_MANAGEMENT: u16 = 1 << 2;
    /// Write zeroes.
    pub const WRITE_ZEROES: u16 = 1 << 3;
    /// Save and select fields of features.
    pub const FEATURE_SELECT: u16 = 1 << 4;
    /// Reservations.
    pub const RESERVATIONS: u16 = 1 << 5;
    /// Timestamp feature.
    pub const TIMESTAMP: u16 = 1 << 6;
    /// Verify.
    pub const VERIFY: u16 = 1 << 7;
    /// Copy.
    pub const COPY: u16 = 1 << 8;
}

/// Values of `vwc`.
pub mod vwc {
    /// Bit 0: writes may sit in a volatile cache.
    pub const PRESENT: u8 = 1;
    /// Bits 2:1: a flush of all namespaces is not supported.
    pub const FLUSH_ALL_UNSUPPORTED: u8 = 0b10 << 1;
    /// Bits 2:1: a flush of all namespaces is supported.
    pub const FLUSH_ALL_SUPPORTED: u8 = 0b11 << 1;
}

/// Values of `sgls`.
pub mod sgls {
    /// NVMe/TCP: SGLs without alignment, offsets into the capsule.
    pub const TCP: u32 = 0x0010_0001;
    /// NVMe/RDMA: the same and keyed data blocks.
    pub const RDMA: u32 = 0x0010_0005;
}
