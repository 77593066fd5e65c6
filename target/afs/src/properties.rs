//! The properties of a controller: CAP, VS, CC, CSTS (CONFORMANCE 3.2).
//!
//! Enabling is instant: RDY stands when the Set of CC completes (F-23), so is shutdown (F-26).

use crate::limits::MQES;
use afs_nvme::property::{
    Cap, Cc, Csts, PropertyOffset, PropertySize, ShutdownNotice, ShutdownStatus, VERSION_2_0,
};

/// VS; at least 1.3 makes Linux ask for namespace descriptors.
pub const VERSION: u32 = VERSION_2_0;

/// Page size 4 KiB only, no multi-CSS, no NSSR, ready within 7.5 s at the latest.
const CAPABILITIES: Cap =
    Cap(0).with_mqes(MQES).with_contiguous_queues().with_timeout_500ms(15).with_nvm_command_set();

/// A property cannot be read or written like this: 0x002 without DNR (CONFORMANCE 3.2, F-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoProperty;

/// What a write to CC asks of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that matters.
    None,
    /// EN went from 0 to 1 with a good configuration: serve.
    Enabled,
    /// EN went from 1 to 0, or shutdown was asked for: end the I/O queues.
    Disabled,
}

/// CC and CSTS of one controller.
#[derive(Default)]
pub struct Properties {
    configuration: Cc,
    status: Csts,
}

impl Properties {
    /// Property Get of `offset` with a size.
    pub fn get(&self, offset: u32, size: PropertySize) -> Result<u64, NoProperty> {
        match existing(offset, size)? {
            PropertyOffset::Cap => Ok(CAPABILITIES.get()),
            PropertyOffset::Vs => Ok(VERSION.into()),
            PropertyOffset::Cc => Ok(self.configuration.get().into()),
            PropertyOffset::Csts => Ok(self.status.get().into()),
            PropertyOffset::Nssr | PropertyOffset::Crto => Err(NoProperty),
        }
    }

    /// Property Set of `offset` with a size; only CC can be written.
    pub fn set(
        &mut self,
        offset: u32,
        size: PropertySize,
        value: u64,
    ) -> Result<Change, NoProperty> {
        if existing(offset, size)? != PropertyOffset::Cc {
            return Err(NoProperty);
        }
        let new = Cc(u32::try_from(value).map_err(|_| NoProperty)?);
        let old = std::mem::replace(&mut self.configuration, new);
        let mut change = match (old.enabled(), new.enabled()) {
            (false, true) => self.enable(),
            (true, false) => {
                self.status = Csts::default();
                Change::Disabled
            }
            _ => Change::None,
        };
        if new.shutdown() != ShutdownNotice::None {
            self.status = self.status.with_shutdown(ShutdownStatus::Complete);
            change = Change::Disabled;
        } else if old.shutdown() != ShutdownNotice::None {
            self.status = self.status.with_shutdown(ShutdownStatus::Normal);
        }
        Ok(change)
    }

    fn enable(&mut self) -> Change {
        if self.configuration.can_enable() {
            self.status = Csts::default().with_ready(true);
            Change::Enabled
        } else {
            self.status = Csts::default().with_fatal(true);
            Change::None
        }
    }

    /// Whether its host has shut it down.
    pub fn is_shut_down(&self) -> bool {
        self.status.shutdown_complete()
    }

    /// The controller failed for good: hosts that poll see CSTS.CFS (CONFORMANCE A-52).
    pub fn fail(&mut self) {
        self.status = self.status.with_fatal(true);
    }
}

fn existing(offset: u32, size: PropertySize) -> Result<PropertyOffset, NoProperty> {
    PropertyOffset::from_offset(offset).filter(|property| property.size() == size).ok_or(NoProperty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use PropertySize::{Eight, Four};

    const CAP: u32 = 0x00;
    const VS: u32 = 0x08;
    const CC: u32 = 0x14;
    const CSTS: u32 = 0x1C;
    const LINUX_ENABLE: u64 = 6 << 16 | 4 << 20 | 1;

    #[test]
    fn linux_enables_in_two_writes_and_is_ready_at_once() {
        let mut properties = Properties::default();
        assert_eq!(properties.set(CC, Four, LINUX_ENABLE & !1), Ok(Change::None));
        assert_eq!(properties.get(CSTS, Four), Ok(0));
        assert_eq!(properties.set(CC, Four, LINUX_ENABLE), Ok(Change::Enabled));
        assert_eq!(properties.get(CSTS, Four), Ok(1));
        assert_eq!(properties.get(CC, Four), Ok(LINUX_ENABLE));
    }

    #[test]
    fn a_wrong_configuration_at_enable_sets_the_fatal_bit_and_not_ready() {
        for wrong in [1, LINUX_ENABLE | 1 << 7, LINUX_ENABLE | 1 << 11, LINUX_ENABLE | 1 << 4] {
            let mut properties = Properties::default();
            assert_eq!(properties.set(CC, Four, wrong), Ok(Change::None), "{wrong:#x}");
            assert_eq!(properties.get(CSTS, Four), Ok(2), "{wrong:#x}");
        }
    }

    #[test]
    fn shutdown_completes_at_once_and_reset_clears_it() {
        let mut properties = Properties::default();
        assert_eq!(properties.set(CC, Four, LINUX_ENABLE), Ok(Change::Enabled));
        assert_eq!(properties.set(CC, Four, LINUX_ENABLE | 1 << 14), Ok(Change::Disabled));
        assert_eq!(properties.get(CSTS, Four), Ok(0b1001));
        assert!(properties.is_shut_down());
        assert_eq!(properties.set(CC, Four, LINUX_ENABLE & !1), Ok(Change::Disabled));
        assert_eq!(properties.get(CSTS, Four), Ok(0));
    }

    #[test]
    fn a_size_that_does_not_fit_or_an_unknown_offset_is_refused() {
        let mut properties = Properties::default();
        assert_eq!(properties.get(CAP, Four), Err(NoProperty));
        assert_eq!(properties.get(VS, Eight), Err(NoProperty));
        assert_eq!(properties.get(0x20, Four), Err(NoProperty), "NSSR is not offered");
        assert_eq!(properties.set(CSTS, Four, 0), Err(NoProperty));
        assert_eq!(properties.set(CC, Eight, LINUX_ENABLE), Err(NoProperty));
        for offset in 0..=0x3c {
            assert_ne!(
                properties.get(offset, Four),
                Ok(u32::MAX.into()),
                "all ones at {offset:#x}"
            );
        }
    }
}
