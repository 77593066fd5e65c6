//! One process of a cluster: a node or a conductor.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::manager;
use crate::http::{self, Metrics};
use crate::process::{Tied, spawn, tail, wait_until};

const READY: Duration = Duration::from_secs(60);

/// A process that is started, stopped, killed and frozen by itself; each start appends to the same log.
#[derive(Debug)]
pub struct Member {
    face: SocketAddr,
    unit: Arc<Unit>,
}

/// How the process is started, and its present life. Its service manager has a part in both.
#[derive(Debug)]
pub(super) struct Unit {
    name: String,
    command: Command,
    log: PathBuf,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    process: Option<Tied>,
    /// Counts the starts.
    life: u64,
    /// Whether a service manager watches the next life.
    watched: bool,
    /// How often the watchdog has killed it.
    killed: u64,
}

impl Member {
    /// One that is started by `command`, which is tied to us, and answers at `face`.
    pub(super) fn new(name: String, command: Command, face: SocketAddr, log: PathBuf) -> Self {
        let unit = Unit { name, command, log, now: Mutex::default() };
        Self { face, unit: Arc::new(unit) }
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.unit.name
    }

    /// Where its HTTP server is.
    pub fn face(&self) -> SocketAddr {
        self.face
    }

    /// All that it has logged, in all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.unit.log).unwrap_or_default()
    }

    /// A scrape of its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.face)
    }

    /// From the next start on: whether a service manager kills it when it stands still, and starts it again.
    pub fn watch(&self, watched: bool) {
        self.unit.now().watched = watched;
    }

    /// How often its service manager has killed it.
    pub fn killed_by_watchdog(&self) -> u64 {
        self.unit.now().killed
    }

    /// Starts it and waits until it is well.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready()
    }

    /// Starts it; what it needs may not be there yet.
    pub fn launch(&mut self) -> Result<()> {
        self.unit.launch(&mut self.unit.now())
    }

    /// Waits until it is well; until then its service manager may start it again.
    pub fn ready(&mut self) -> Result<()> {
        let (unit, face) = (&self.unit, self.face);
        let ready = wait_until("a member of the cluster to be ready", READY, || {
            let mut now = unit.now();
            let Some(process) = now.process.as_mut() else {
                ensure!(now.watched, "it does not run");
                return Ok(None);
            };
            if let Some(status) = process.ended()? {
                bail!("{} ended: {status}", unit.name);
            }
            drop(now);
            Ok(http::get(face, "/healthz").is_ok().then_some(()))
        });
        ready.with_context(|| format!("{}: {}", self.name(), tail(&self.log(), 20)))
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.take()?.kill()
    }

    /// SIGTERM, and its clean end.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.take()?.terminate(READY)?;
        ensure!(status.success(), "{} ended with {status}", self.name());
        Ok(())
    }

    /// SIGSTOP.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let now = self.unit.now();
        let process = now.process.as_ref();
        process.with_context(|| format!("{} does not run", self.name()))?.signal(signal)
    }

    fn take(&self) -> Result<Tied> {
        let process = self.unit.now().process.take();
        process.with_context(|| format!("{} does not run", self.name()))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Its service manager may have the unit in hand, and must not start it again.
        let mut now = self.unit.now();
        now.process = None;
        now.life += 1;
    }
}

impl Unit {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(self: &Arc<Self>, now: &mut Now) -> Result<()> {
        ensure!(now.process.is_none(), "{} is running", self.name);
        now.life += 1;
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        // The same command again, as a command is used up by its start.
        let mut command = Command::new(self.command.get_program());
        command.args(self.command.get_args());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if now.watched {
            // A socket for each life: what an earlier one said last is no sign of this one.
            let socket = self.log.with_extension(format!("notify-{}", now.life));
            manager::watch(self, now.life, &socket)?;
            command.env("NOTIFY_SOCKET", socket);
            command.env("WATCHDOG_USEC", manager::WATCHDOG.as_micros().to_string());
        }
        now.process = Some(spawn(command)?);
        Ok(())
    }

    /// Whether this life goes on.
    pub(super) fn lives(&self, life: u64) -> bool {
        let now = self.now();
        now.life == life && now.process.is_some()
    }

    /// Kills a process that is silent, if it is still in this life.
    pub(super) fn kill_silent(&self, life: u64) -> Result<bool> {
        let mut now = self.now();
        if now.life != life {
            return Ok(false);
        }
        let Some(mut process) = now.process.take() else { return Ok(false) };
        now.killed += 1;
        process.kill()?;
        Ok(true)
    }

    /// Starts it again after this life, unless somebody else has.
    pub(super) fn launch_after(self: &Arc<Self>, life: u64) -> Result<()> {
        let mut now = self.now();
        if now.life != life {
            return Ok(());
        }
        self.launch(&mut now)
    }
}
