//! One process of a cluster: a node or a conductor.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::http::{self, Metrics};
use crate::process::{Tied, spawn, tail, wait_until};

const READY: Duration = Duration::from_secs(60);

/// A process that is started, stopped, killed and frozen by itself; each start appends to the same log.
#[derive(Debug)]
pub struct Member {
    name: String,
    command: Command,
    face: SocketAddr,
    log: PathBuf,
    process: Option<Tied>,
}

impl Member {
    /// One that is started by `command`, which is tied to us, and answers at `face`.
    pub(super) fn new(name: String, command: Command, face: SocketAddr, log: PathBuf) -> Self {
        Self { name, command, face, log, process: None }
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
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A scrape of its metrics.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(self.face)
    }

    /// Starts it and waits until it is well.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready()
    }

    /// Starts it; what it needs may not be there yet.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} is running", self.name);
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        // The same command again, as a command is used up by its start.
        let mut command = Command::new(self.command.get_program());
        command.args(self.command.get_args());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(spawn(command)?);
        Ok(())
    }

    /// Waits until it is well.
    pub fn ready(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("it does not run")?;
        let (name, face) = (&self.name, self.face);
        let ready = wait_until("a member of the cluster to be ready", READY, || {
            if let Some(status) = process.ended()? {
                bail!("{name} ended: {status}");
            }
            Ok(http::get(face, "/healthz").is_ok().then_some(()))
        });
        ready.with_context(|| format!("{}: {}", self.name, tail(&self.log(), 20)))
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().with_context(|| format!("{} does not run", self.name))?.kill()
    }

    /// SIGTERM, and its clean end.
    pub fn stop(&mut self) -> Result<()> {
        let mut process =
            self.process.take().with_context(|| format!("{} does not run", self.name))?;
        let status = process.terminate(READY)?;
        ensure!(status.success(), "{} ended with {status}", self.name);
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
        let process = self.process.as_ref();
        process.with_context(|| format!("{} does not run", self.name))?.signal(signal)
    }
}
