//! Controller properties (registers) as a fabrics host gets and sets them (CONFORMANCE 3.2):
//! which exist, their sizes, and the bits of CAP, CC and CSTS.

/// VS: version 1.4, at which Linux asks for namespace descriptors (≥ 1.3).
pub const VERSION_1_4: u32 = 0x0001_0400;
/// VS: version 2.0.
pub const VERSION_2_0: u32 = 0x0002_0000;
/// What a host writes into NSSR to reset a subsystem ("NVMe").
pub const NSSR_RESET: u32 = 0x4e56_4d65;

/// A property, by its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum PropertyOffset {
    /// Controller capabilities, 8 bytes.
    Cap = 0x00,
    /// Version, 4 bytes.
    Vs = 0x08,
    /// Controller configuration, 4 bytes.
    Cc = 0x14,
    /// Controller status, 4 bytes.
    Csts = 0x1c,
    /// Subsystem reset, 4 bytes.
    Nssr = 0x20,
    /// Controller ready timeouts, 4 bytes.
    Crto = 0x68,
}

impl PropertyOffset {
    /// The property at an offset, if there is one.
    pub const fn from_offset(offset: u32) -> Option<PropertyOffset> {
        match offset {
            0x00 => Some(PropertyOffset::Cap),
            0x08 => Some(PropertyOffset::Vs),
            0x14 => Some(PropertyOffset::Cc),
            0x1c => Some(PropertyOffset::Csts),
            0x20 => Some(PropertyOffset::Nssr),
            0x68 => Some(PropertyOffset::Crto),
            _ => None,
        }
    }

    /// The only size it may be read or written with (CONFORMANCE F-20).
    pub const fn size(self) -> PropertySize {
        match self {
            PropertyOffset::Cap => PropertySize::Eight,
            _ => PropertySize::Four,
        }
    }
}

/// How many bytes of a property a host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PropertySize {
    /// 4 bytes.
    Four = 0,
    /// 8 bytes.
    Eight = 1,
}

macro_rules! bits {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl $name {
            /// The register's value.
            pub const fn get(self) -> $inner {
                self.0
            }

            const fn with(self, shift: u32, width: u32, value: $inner) -> Self {
                let mask = ((1 << width) - 1) << shift;
                Self((self.0 & !mask) | ((value << shift) & mask))
            }

            const fn field(self, shift: u32, width: u32) -> $inner {
                (self.0 >> shift) & ((1 << width) - 1)
            }
        }
    };
}

bits! {
    /// CAP: what the controller can do. Built from zero with the `with_*` functions.
    Cap(u64)
}

impl Cap {
    /// MQES: entries of a queue less one.
    pub const fn with_mqes(self, entries_less_one: u16) -> Cap {
        self.with(0, 16, entries_less_one as u64)
    }

    /// CQR: queues must be contiguous; always set on fabrics.
    pub const fn with_contiguous_queues(self) -> Cap {
        self.with(16, 1, 1)
    }

    /// TO: longest wait for CSTS.RDY, in units of 500 ms.
    pub const fn with_timeout_500ms(self, units: u8) -> Cap {
        self.with(24, 8, units as u64)
    }

    /// CSS bit 37: the NVM command set. The several-sets bit 43 stays clear (CONFORMANCE A-24).
    pub const fn with_nvm_command_set(self) -> Cap {
        self.with(37, 1, 1)
    }

    /// MQES: entries of a queue less one.
    #[allow(clippy::cast_possible_truncation, reason = "the field is 16 bits wide")]
    pub const fn mqes(self) -> u16 {
        self.field(0, 16) as u16
    }

    /// TO in units of 500 ms.
    #[allow(clippy::cast_possible_truncation, reason = "the field is 8 bits wide")]
    pub const fn timeout_500ms(self) -> u8 {
        self.field(24, 8) as u8
    }
}

bits! {
    /// CC: what the host wants of the controller.
    Cc(u32)
}

/// Notice of a shutdown in CC.SHN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownNotice {
    /// None.
    None,
    /// Normal shutdown.
    Normal,
    /// Abrupt shutdown.
    Abrupt,
    /// The reserved value.
    Reserved,
}

impl Cc {
    /// CC as a Linux host writes it: entry sizes 64 and 16, enabled or not.
    pub const fn for_host(enabled: bool) -> Cc {
        Cc(0).with(16, 4, 6).with(20, 4, 4).with(0, 1, enabled as u32)
    }

    /// The same with a normal shutdown asked for.
    pub const fn with_shutdown(self) -> Cc {
        self.with(14, 2, 1)
    }

    /// EN.
    pub const fn enabled(self) -> bool {
        self.field(0, 1) == 1
    }

    /// CSS: 0 is NVM, 6 all supported sets.
    pub const fn command_set(self) -> u32 {
        self.field(4, 3)
    }

