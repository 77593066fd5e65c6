//! `afs standalone` as a native process of this machine: started, asked, killed and started again.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::daemon::{DATABASE, Daemon, Footprint, resident_bytes};
use crate::guest::OUTSIDE;
use crate::http;
use crate::paths::{self, RunDir};
use crate::process::{Tied, spawn, tied, wait_until};

const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How to start a node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Disks as on the command line; `{folder}` stands for the node's own folder.
    pub disks: Vec<String>,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Run the release build, for measurements.
    pub optimised: bool,
}

impl NodeOptions {
    /// One file of `size` as the disk.
    pub fn file(size: &str) -> Self {
        Self {
            disks: vec![format!("{{folder}}/disk:{size}")],
            arguments: Vec::new(),
            optimised: false,
        }
    }
}

/// A standalone node with its data in a folder of its own; both go when it is dropped.
#[derive(Debug)]
pub struct Node {
    folder: RunDir,
    options: NodeOptions,
    process: Option<Tied>,
    fabric: SocketAddr,
    api: SocketAddr,
    http: SocketAddr,
}

impl Node {
    /// Starts a node on free ports and waits until both its HTTP faces say that they are well.
    pub fn start(options: NodeOptions) -> Result<Self> {
        let folder = RunDir::new("node")?;
        let [fabric, api, http] = [free_port()?, free_port()?, free_port()?];
        let mut node = Self { folder, options, process: None, fabric, api, http };
        node.restart()?;
        Ok(node)
    }

    fn arguments(&self) -> Vec<String> {
        let mut words = vec![
            "standalone".to_owned(),
            "--data".to_owned(),
            self.path("data").display().to_string(),
        ];
        let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
        for disk in &self.options.disks {
            option("--disk", disk.replace("{folder}", &self.folder.path().display().to_string()));
        }
        option("--listen", format!("tcp://{}", self.fabric));
        option("--advertise", format!("tcp://{OUTSIDE}:{}", self.fabric.port()));
        option("--api", self.api.to_string());
        option("--http", self.http.to_string());
        words.extend(self.options.arguments.iter().cloned());
        words
    }

    /// The command that started it, for a person.
    pub fn command_line(&self) -> String {
        format!("afs {}", self.arguments().join(" "))
    }

    /// SIGTERM and a clean end within `deadline`.
    pub fn stop(&mut self, deadline: Duration) -> Result<()> {
        let status = self.process.take().context("the node is not running")?.terminate(deadline)?;
        if !status.success() {
            bail!(
                "the node did not end cleanly ({status}); its log ends with\n{}",
                self.log_tail(20)
            );
        }
        Ok(())
    }

    /// The NVMe port.
    pub fn port(&self) -> u16 {
        self.fabric.port()
    }

    /// The process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the node is not running")?.id())
    }

    /// CPU time that the process has used so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        let pid = self.pid()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Fields 14 and 15 (user and system time in ticks of 10 ms) count from the closing bracket of the name.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum::<u64>();
        Ok(Duration::from_millis(ticks * 10))
    }

    /// A path in the node's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Daemon for Node {
    fn api(&self) -> Result<SocketAddr> {
        Ok(self.api)
    }

    fn http(&self) -> Result<SocketAddr> {
        Ok(self.http)
    }

    fn kill(&mut self) -> Result<()> {
        self.process.take().context("the node is not running")?.kill()
    }

    fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("the node is still running");
        }
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.folder.join("node.log"))?;
        let program = match self.options.optimised {
            true => paths::built_release("afs")?,
            false => paths::built("afs")?,
        };
        let mut command = tied(program);
        command.args(self.arguments());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = spawn(command)?;
        let ready = wait_until("the node to be ready", READY_DEADLINE, || {
            if let Some(status) = process.ended()? {
                bail!("the node ended: {status}");
            }
            let healthy =
                [self.http, self.api].into_iter().all(|face| http::get(face, "/healthz").is_ok());
            Ok(healthy.then_some(()))
        });
        ready
            .with_context(|| format!("start the node; its log ends with\n{}", self.log_tail(20)))?;
        self.process = Some(process);
        Ok(())
    }

    fn ended(&mut self) -> Result<Option<String>> {
        let status = self.process.as_mut().map(Tied::ended).transpose()?.flatten();
        Ok(status.map(|status| status.to_string()))
    }

    fn footprint(&self) -> Result<Footprint> {
        let pid = self.pid()?;
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).context("read the node's status")?;
        Ok(Footprint {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.filter(of_the_node).count(),
            resident_bytes: resident_bytes(&status).context("no VmRSS of the node")?,
        })
    }

    fn log(&mut self) -> String {
        fs::read_to_string(self.folder.join("node.log")).unwrap_or_default()
    }
}

/// Whether a descriptor counts, see [`Footprint`]; one that was closed meanwhile does not.
fn of_the_node(descriptor: &std::io::Result<fs::DirEntry>) -> bool {
    let target = descriptor.as_ref().ok().and_then(|entry| fs::read_link(entry.path()).ok());
    target.is_some_and(|target| !target.to_string_lossy().contains(DATABASE))
}

/// A free port below the range that the kernel uses for outgoing connections: a client that retries while the node is
/// down could otherwise be given that very port and connect to itself.
pub fn free_port() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 8000).unwrap_or(0);
    for _ in 0..8000 {
        let offset = (u32::from(first) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % 8000;
        let port = 20_000 + u16::try_from(offset).unwrap_or(0);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port between 20000 and 28000")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn ports_are_never_given_twice() {
        let first = free_port().unwrap();
        let _holder = TcpListener::bind(first).unwrap();
        assert_ne!(free_port().unwrap(), first);
    }
}
