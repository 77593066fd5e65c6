//! The limits that every node reports alike (CONFORMANCE 4.3, 5.3, M-7, M-8): hosts compare them between paths.

/// Bytes of one logical block; LBADS 12.
pub const BLOCK_BYTES: u32 = 4096;
/// log2 of [`BLOCK_BYTES`].
pub const BLOCK_SHIFT: u8 = 12;
/// MDTS as a power of two of the 4 KiB memory page: 1 MiB.
pub const MDTS: u8 = 8;
/// The largest transfer in bytes.
pub const TRANSFER_BYTES_MAX: u32 = 4096 << MDTS;
/// CAP.MQES, 0's based: the deepest queue has 1024 entries.
pub const MQES: u16 = 1023;
/// I/O queues that one controller is granted at most.
pub const QUEUES_MAX: u16 = 128;
/// Highest NSID that is ever used: NN, MNAN and ANAGRPMAX (CONFORMANCE 4.3).
pub const NSID_MAX: u32 = 1024;
/// Asynchronous Event Requests that one controller holds (AERL + 1, CONFORMANCE A-40).
pub const EVENT_REQUESTS_MAX: u8 = 4;
/// Abort commands outstanding (ACL + 1).
pub const ABORTS_MAX: u8 = 4;
/// Entries of the error log (ELPE + 1).
pub const ERROR_LOG_ENTRIES: usize = 64;
/// The same as ELPE says it.
pub const ERROR_LOG_ENTRIES_0BASED: u8 = 63;
const _: () = assert!(ERROR_LOG_ENTRIES_0BASED as usize + 1 == ERROR_LOG_ENTRIES);
/// ANATT in seconds: a group leaves the change state within it (CONFORMANCE M-29).
pub const ANA_TRANSITION_SECONDS: u8 = 10;
/// WZSL as a power of two of 4 KiB: 65536 blocks, what 16 bits of NLB can say (CONFORMANCE 5.3).
pub const WRITE_ZEROES_SHIFT: u8 = 16;
/// Blocks of one deallocated range: 1 GiB (CONFORMANCE 5.3).
pub const DEALLOCATE_BLOCKS_MAX: u32 = 256 * 1024;
/// Ranges of one Dataset Management command.
pub const DEALLOCATE_RANGES_MAX: u16 = 256;
/// Controllers that one host may have on this node per subsystem (CONFORMANCE M-11 asks for at least 8).
pub const CONTROLLERS_PER_HOST_MAX: usize = 32;
/// Controllers of one subsystem on this node (CONFORMANCE F-11).
pub const CONTROLLERS_PER_SUBSYSTEM_MAX: usize = 4096;
/// Discovery controllers on this node.
pub const DISCOVERY_CONTROLLERS_MAX: usize = 4096;