    /// MPS: memory page size 2^(12 + n).
    pub const fn page_size(self) -> u32 {
        self.field(7, 4)
    }

    /// AMS: arbitration.
    pub const fn arbitration(self) -> u32 {
        self.field(11, 3)
    }

    /// SHN.
    pub const fn shutdown(self) -> ShutdownNotice {
        match self.field(14, 2) {
            0 => ShutdownNotice::None,
            1 => ShutdownNotice::Normal,
            2 => ShutdownNotice::Abrupt,
            _ => ShutdownNotice::Reserved,
        }
    }

    /// IOSQES: bytes of a submission entry, 2^n.
    pub const fn sqe_size(self) -> u32 {
        self.field(16, 4)
    }

    /// IOCQES: bytes of a completion entry, 2^n.
    pub const fn cqe_size(self) -> u32 {
        self.field(20, 4)
    }

    /// Whether a controller may become ready with this (CONFORMANCE F-22, F-23): entry sizes 64 and
    /// 16, page 4 KiB, round robin, command set NVM or "all".
    pub const fn can_enable(self) -> bool {
        self.sqe_size() == 6
            && self.cqe_size() == 4
            && self.page_size() == 0
            && self.arbitration() == 0
            && matches!(self.command_set(), 0 | 6)
    }
}

bits! {
    /// CSTS: the controller's state.
    Csts(u32)
}

/// Progress of a shutdown in CSTS.SHST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ShutdownStatus {
    /// None asked for.
    Normal = 0,
    /// Going on.
    Occurring = 1,
    /// Done.
    Complete = 2,
}

impl Csts {
    /// RDY.
    pub const fn with_ready(self, ready: bool) -> Csts {
        self.with(0, 1, ready as u32)
    }

    /// CFS: fatal; hosts reset the controller (CONFORMANCE F-27).
    pub const fn with_fatal(self, fatal: bool) -> Csts {
        self.with(1, 1, fatal as u32)
    }

    /// SHST.
    pub const fn with_shutdown(self, status: ShutdownStatus) -> Csts {
        self.with(2, 2, status as u32)
    }

    /// RDY.
    pub const fn ready(self) -> bool {
        self.field(0, 1) == 1
    }

    /// CFS.
    pub const fn fatal(self) -> bool {
        self.field(1, 1) == 1
    }

    /// Whether SHST says that the shutdown is done.
    pub const fn shutdown_complete(self) -> bool {
        self.field(2, 2) == ShutdownStatus::Complete as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cap_has_its_bits_where_the_host_reads_them() {
        let cap = Cap::default()
            .with_mqes(1023)
            .with_contiguous_queues()
            .with_timeout_500ms(15)
            .with_nvm_command_set();
        assert_eq!(cap.get(), 0x0000_0020_0f01_03ff);
        assert_eq!((cap.mqes(), cap.timeout_500ms()), (1023, 15));
        assert_eq!(cap.with_mqes(1).mqes(), 1);
    }

    #[test]
    fn cc_of_a_linux_host_is_understood() {
        let cc = Cc(0x0046_0001);
        assert_eq!(cc, Cc::for_host(true));
        assert!(cc.enabled() && cc.can_enable());
        assert_eq!(cc.shutdown(), ShutdownNotice::None);
        assert_eq!(cc.with_shutdown().shutdown(), ShutdownNotice::Normal);
        assert!(Cc(0x0046_0061).can_enable());
    }

    #[test]
    fn each_bad_field_of_cc_keeps_the_controller_from_enabling() {
        let good = 0x0046_0001;
        for bad in [1 << 4, 7 << 4, 1 << 7, 1 << 11, 1 << 16, 1 << 20] {
            assert!(!Cc(good ^ bad).can_enable(), "{bad:#x}");
        }
    }

    #[test]
    fn csts_bits_are_ready_fatal_and_shutdown() {
        let csts = Csts::default().with_ready(true);
        assert_eq!(csts.get(), 1);
        assert_eq!(csts.with_fatal(true).with_ready(false).get(), 2);
        let done = csts.with_shutdown(ShutdownStatus::Complete);
        assert_eq!(done.get(), 0b1001);
        assert!(done.shutdown_complete() && done.ready() && !done.fatal());
    }

    #[test]
    fn offsets_and_sizes_are_those_of_the_specification() {
        use PropertyOffset::*;
        let table = [(Cap, 0x00), (Vs, 0x08), (Cc, 0x14), (Csts, 0x1c), (Nssr, 0x20), (Crto, 0x68)];
        for (property, offset) in table {
            assert_eq!(PropertyOffset::from_offset(offset), Some(property));
            assert_eq!(property as u32, offset);
            assert_eq!(property.size() == PropertySize::Eight, property == Cap);
        }
        let known = (0..0x1000).filter_map(PropertyOffset::from_offset).count();
        assert_eq!(known, table.len());
    }
}
