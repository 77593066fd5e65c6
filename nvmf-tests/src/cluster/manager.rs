//! The service manager of a node, as the units in README ask for one: what does not say in time that it lives is killed, and
//! started again.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::member::Unit;

/// `WatchdogSec` of a node's unit.
pub(super) const WATCHDOG: Duration = Duration::from_secs(3);
/// `RestartSec` of it.
const RESTART: Duration = Duration::from_secs(1);

/// Watches one life of a process from before its start on. Ends when the process is gone, or nobody wants it any more.
pub(super) fn watch(unit: &Arc<Unit>, life: u64, socket: &Path) -> Result<()> {
    let socket = UnixDatagram::bind(socket).context("a socket for what a node says")?;
    let unit = Arc::downgrade(unit);
    thread::spawn(move || {
        if let Err(error) = listen(&unit, life, &socket) {
            eprintln!("lab: the service manager of a node: {error:#}");
        }
    });
    Ok(())
}

fn listen(unit: &Weak<Unit>, life: u64, socket: &UnixDatagram) -> Result<()> {
    // Since when there is silence. The watchdog begins when the node is ready.
    let mut silent: Option<Instant> = None;
    loop {
        let left = silent.map_or(WATCHDOG, |since| WATCHDOG.saturating_sub(since.elapsed()));
        if left.is_zero() {
            let Some(unit) = unit.upgrade() else { return Ok(()) };
            if unit.kill_silent(life)? {
                thread::sleep(RESTART);
                unit.launch_after(life)?;
            }
            return Ok(());
        }
        socket.set_read_timeout(Some(left))?;
        let mut text = [0; 256];
        match socket.recv(&mut text) {
            Ok(bytes) => {
                let told = String::from_utf8_lossy(&text[..bytes]);
                for line in told.lines() {
                    match line {
                        "READY=1" => silent = Some(Instant::now()),
                        "WATCHDOG=1" if silent.is_some() => silent = Some(Instant::now()),
                        "STOPPING=1" => return Ok(()),
                        _ => {}
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if silent.is_none() && !unit.upgrade().is_some_and(|unit| unit.lives(life)) {
                    return Ok(());
                }
            }
            Err(error) => return Err(error).context("listen to a node"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_watches_a_node_as_its_unit_does_and_the_readme_shows_the_units() {
        let unit = include_str!("../../../target/afs/afs.service");
        for line in [
            "Type=notify".to_owned(),
            format!("WatchdogSec={}s", WATCHDOG.as_secs()),
            "WatchdogSignal=SIGKILL".to_owned(),
            "Restart=always".to_owned(),
            format!("RestartSec={}", RESTART.as_secs()),
        ] {
            assert!(unit.lines().any(|found| found == line), "{line} is not in the unit");
        }
        let readme = include_str!("../../../README.md");
        for unit in [unit, include_str!("../../../conductor/conductor.service")] {
            assert!(readme.contains(unit.trim_end()), "README does not show\n{unit}");
        }
    }
}
