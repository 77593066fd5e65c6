//! Keep-alive of one controller with traffic-based life signs (CONFORMANCE, F-10).
//!
//! Any command on any queue of the controller is a life sign (TBKAS). The hot path only sets a flag; the watch task of
//! the admin queue turns flags into times a few times per period. A controller therefore lives at least its KATO after
//! its last command, and is declared dead at most a quarter of it plus the grace later.
//!
//! Long before that its host may have given it up. A host sends a Keep Alive every half of KATO, and waits for each for KATO. So one
//! that was not heard for more than that half cannot be heard any more, and one that was not heard for the whole may have had its
//! writes done by another node (CONFORMANCE M-45). In between it is called quiet: nothing begins for it until it is heard again.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What a host may be late beyond its KATO before it is given up (CONFORMANCE A-51).
const GRACE: Duration = Duration::from_millis(1500);
/// A discovery controller without keep-alive is dropped after this much silence (CONFORMANCE F-10).
pub const DISCOVERY_IDLE: Duration = Duration::from_secs(120);
/// Granularity of keep-alive times, reported as KAS in units of 100 ms (CONFORMANCE 4.3).
pub const KAS_100MS: u16 = 1;
/// Of so many parts of KATO...
const PARTS: u32 = 16;
/// ...this many have to pass without a command: more than a half. With the two looks that it takes to notice, and the age that
/// what was forwarded may have, it stays below the whole for the KATO that hosts use.
const QUIET_PARTS: u32 = 9;
const CHECK_MIN: Duration = Duration::from_millis(50);
const CHECK_MAX: Duration = Duration::from_secs(1);
/// The least patience with a host that stops inside of a PDU (CONFORMANCE T-89).
const STALL_MIN: Duration = Duration::from_secs(30);
/// The longest KATO taken as given, in milliseconds; a longer one becomes this. Nobody waits a day for a dead host.
const KATO_MS_MAX: u32 = 24 * 3600 * 1000;

/// Life signs and the time-out of one controller.
pub struct KeepAlive {
    /// Keep-alive time-out in milliseconds; 0 = none.
    kato_ms: AtomicU32,
    alive: AtomicBool,
    quiet: AtomicBool,
}

impl KeepAlive {
    /// `kato_ms` as in Connect: 0 for no time-out, rounded up to the granularity.
    pub fn new(kato_ms: u32) -> Self {
        Self {
            kato_ms: AtomicU32::new(rounded(kato_ms)),
            alive: AtomicBool::new(true),
            quiet: AtomicBool::new(false),
        }
    }

    /// A command arrived. Reads first, so that busy queues on several cores share the cache line.
    #[inline]
    pub fn sign_of_life(&self) {
        if !self.alive.load(Ordering::Relaxed) {
            self.alive.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the host was not heard for so long that it may soon give this controller up, or has (CONFORMANCE M-45).
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed) && !self.alive.load(Ordering::Relaxed)
    }

    /// Feature 0Fh: the time-out in milliseconds as rounded.
    pub fn kato_ms(&self) -> u32 {
        self.kato_ms.load(Ordering::Relaxed)
    }

    /// Set Features 0Fh, which is a life sign too.
    pub fn set_kato_ms(&self, kato_ms: u32) {
        self.kato_ms.store(rounded(kato_ms), Ordering::Relaxed);
        self.sign_of_life();
    }

    /// How long a host may stop inside of a PDU, or not take what is sent to it (CONFORMANCE T-89).
    pub fn stall_timeout(&self) -> Duration {
        STALL_MIN.max(2 * Duration::from_millis(self.kato_ms().into()))
    }

