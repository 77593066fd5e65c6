//! SMART and health information (log 02h, CONFORMANCE 4.5).

use zerocopy::little_endian::{U16, U32, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Health of the controller (512 bytes). Start from `FromZeros::new_zeroed`.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SmartLog {
    /// Warnings; see [`critical_warning`].
    pub critical_warning: u8,
    /// Temperature in kelvin; never 0.
    pub temperature: U16,
    /// Spare left in percent.
    pub available_spare: u8,
    /// Percent below which a warning is given.
    pub available_spare_threshold: u8,
    /// Life used in percent.
    pub percentage_used: u8,
    /// Warnings of endurance groups.
    pub endurance_group_warning: u8,
    /// Reserved.
    pub reserved7: [u8; 25],
    /// Data read, in units of 512,000 bytes, rounded up.
    pub data_units_read: U128,
    /// Data written, in units of 512,000 bytes, rounded up.
    pub data_units_written: U128,
    /// Read commands completed.
    pub host_reads: U128,
    /// Write commands completed.
    pub host_writes: U128,
    /// Minutes in which I/O was outstanding.
    pub busy_minutes: U128,
    /// Starts.
    pub power_cycles: U128,
    /// Hours of running.
    pub power_on_hours: U128,
    /// Starts after an unclean stop.
    pub unsafe_shutdowns: U128,
    /// Unrecovered data errors.
    pub media_errors: U128,
    /// Entries ever made in the error log.
    pub error_log_entries: U128,
    /// Minutes above the warning temperature.
    pub warning_minutes: U32,
    /// Minutes above the critical temperature.
    pub critical_minutes: U32,
    /// Temperatures in kelvin; 0 is no sensor.
    pub sensors: [U16; 8],
    /// Transitions of thermal management 1 and 2.
    pub thermal_transitions: [U32; 2],
    /// Seconds in thermal management 1 and 2.
    pub thermal_seconds: [U32; 2],
    /// Reserved.
    pub reserved232: [u8; 280],
}

assert_layout!(SmartLog, 512, { critical_warning @ 0, temperature @ 1, available_spare @ 3, available_spare_threshold @ 4, percentage_used @ 5, endurance_group_warning @ 6, reserved7 @ 7, data_units_read @ 32, data_units_written @ 48, host_reads @ 64, host_writes @ 80, busy_minutes @ 96, power_cycles @ 112, power_on_hours @ 128, unsafe_shutdowns @ 144, media_errors @ 160, error_log_entries @ 176, warning_minutes @ 192, critical_minutes @ 196, sensors @ 200, thermal_transitions @ 216, thermal_seconds @ 224, reserved232 @ 232 });

/// Bytes of one data unit: a thousand blocks of 512 bytes.
pub const DATA_UNIT_BYTES: u64 = 512_000;

/// Bits of `critical_warning`.
pub mod critical_warning {
    /// Spare below its threshold.
    pub const SPARE: u8 = 1;
    /// Temperature beyond a threshold.
    pub const TEMPERATURE: u8 = 1 << 1;
    /// Reliability degraded.
    pub const RELIABILITY: u8 = 1 << 2;
    /// Media read-only.
    pub const READ_ONLY: u8 = 1 << 3;
}
