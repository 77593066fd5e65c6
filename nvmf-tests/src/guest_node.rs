//! `afs standalone` inside a guest: for power cuts, and for measurements where host and target share one clock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::guest::{Guest, Running};
use crate::nvme::Target;
use crate::process::wait_until;

const READY_DEADLINE: Duration = Duration::from_secs(120);

/// A node that runs in a guest; dropping it kills the process.
#[derive(Debug)]
pub struct GuestNode {
    process: Running,
    conductor: PathBuf,
}

impl GuestNode {
    /// Starts `afs` from the folder `programs` of the build machine and waits until it is well.
    pub fn start(
        guest: &Guest,
        programs: &Path,
        data: &str,
        disk: &str,
        arguments: &str,
    ) -> Result<Self> {
        let afs = programs.join("afs");
        let command = format!(
            "exec {} standalone --data {data} --disk {disk} --listen tcp://127.0.0.1:4420 --api 127.0.0.1:49180 \
             --http 127.0.0.1:49181 {arguments} 2>&1",
            afs.display()
        );
        let mut process = guest.spawn(&command)?;
        let healthy = "for port in 49180 49181; do exec 3<>/dev/tcp/127.0.0.1/$port && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 \
                       && head -1 <&3 | grep -q ' 200 ' || exit 1; exec 3>&-; done";
        wait_until("the node in the guest to be ready", READY_DEADLINE, || {
            if let Some(code) = process.ended() {
                bail!("it ended with {code}: {}", process.stdout());
            }
            Ok((guest.run(healthy)?.code == 0).then_some(()))
        })
        .with_context(|| format!("start {} in the guest", afs.display()))?;
        Ok(Self { process, conductor: programs.join("conductor") })
    }

    /// Runs the conductor's command line in the guest.
    pub fn conductor(&self, guest: &Guest, words: &str) -> Result<String> {
        guest.ok(&format!("{} --api http://127.0.0.1:49180 {words}", self.conductor.display()))
    }

    /// A volume, exported to any host as namespace 1 of `nqn`.
    pub fn export(&self, guest: &Guest, volume: &str, size: &str, nqn: &str) -> Result<()> {
        self.conductor(guest, &format!("volume create {volume} --size {size}"))?;
        self.conductor(guest, &format!("subsystem create {nqn}"))?;
        self.conductor(guest, &format!("host allow {nqn} any"))?;
        self.conductor(guest, &format!("namespace add {nqn} --volume {volume} --nsid 1"))?;
        Ok(())
    }

    /// Where it listens.
    pub fn target(&self) -> Target {
        Target { address: "127.0.0.1".to_owned(), port: 4420 }
    }

    /// What it has logged so far.
    pub fn log(&mut self) -> String {
        self.process.stdout()
    }
}