    /// Returns when the host has been silent for too long. `idle` is the limit while KATO is 0; `None` = no limit.
    pub async fn expired(&self, idle: Option<Duration>) {
        let mut last = Instant::now();
        loop {
            let kato =
                Some(Duration::from_millis(self.kato_ms().into())).filter(|kato| !kato.is_zero());
            let limit = kato.map(|kato| kato + GRACE).or(idle);
            // At most a second, so that a KATO which the host changes is obeyed soon.
            let check = kato.map(|kato| kato / PARTS).or(limit.map(|limit| limit / 4));
            tokio::time::sleep(check.unwrap_or(CHECK_MAX).clamp(CHECK_MIN, CHECK_MAX)).await;
            let alive = self.alive.swap(false, Ordering::Relaxed);
            if alive {
                last = Instant::now();
            }
            let quiet = kato.is_some_and(|kato| last.elapsed() > kato * QUIET_PARTS / PARTS);
            if quiet != self.quiet.load(Ordering::Relaxed) {
                self.quiet.store(quiet, Ordering::Relaxed);
            }
            if !alive && limit.is_some_and(|limit| last.elapsed() > limit) {
                return;
            }
        }
    }
}

fn rounded(kato_ms: u32) -> u32 {
    let unit = u32::from(KAS_100MS) * 100;
    kato_ms.min(KATO_MS_MAX).div_ceil(unit) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_host_expires_after_kato_and_grace_and_not_before() {
        let keep_alive = KeepAlive::new(5000);
        let start = Instant::now();
        keep_alive.expired(None).await;
        assert!(start.elapsed() > Duration::from_millis(5000 + 1500));
        assert!(start.elapsed() < Duration::from_millis(10_500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_is_quiet_between_half_of_its_kato_and_the_whole_m_45() {
        let keep_alive = KeepAlive::new(5000);
        let expired = keep_alive.expired(None);
        tokio::pin!(expired);
        let mut later = async |ms| {
            assert!(tokio::time::timeout(Duration::from_millis(ms), &mut expired).await.is_err());
        };
        later(400).await;
        for _ in 0..3 {
            keep_alive.sign_of_life();
            later(2500).await;
            assert!(!keep_alive.is_quiet(), "it says that it is there as often as it should");
        }
        // With what was forwarded for it by then it is over before the host gives up, 5 s after its last life sign.
        later(4000 - 2500).await;
        assert!(keep_alive.is_quiet());
        keep_alive.sign_of_life();
        assert!(!keep_alive.is_quiet(), "at once");
        later(400).await;
        assert!(!keep_alive.is_quiet());
        let without = KeepAlive::new(0);
        assert!(
            tokio::time::timeout(Duration::from_secs(60), without.expired(None)).await.is_err()
        );
        assert!(!without.is_quiet());
    }

    #[tokio::test(start_paused = true)]
    async fn commands_on_any_queue_keep_the_controller_alive() {
        let keep_alive = KeepAlive::new(1000);
        let expired = keep_alive.expired(None);
        tokio::pin!(expired);
        for _ in 0..100 {
            keep_alive.sign_of_life();
            let step = tokio::time::timeout(Duration::from_millis(500), &mut expired).await;
            assert!(step.is_err(), "expired although commands came");
        }
        expired.await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_kato_an_io_controller_never_expires_and_a_discovery_one_does() {
        let keep_alive = KeepAlive::new(0);
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, keep_alive.expired(None)).await.is_err());
        let idle = keep_alive.expired(Some(DISCOVERY_IDLE));
        assert!(tokio::time::timeout(day, idle).await.is_ok());
    }

    #[test]
    fn a_host_may_stop_inside_of_a_pdu_for_twice_its_kato_and_never_less_than_30_seconds() {
        for (kato_ms, seconds) in [(0, 30), (5000, 30), (15_000, 30), (60_000, 120)] {
            assert_eq!(KeepAlive::new(kato_ms).stall_timeout(), Duration::from_secs(seconds));
        }
    }

    #[test]
    fn kato_is_rounded_up_to_the_granularity() {
        assert_eq!(KeepAlive::new(1).kato_ms(), 100);
        assert_eq!(KeepAlive::new(5000).kato_ms(), 5000);
        assert_eq!(KeepAlive::new(u32::MAX).kato_ms(), KATO_MS_MAX);
    }
}
