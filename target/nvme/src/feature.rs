//! Features and asynchronous events: identifiers, bits and the dwords of event completions
//! (CONFORMANCE 4.6).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Feature identifiers.
pub mod fid {
    /// Arbitration.
    pub const ARBITRATION: u8 = 0x01;
    /// Power management.
    pub const POWER_MANAGEMENT: u8 = 0x02;
    /// Temperature threshold.
    pub const TEMPERATURE_THRESHOLD: u8 = 0x04;
    /// Error recovery.
    pub const ERROR_RECOVERY: u8 = 0x05;
    /// Volatile write cache.
    pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
    /// Number of queues; see [`super::QueueCounts`].
    pub const NUMBER_OF_QUEUES: u8 = 0x07;
    /// Interrupt coalescing.
    pub const INTERRUPT_COALESCING: u8 = 0x08;
    /// Interrupt vector configuration.
    pub const INTERRUPT_VECTOR: u8 = 0x09;
    /// Write atomicity.
    pub const WRITE_ATOMICITY: u8 = 0x0a;
    /// Asynchronous event configuration; see [`super::events`].
    pub const ASYNC_EVENT_CONFIGURATION: u8 = 0x0b;
    /// Timestamp, 8 bytes of data.
    pub const TIMESTAMP: u8 = 0x0e;
    /// Keep-alive timeout in milliseconds.
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x0f;
    /// Host behaviour support; see [`super::HostBehavior`].
    pub const HOST_BEHAVIOR: u8 = 0x16;
    /// Software progress marker.
    pub const SOFTWARE_PROGRESS: u8 = 0x80;
    /// Host identifier; see [`super::HOST_IDENTIFIER_EXTENDED`].
    pub const HOST_IDENTIFIER: u8 = 0x81;
    /// Reservation notification mask.
    pub const RESERVATION_NOTIFICATION_MASK: u8 = 0x82;
    /// Reservation persistence.
    pub const RESERVATION_PERSISTENCE: u8 = 0x83;
    /// Namespace write protection.
    pub const NAMESPACE_WRITE_PROTECTION: u8 = 0x84;
}

/// CDW11 bit 0 of Get Features 81h: the host asks for the 128-bit identifier.
pub const HOST_IDENTIFIER_EXTENDED: u32 = 1;

/// Which value of a feature Get Features asks for (SEL).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Select {
    /// The value in force.
    Current = 0,
    /// The value after a reset.
    Default = 1,
    /// The saved value.
    Saved = 2,
    /// What can be done with the feature; see [`capability`].
    Capabilities = 3,
}

impl Select {
    /// The selection of a 3-bit field; `None` for reserved values.
    pub const fn from_bits(bits: u32) -> Option<Select> {
        match bits {
            0 => Some(Select::Current),
            1 => Some(Select::Default),
            2 => Some(Select::Saved),
            3 => Some(Select::Capabilities),
            _ => None,
        }
    }
}

/// Result bits of Get Features with [`Select::Capabilities`].
pub mod capability {
    /// Can be saved.
    pub const SAVEABLE: u32 = 1;
    /// Has a value per namespace.
    pub const PER_NAMESPACE: u32 = 1 << 1;
    /// Can be changed.
    pub const CHANGEABLE: u32 = 1 << 2;
}

/// Number of I/O queues asked for or granted: submission and completion queues, both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCounts {
    /// Submission queues, 1 to 65535.
    pub submission: u16,
    /// Completion queues, 1 to 65535.
    pub completion: u16,
}

impl QueueCounts {
    /// Reads CDW11 or a result; `None` where a count is the forbidden 0xffff (0's based).
    pub const fn from_dword(dword: u32) -> Option<QueueCounts> {
        let [a, b, c, d] = dword.to_le_bytes();
        let submission = u16::from_le_bytes([a, b]).checked_add(1);
        let completion = u16::from_le_bytes([c, d]).checked_add(1);
        match (submission, completion) {
            (Some(submission), Some(completion)) => Some(QueueCounts { submission, completion }),
            _ => None,
        }
    }

    /// The 0's based dword. A count of 0, which cannot be said, becomes 1.
    pub const fn to_dword(self) -> u32 {
        (self.submission.saturating_sub(1) as u32)
            | (self.completion.saturating_sub(1) as u32) << 16
    }
}

/// Bits of feature 0Bh and of OAES: which notices a host wants and a controller can send.
pub mod events {
    /// Namespace attributes changed.
    pub const NAMESPACE_ATTRIBUTE: u32 = 1 << 8;
    /// Firmware activation.
    pub const FIRMWARE_ACTIVATION: u32 = 1 << 9;
    /// ANA state changed.
    pub const ANA_CHANGE: u32 = 1 << 11;
    /// Discovery log changed.
    pub const DISCOVERY_CHANGE: u32 = 1 << 31;
}

/// Result dword (DW0) of a completed asynchronous event request: type in 2:0, information in 15:8,
/// log page to read in 23:16.
pub mod event {
    /// A namespace came, went, or changed; read log 04h.
    pub const NAMESPACE_ATTRIBUTE_CHANGED: u32 = 0x0004_0002;
    /// An ANA group changed; read log 0Ch.
    pub const ANA_CHANGED: u32 = 0x000c_0302;
    /// This host's discovery log changed; read log 70h.
    pub const DISCOVERY_CHANGED: u32 = 0x0070_f002;
    /// A reservation notice waits in log 80h.
    pub const RESERVATION_LOG_AVAILABLE: u32 = 0x0080_0006;
    /// Persistent internal error; the host resets the controller.
    pub const PERSISTENT_INTERNAL_ERROR: u32 = 0x0001_0300;

    /// The log page that the host has to read before the event is sent again.
    pub const fn log_page(dword: u32) -> u8 {
        let [_, _, log_page, _] = dword.to_le_bytes();
        log_page
    }
}

/// Data of feature 16h, host behaviour support (512 bytes).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct HostBehavior {
    /// ACRE: 1 when the host honours command retry delays.
    pub acre: u8,
    /// ETDAS: 1 when the host knows extended telemetry data.
    pub etdas: u8,
    /// LBAFEE: 1 when the host knows extended LBA formats.
    pub lbafee: u8,
    /// Reserved.
    pub reserved3: [u8; 509],
}

assert_layout!(HostBehavior, 512, { acre @ 0, etdas @ 1, lbafee @ 2, reserved3 @ 3 });

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn queue_counts_are_zero_based_on_the_wire() {
        let counts = QueueCounts::from_dword(0x0003_0007).unwrap();
        assert_eq!(counts, QueueCounts { submission: 8, completion: 4 });
        assert_eq!(counts.to_dword(), 0x0003_0007);
        assert_eq!(QueueCounts::from_dword(0x0000_ffff), None);
        assert_eq!(QueueCounts::from_dword(0xffff_0000), None);
        assert_eq!(QueueCounts { submission: 0, completion: 1 }.to_dword(), 0);
    }

    #[test]
    fn events_name_the_log_page_to_read() {
        use event::*;
        assert_eq!(log_page(NAMESPACE_ATTRIBUTE_CHANGED), 0x04);
        assert_eq!(log_page(ANA_CHANGED), 0x0c);
        assert_eq!(log_page(DISCOVERY_CHANGED), 0x70);
        assert_eq!(log_page(RESERVATION_LOG_AVAILABLE), 0x80);
    }

    #[test]
    fn reserved_selections_are_told() {
        assert_eq!(Select::from_bits(3), Some(Select::Capabilities));
        assert_eq!((4..8).find_map(Select::from_bits), None);
    }
}
