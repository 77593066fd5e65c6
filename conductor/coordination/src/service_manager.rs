//! What a daemon tells the service manager that started it, as sd_notify(3) has it: that it is ready, that it stops, and that it lives.
//!
//! A daemon that stands still keeps its connections open, and whoever waits at their other ends waits for long. The manager misses
//! its beats and kills it, which ends them. `afs` and `conductor serve` use this; without a manager that asks, nothing is said.
//!
//! - The socket is made at the start: a daemon that has no descriptor left lives, and must be able to say so.
//! - No thread is ever blocked by a manager that does not read.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Two beats may be lost or late before the manager misses one.
const BEATS_A_TIMEOUT: u32 = 3;
/// When a manager that is busy is told again that the daemon is ready.
const AGAIN: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear that the daemon lives, at least.
    watchdog: Option<Duration>,
}

/// What the manager left in the environment.
#[derive(Debug, Default)]
struct Asked {
    socket: Option<OsString>,
    watchdog_microseconds: Option<OsString>,
    watchdog_process: Option<OsString>,
}

impl Asked {
    fn from_environment() -> Asked {
        Asked {
            socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog_microseconds: std::env::var_os("WATCHDOG_USEC"),
            watchdog_process: std::env::var_os("WATCHDOG_PID"),
        }
    }

    /// The time-out of the watchdog, if there is one and it is for the process `own`.
    fn watchdog(&self, own: u32) -> Option<Duration> {
        let number = |text: &OsString| text.to_str()?.parse::<u64>().ok();
        if let Some(process) = &self.watchdog_process
            && number(process) != Some(u64::from(own))
        {
            return None;
        }
        let microseconds = self.watchdog_microseconds.as_ref().and_then(number);
        microseconds.filter(|microseconds| *microseconds > 0).map(Duration::from_micros)
    }
}

impl ServiceManager {
    /// The manager of this process, or none.
    pub fn of_this_process() -> ServiceManager {
        ServiceManager::new(&Asked::from_environment())
    }

    fn new(asked: &Asked) -> ServiceManager {
        let watchdog = asked.watchdog(std::process::id());
        let Some(address) = &asked.socket else {
            return ServiceManager { socket: None, watchdog: None };
        };
        let socket = connect(address).inspect_err(|error| {
            tracing::warn!(
                %error,
                address = %address.display(),
                "the service manager's NOTIFY_SOCKET cannot be reached: it will not know that this is ready"
            );
        });
        ServiceManager { socket: socket.ok(), watchdog }
    }

    /// Says that the start is over. From here on the manager counts the time since the last beat.
    pub async fn ready(&self) {
        while !self.say("READY=1\nSTATUS=serving") {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Says what the daemon does, for people; not said again if the manager is too busy.
    pub fn doing(&self, what: &str) {
        self.say(&format!("STATUS={what}"));
    }

    /// Says that the end has begun.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping");
    }

    /// Says again and again that the daemon lives, each time after `lives` has said so. Ends when it says no, and at once if the
    /// manager does not ask. Goes on during a stop: the manager may count from each beat that it gets.
    pub async fn beat_while<L: Future<Output = bool>>(&self, mut lives: impl FnMut() -> L) {
        let (Some(_), Some(watchdog)) = (&self.socket, self.watchdog) else { return };
        while lives().await {
            self.say("WATCHDOG=1");
            tokio::time::sleep(watchdog / BEATS_A_TIMEOUT).await;
        }
    }

    /// False when the manager has too much to read already.
    fn say(&self, what: &str) -> bool {
        let Some(socket) = &self.socket else { return true };
        match socket.send(what.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => {
                tracing::debug!(%error, what, "the service manager does not listen");
                true
            }
            Ok(_) => true,
        }
    }
}

/// A path, or a name that begins with `@` and is in no folder.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::new(ErrorKind::InvalidInput, "neither a path nor @NAME")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// A manager of ours, at an address that only this test uses.
    fn manager(name: &str) -> (UnixDatagram, OsString) {
        let name = format!("afs-test-{}-{name}", std::process::id());
        let socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        (socket, format!("@{name}").into())
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 64];
        let bytes = socket.recv(&mut text).unwrap();
        String::from_utf8(text[..bytes].to_vec()).unwrap()
    }

    fn asked(address: OsString, microseconds: &str) -> Asked {
        let watchdog_microseconds = Some(microseconds.into());
        Asked { socket: Some(address), watchdog_microseconds, watchdog_process: None }
    }

    #[tokio::test]
    async fn it_is_told_of_the_start_of_each_beat_and_of_the_end() {
        let (socket, address) = manager("all");
        let told = ServiceManager::new(&asked(address, "3000"));
        told.doing("waiting");
        told.ready().await;
        let mut lives = [true, true, false].into_iter();
        told.beat_while(|| std::future::ready(lives.next().unwrap())).await;
        told.stopping();
        let expected = [
            "STATUS=waiting",
            "READY=1\nSTATUS=serving",
            "WATCHDOG=1",
            "WATCHDOG=1",
            "STOPPING=1\nSTATUS=stopping",
        ];
        assert_eq!(expected.map(|_| heard(&socket)), expected);
    }

    #[tokio::test]
    async fn one_that_does_not_read_blocks_nobody_and_hears_of_the_start_when_it_does() {
        let (socket, address) = manager("busy");
        let told = ServiceManager::new(&asked(address, "1000"));
        let mut queued = 0;
        while told.say("WATCHDOG=1") {
            queued += 1;
        }
        told.stopping();
        // It reads all that there is, and then one more, which is not there yet.
        let reads =
            std::thread::spawn(move || (0..=queued).fold(String::new(), |_, _| heard(&socket)));
        told.ready().await;
        assert_eq!(reads.join().unwrap(), "READY=1\nSTATUS=serving");
    }

    #[tokio::test]
    async fn without_one_nothing_is_said() {
        let told = ServiceManager::new(&Asked {
            watchdog_microseconds: Some("1".into()),
            ..Asked::default()
        });
        told.ready().await;
        told.beat_while(|| async { unreachable!("nobody asked") }).await;
    }

    #[test]
    fn an_address_that_makes_no_sense_is_like_none() {
        for address in ["", "vsock:2:1", "/nowhere/at/all"] {
            assert!(ServiceManager::new(&asked(address.into(), "1")).socket.is_none());
        }
    }

    #[test]
    fn a_watchdog_for_another_process_or_of_no_length_is_none() {
        let watchdog = |microseconds: &str, process: Option<&str>| {
            let watchdog_process = process.map(OsString::from);
            let asked = Asked { watchdog_process, ..asked("/x".into(), microseconds) };
            asked.watchdog(7)
        };
        assert_eq!(watchdog("3000000", None), Some(Duration::from_secs(3)));
        assert_eq!(watchdog("3000000", Some("7")), Some(Duration::from_secs(3)));
        assert_eq!(watchdog("3000000", Some("8")), None);
        assert_eq!(watchdog("3000000", Some("x")), None);
        assert_eq!(watchdog("0", None), None);
        assert_eq!(watchdog("-1", None), None);
    }
}
