//! `afs standalone` inside a guest: for RDMA, for power cuts, and for measurements where host and target share one clock.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::daemon::{Daemon, Footprint, resident_bytes};
use crate::guest::{Guest, Program, Shell};
use crate::http::Metrics;
use crate::nvme::Target;

/// The port of the conductor's API in the guest.
pub const API_PORT: u16 = 49180;
/// The port of the node's own HTTP face in the guest.
pub const HTTP_PORT: u16 = 49181;

/// Memory for data in flight. To lock and register the usual 256M takes seconds of an emulated processor.
const BUFFERS: &str = "64M";

const SCRAPE: &str =
    "exec 3<>/dev/tcp/127.0.0.1/49181; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";

/// A node that runs in a guest; dropping it kills the process.
#[derive(Debug)]
pub struct GuestNode {
    shell: Shell,
    conductor: PathBuf,
    listen: Vec<Target>,
    /// Both HTTP faces from outside, in a guest that forwards their ports.
    faces: Option<[SocketAddr; 2]>,
    program: Program,
}

impl GuestNode {
    /// Starts `afs` from the folder `programs` of the build machine and waits until it is well. `arguments` name at
    /// least `--data` and `--disk`.
    pub fn start(
        guest: &Guest,
        programs: &Path,
        listen: &[Target],
        arguments: &str,
    ) -> Result<Self> {
        Self::start_by(guest, "exec", programs, listen, arguments)
    }

    /// As [`start`](Self::start), by words of the shell that end in the same process becoming `afs`: `exec` alone, or
    /// `ulimit -l 64; exec` for example.
    pub fn start_by(
        guest: &Guest,
        launch: &str,
        programs: &Path,
        listen: &[Target],
        arguments: &str,
    ) -> Result<Self> {
        let listeners: String =
            listen.iter().map(|target| format!(" --listen {}", target.url())).collect();
        let afs = programs.join("afs");
        let command = format!(
            "{launch} {} standalone{listeners} --api 0.0.0.0:{API_PORT} --http 0.0.0.0:{HTTP_PORT} \
             --buffers {BUFFERS} {arguments}",
            afs.display()
        );
        let faces = [guest.forwarded(API_PORT), guest.forwarded(HTTP_PORT)];
        let mut node = Self {
            program: Program::new(guest, "the node", &command, &[API_PORT, HTTP_PORT]),
            shell: Shell::clone(guest),
            conductor: programs.join("conductor"),
            listen: listen.to_vec(),
            faces: if let [Ok(api), Ok(http)] = faces { Some([api, http]) } else { None },
        };
        node.restart()?;
        Ok(node)
    }

    /// Runs the conductor's command line in the guest, where a guest forwards no port.
    pub fn conductor_inside(&self, words: &str) -> Result<String> {
        let conductor = self.conductor.display();
        self.shell.ok(&format!("{conductor} --api http://127.0.0.1:{API_PORT} {words}"))
    }

    /// A volume, exported to any host as namespace 1 of `nqn`, by the conductor's command line in the guest.
    pub fn export_inside(&self, volume: &str, size: &str, nqn: &str) -> Result<()> {
        self.conductor_inside(&format!("volume create {volume} --size {size}"))?;
        self.conductor_inside(&format!("subsystem create {nqn}"))?;
        self.conductor_inside(&format!("host allow {nqn} any"))?;
        self.conductor_inside(&format!("namespace add {nqn} --volume {volume} --nsid 1"))?;
        Ok(())
    }

    /// Where it listens.
    pub fn listen(&self) -> &[Target] {
        &self.listen
    }

    /// The command that started it, for a person.
    pub fn command_line(&self) -> &str {
        self.program.command_line()
    }

    fn face(&self, index: usize) -> Result<SocketAddr> {
        let faces = self.faces.context("the guest forwards no port of the node")?;
        Ok(faces[index])
    }
}

impl Daemon for GuestNode {
    fn api(&self) -> Result<SocketAddr> {
        self.face(0)
    }

    fn http(&self) -> Result<SocketAddr> {
        self.face(1)
    }

    fn metrics(&self) -> Result<Metrics> {
        match self.http() {
            Ok(http) => Metrics::scrape(http),
            Err(_) => Ok(Metrics::of(self.shell.ok(SCRAPE)?)),
        }
    }

    fn kill(&mut self) -> Result<()> {
        self.program.kill()
    }

    fn restart(&mut self) -> Result<()> {
        self.program.start()
    }

    fn ended(&mut self) -> Result<Option<String>> {
        Ok(self.program.ended().map(|code| format!("exit code {code}")))
    }

    fn footprint(&self) -> Result<Footprint> {
        let pid = self.program.pid()?;
        let database = crate::daemon::DATABASE;
        let count = format!("ls -l /proc/{pid}/fd | grep -- '->' | grep -vc {database}");
        let descriptors = self.shell.ok(&count)?;
        let status = self.shell.ok(&format!("cat /proc/{pid}/status"))?;
        Ok(Footprint {
            descriptors: descriptors.trim().parse().context("count of descriptors")?,
            resident_bytes: resident_bytes(&status).context("no VmRSS of the node")?,
        })
    }

    fn log(&mut self) -> String {
        self.program.log()
    }
}
