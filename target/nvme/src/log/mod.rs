//! Log pages (CONFORMANCE 4.5, 4.7, 6.3): layouts and the few rules that are layout themselves.
//! What goes into them is decided in `afs`; the host library reads them.

pub mod ana;
mod changed;
pub mod discovery;
pub mod effects;
mod error;
pub mod smart;

pub use ana::{AnaGroup, AnaHeader, AnaState};
pub use changed::ChangedNamespaces;
pub use discovery::{DiscoveryEntry, DiscoveryHeader, RdmaTsas};
pub use effects::{EffectsLog, FeatureEffectsLog, FirmwareSlotLog, SupportedLogPages};
pub use error::{ErrorEntry, NO_PARAMETER};
pub use smart::SmartLog;

/// Log page identifiers.
pub mod lid {
    /// [`super::SupportedLogPages`].
    pub const SUPPORTED_LOG_PAGES: u8 = 0x00;
    /// A list of [`super::ErrorEntry`].
    pub const ERROR_INFORMATION: u8 = 0x01;
    /// [`super::SmartLog`].
    pub const SMART: u8 = 0x02;
    /// [`super::FirmwareSlotLog`].
    pub const FIRMWARE_SLOT: u8 = 0x03;
    /// [`super::ChangedNamespaces`].
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// [`super::EffectsLog`].
    pub const EFFECTS: u8 = 0x05;
    /// See [`super::ana`].
    pub const ANA: u8 = 0x0c;
    /// [`super::FeatureEffectsLog`].
    pub const FEATURE_EFFECTS: u8 = 0x12;
    /// See [`super::discovery`].
    pub const DISCOVERY: u8 = 0x70;
    /// Reservation notifications.
    pub const RESERVATION_NOTIFICATION: u8 = 0x80;
}

#[cfg(test)]
mod tests;
