//! One process of a cluster, a node or a conductor: native, or in a guest.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::manager;
use crate::guest::Program;
use crate::http::{self, Metrics};
use crate::process::{Tied, spawn, tail, wait_until};

const READY: Duration = Duration::from_secs(60);

/// A process that is started, stopped, killed and frozen by itself; each start appends to the same log.
#[derive(Debug)]
pub struct Member {
    name: String,
    face: SocketAddr,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Native(Arc<Unit>),
    InGuest(Box<Mutex<Program>>),
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
    /// Bytes that its earlier lives have logged.
    logged_before: usize,
    /// How often the watchdog has killed it.
    killed: u64,
}

impl Member {
    /// One that is started by `command`, which is tied to us, and answers at `face`.
    pub(super) fn new(name: String, command: Command, face: SocketAddr, log: PathBuf) -> Self {
        let unit = Unit { name: name.clone(), command, log, now: Mutex::default() };
        Self { name, face, body: Body::Native(Arc::new(unit)) }
    }

    /// One in a guest that forwards its HTTP port to `face`.
    pub(super) fn in_guest(program: Program, face: SocketAddr) -> Self {
        let name = program.name().to_owned();
        Self { name, face, body: Body::InGuest(Box::new(Mutex::new(program))) }
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its HTTP server is.
    pub fn face(&self) -> SocketAddr {
        self.face
    }

    /// All that it has logged, in all its lives.
    pub fn log(&self) -> String {
        match &self.body {
            Body::Native(unit) => unit.log(),
            Body::InGuest(program) => lock(program).log(),
        }
    }

    /// What it has logged since it was last started.
    pub fn log_of_this_life(&self) -> String {
        match &self.body {
            Body::Native(unit) => {
                let log = unit.log();
                log.get(lock(&unit.now).logged_before..).unwrap_or_default().to_owned()
            }
            Body::InGuest(program) => lock(program).log_of_this_life(),
        }
    }

    /// A scrape of its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.face)
    }

    /// From the next start on: whether a service manager kills it when it stands still, and starts it again. There is none in
    /// guests.
    pub fn watch(&self, watched: bool) {
        if let Body::Native(unit) = &self.body {
            lock(&unit.now).watched = watched;
        }
    }

    /// How often its service manager has killed it.
    pub fn killed_by_watchdog(&self) -> u64 {
        match &self.body {
            Body::Native(unit) => lock(&unit.now).killed,
            Body::InGuest(_) => 0,
        }
    }

    /// Starts it and waits until it is well.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready()
    }

    /// Starts it; what it needs may not be there yet.
    pub fn launch(&mut self) -> Result<()> {
        match &self.body {
            Body::Native(unit) => unit.launch(&mut lock(&unit.now)),
            Body::InGuest(program) => lock(program).launch(),
        }
    }

    /// Waits until it is well; until then its service manager may start it again.
    pub fn ready(&mut self) -> Result<()> {
        let ready = match &self.body {
            Body::Native(unit) => unit.ready(self.face),
            Body::InGuest(program) => lock(program).ready(),
        };
        ready.with_context(|| format!("{}: {}", self.name, tail(&self.log(), 20)))
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        match &self.body {
            Body::Native(unit) => unit.take()?.kill(),
            Body::InGuest(program) => lock(program).kill(),
        }
    }

    /// SIGTERM, and its clean end.
    pub fn stop(&mut self) -> Result<()> {
        match &self.body {
            Body::Native(unit) => {
                let status = unit.take()?.terminate(READY)?;
                ensure!(status.success(), "{} ended with {status}", self.name);
                Ok(())
            }
            Body::InGuest(program) => lock(program).stop(),
        }
    }

    /// How it ended, when it did so by itself.
    pub fn ended(&self) -> Result<Option<String>> {
        match &self.body {
            Body::Native(unit) => {
                let status = lock(&unit.now).process.as_mut().map(Tied::ended).transpose()?;
                Ok(status.flatten().map(|status| status.to_string()))
            }
            Body::InGuest(program) => {
                Ok(lock(program).ended().map(|code| format!("exit code {code}")))
            }
        }
    }

    /// SIGSTOP.
    pub fn freeze(&self) -> Result<()> {
        match &self.body {
            Body::Native(unit) => unit.signal(Signal::STOP),
            Body::InGuest(program) => lock(program).freeze(),
        }
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        match &self.body {
            Body::Native(unit) => unit.signal(Signal::CONT),
            Body::InGuest(program) => lock(program).go_on(),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Its service manager may have the unit in hand, and must not start it again.
        if let Body::Native(unit) = &self.body {
            let mut now = lock(&unit.now);
            now.process = None;
            now.life += 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unit {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn launch(self: &Arc<Self>, now: &mut Now) -> Result<()> {
        ensure!(now.process.is_none(), "{} is running", self.name);
        now.life += 1;
        now.logged_before = self.log().len();
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

    fn ready(&self, face: SocketAddr) -> Result<()> {
        wait_until("a member of the cluster to be ready", READY, || {
            let mut now = lock(&self.now);
            let Some(process) = now.process.as_mut() else {
                ensure!(now.watched, "it does not run");
                return Ok(None);
            };
            if let Some(status) = process.ended()? {
                bail!("{} ended: {status}", self.name);
            }
            drop(now);
            Ok(http::get(face, "/healthz").is_ok().then_some(()))
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let now = lock(&self.now);
        let process = now.process.as_ref();
        process.with_context(|| format!("{} does not run", self.name))?.signal(signal)
    }

    fn take(&self) -> Result<Tied> {
        let process = lock(&self.now).process.take();
        process.with_context(|| format!("{} does not run", self.name))
    }

    /// Whether this life goes on.
    pub(super) fn lives(&self, life: u64) -> bool {
        let now = lock(&self.now);
        now.life == life && now.process.is_some()
    }

    /// Kills a process that is silent, if it is still in this life.
    pub(super) fn kill_silent(&self, life: u64) -> Result<bool> {
        let mut now = lock(&self.now);
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
        let mut now = lock(&self.now);
        if now.life != life {
            return Ok(());
        }
        self.launch(&mut now)
    }
}
