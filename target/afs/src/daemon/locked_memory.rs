//! Whether the system lets this process lock what RDMA devices and the disk ring register.
//!
//! Registered memory is locked. The kernel counts every registration of a page, so the same buffers count once for the
//! disk rings and once more for each device.

use conductor::size::human;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::config::NodeConfig;
use crate::portal::Transport;
use crate::queue::Door;

/// What one reactor registers with one device beside its buffers, generously: the fabric's buffers for admin commands, the
/// pages of zeroes, headers of capsules, and the queues that a driver keeps in user memory.
const RESERVE_BYTES: u64 = 32 << 20;

/// The limit is too low for what may be registered.
#[derive(Debug, thiserror::Error)]
#[error(
    "RDMA may have {} of memory locked (for each of {} reactors {} of buffers, once for the disks and, with {} more, {} for each of {devices} RDMA devices), but the limit of this process is {}: set LimitMEMLOCK=infinity in its systemd unit or `ulimit -l unlimited` in its shell, or give it less --buffers",
    human(*needed), plan.reactors, human(plan.buffer_bytes), human(RESERVE_BYTES), plan.times(), human(*limit)
)]
pub struct LockedMemoryError {
    needed: u64,
    plan: LockedMemory,
    devices: usize,
    limit: u64,
}

/// What the settings allow to be registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct LockedMemory {
    reactors: usize,
    /// Buffers of each reactor.
    buffer_bytes: u64,
    /// Other nodes are reached by RDMA, and let into the buffers by keys of their own, which hosts never have.
    peers: bool,
}

impl LockedMemory {
    pub(super) fn of(config: &NodeConfig) -> LockedMemory {
        LockedMemory {
            reactors: config.reactors,
            buffer_bytes: config.buffer_bytes as u64,
            peers: config.listens_by(Transport::Rdma, Door::Peers),
        }
    }

    /// Raises the limit as far as it is needed for this many devices, and allowed.
    ///
    /// # Errors
    /// When that is not far enough, and the process has no right to go beyond (`CAP_IPC_LOCK`).
    pub(super) fn allow(self, devices: usize) -> Result<(), LockedMemoryError> {
        let found = getrlimit(Resource::Memlock);
        if may_exceed() {
            return Ok(());
        }
        let error = |limit| self.error(devices, limit);
        match sufficient(&found, self.needed_bytes(devices)).map_err(error)? {
            None => Ok(()),
            Some(raised) => setrlimit(Resource::Memlock, raised)
                .map_err(|_| error(found.current.unwrap_or(u64::MAX))),
        }
    }

    /// The most that is registered at one time, with the disk rings and with all devices.
    fn needed_bytes(self, devices: usize) -> u64 {
        let buffers = self.buffer_bytes.saturating_mul(1 + u64::from(self.peers));
        let of_devices = (buffers + RESERVE_BYTES).saturating_mul(devices as u64);
        (of_devices + self.buffer_bytes).saturating_mul(self.reactors as u64)
    }

    fn times(self) -> &'static str {
        if self.peers { "twice, as other nodes are reached by RDMA too," } else { "once" }
    }

    fn error(self, devices: usize, limit: u64) -> LockedMemoryError {
        LockedMemoryError { needed: self.needed_bytes(devices), plan: self, devices, limit }
    }
}

/// What the limit must become for so many bytes, `None` if it may stay; the limit that is too low, if no more is allowed.
fn sufficient(found: &Rlimit, needed: u64) -> Result<Option<Rlimit>, u64> {
    let too_low = |limit: Option<u64>| limit.filter(|limit| *limit < needed);
    match (too_low(found.current), too_low(found.maximum)) {
        (None, _) => Ok(None),
        (Some(_), None) => Ok(Some(Rlimit { current: found.maximum, maximum: found.maximum })),
        (Some(_), Some(limit)) => Err(limit),
    }
}

fn may_exceed() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn config() -> NodeConfig {
        let settings = Settings {
            data: Some("/tmp/x".into()),
            disk: vec!["null:1G".to_owned()],
            reactors: Some(4),
            buffers: Some("256M".to_owned()),
            ..Settings::default()
        };
        NodeConfig::new(&settings).unwrap()
    }

    #[test]
    fn buffers_count_once_for_the_rings_and_once_for_each_device() {
        let plan = LockedMemory::of(&config());
        assert_eq!(plan.needed_bytes(0), 256 << 20);
        assert_eq!(plan.needed_bytes(1), (2 * 256 + 4 * 32) << 20);
        assert_eq!(plan.needed_bytes(2), (3 * 256 + 8 * 32) << 20);
        let with_peers = LockedMemory { peers: true, ..plan };
        assert_eq!(with_peers.needed_bytes(2), (5 * 256 + 8 * 32) << 20);
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes_and_only_when_it_must() {
        let limits = |current, maximum| Rlimit { current, maximum };
        let raised = |found: Rlimit| sufficient(&found, 100);
        assert_eq!(raised(limits(Some(100), Some(100))), Ok(None));
        assert_eq!(raised(limits(None, None)), Ok(None));
        let maximum = limits(Some(200), Some(200));
        assert_eq!(raised(limits(Some(99), Some(200))), Ok(Some(maximum)));
        assert_eq!(raised(limits(Some(0), None)), Ok(Some(limits(None, None))));
        assert_eq!(raised(limits(Some(8), Some(99))), Err(99));
    }

    #[test]
    fn too_low_a_limit_says_how_much_is_needed_and_what_to_set() {
        let error = LockedMemory::of(&config()).error(2, 8 << 20).to_string();
        for part in ["1G", "is 8M", "LimitMEMLOCK=infinity", "ulimit -l unlimited", "--buffers"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }
}
