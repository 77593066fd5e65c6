//! Discovery log (log 70h, CONFORMANCE 4.7): a header, then entries, each 1024 bytes.

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Header of the discovery log (1024 bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiscoveryHeader {
    /// Generation of the content; never goes back (CONFORMANCE D-9).
    pub genctr: U64,
    /// Number of entries.
    pub numrec: U64,
    /// Record format; 0.
    pub recfmt: U16,
    /// Reserved.
    pub reserved18: [u8; 1006],
}

assert_layout!(DiscoveryHeader, 1024, { genctr @ 0, numrec @ 8, recfmt @ 16, reserved18 @ 18 });

impl DiscoveryHeader {
    /// A header of record format 0.
    pub fn new(genctr: u64, numrec: u64) -> DiscoveryHeader {
        DiscoveryHeader { genctr: genctr.into(), numrec: numrec.into(), ..FromZeros::new_zeroed() }
    }
}

/// One way to a subsystem (1024 bytes). Start from `FromZeros::new_zeroed`.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiscoveryEntry {
    /// Transport; see [`trtype`].
    pub trtype: u8,
    /// Address family; see [`adrfam`].
    pub adrfam: u8,
    /// What is found there; see [`subtype`].
    pub subtype: u8,
    /// Transport requirements; see [`treq`].
    pub treq: u8,
    /// Port, unique per listener.
    pub portid: U16,
    /// Controller; [`crate::ControllerId::DYNAMIC`].
    pub cntlid: U16,
    /// Largest admin queue; at least 32.
    pub asqsz: U16,
    /// Flags; see [`eflags`].
    pub eflags: U16,
    /// Reserved.
    pub reserved12: [u8; 20],
    /// Service, such as a TCP port in decimal, padded with spaces.
    pub trsvcid: [u8; 32],
    /// Reserved.
    pub reserved64: [u8; 192],
    /// Subsystem, NUL-terminated.
    pub subnqn: [u8; 256],
    /// Address, padded with spaces.
    pub traddr: [u8; 256],
    /// Transport specific; see [`tsas`].
    pub tsas: [u8; 256],
}

assert_layout!(DiscoveryEntry, 1024, { trtype @ 0, adrfam @ 1, subtype @ 2, treq @ 3, portid @ 4, cntlid @ 6, asqsz @ 8, eflags @ 10, reserved12 @ 12, trsvcid @ 32, reserved64 @ 64, subnqn @ 256, traddr @ 512, tsas @ 768 });

/// Values of `trtype`, also of error log entries.
pub mod trtype {
    /// RDMA.
    pub const RDMA: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 3;
}

/// Values of `adrfam`.
pub mod adrfam {
    /// IPv4.
    pub const IPV4: u8 = 1;
    /// IPv6.
    pub const IPV6: u8 = 2;
    /// InfiniBand.
    pub const INFINIBAND: u8 = 3;
}

/// Values of `subtype`.
pub mod subtype {
    /// Another discovery service.
    pub const REFERRAL: u8 = 1;
    /// An NVM subsystem.
    pub const NVM: u8 = 2;
    /// This discovery service.
    pub const CURRENT_DISCOVERY: u8 = 3;
}

/// Values of `treq`.
pub mod treq {
    /// Bits 1:0: secure channel not specified.
    pub const NOT_SPECIFIED: u8 = 0;
    /// Bits 1:0: secure channel required.
    pub const SECURE_REQUIRED: u8 = 1;
    /// Bits 1:0: secure channel not required.
    pub const SECURE_NOT_REQUIRED: u8 = 2;
    /// Bit 2: SQ flow control may be disabled; nvme-cli then does so.
    pub const SQ_FLOW_CONTROL_DISABLE: u8 = 1 << 2;
}

/// Bits of `eflags`.
pub mod eflags {
    /// All entries of this address return the same log.
    pub const DUPLICATE_RETURNED: u16 = 1;
    /// Explicit persistent connections are supported.
    pub const PERSISTENT: u16 = 1 << 1;
    /// No central discovery controller connected.
    pub const NO_CDC: u16 = 1 << 2;
}

/// First byte of `tsas` for TCP: SECTYPE.
pub mod tsas {
    /// No security.
    pub const TCP_NO_SECURITY: u8 = 0;
    /// TLS 1.3.
    pub const TCP_TLS_1_3: u8 = 2;
    /// RDMA QPTYPE: reliable connected.
    pub const RDMA_CONNECTED: u8 = 1;
    /// RDMA PRTYPE: no provider is named.
    pub const RDMA_NO_PROVIDER: u8 = 1;
    /// RDMA PRTYPE: RoCE version 2.
    pub const RDMA_ROCE_V2: u8 = 4;
    /// RDMA CMS: connections are made by RDMA_IP_CM.
    pub const RDMA_CM: u8 = 1;
}

/// `tsas` for RDMA (256 bytes).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RdmaTsas {
    /// Queue pair type; [`tsas::RDMA_CONNECTED`].
    pub qptype: u8,
    /// Provider, such as [`tsas::RDMA_ROCE_V2`].
    pub prtype: u8,
    /// Connection management; [`tsas::RDMA_CM`].
    pub cms: u8,
    /// Reserved.
    pub reserved3: [u8; 5],
    /// Partition key, InfiniBand only.
    pub pkey: U16,
    /// Reserved.
    pub reserved10: [u8; 246],
}

assert_layout!(RdmaTsas, 256, {
    qptype @ 0, prtype @ 1, cms @ 2, reserved3 @ 3, pkey @ 8, reserved10 @ 10,
});

impl RdmaTsas {
    /// Reliable connections made by RDMA_IP_CM, over whichever network: one address may be RoCE today and iWARP
    /// tomorrow, and a node speaks for others whose devices it does not know (CONFORMANCE D-3).
    pub fn connected() -> RdmaTsas {
        RdmaTsas {
            qptype: tsas::RDMA_CONNECTED,
            prtype: tsas::RDMA_NO_PROVIDER,
            cms: tsas::RDMA_CM,
            ..FromZeros::new_zeroed()
        }
    }

    /// As it lies in an entry.
    pub fn to_bytes(&self) -> [u8; 256] {
        zerocopy::transmute!(self.clone())
    }
}
