//! The host's side of a connection: nvme-cli and sysfs in a guest.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::guest::Shell;

/// How long a host may take to see a change: a device to appear, a size to change, a controller to come back.
pub const NOTICE: Duration = Duration::from_secs(60);

/// What carries NVMe between host and node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// NVMe/TCP.
    Tcp,
    /// NVMe/RDMA.
    Rdma,
}

impl Transport {
    /// Loads the host's driver.
    pub fn load(self, guest: &Shell) -> Result<()> {
        guest.ok(&format!("modprobe nvme-{self}")).map(drop)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Rdma => "rdma",
        })
    }
}

/// Where a target is, as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it speaks.
    pub transport: Transport,
    /// Address, IPv4 or IPv6.
    pub address: String,
    /// Port.
    pub port: u16,
}

impl Target {
    /// The port of NVMe over Fabrics.
    pub const PORT: u16 = 4420;

    /// A target on the port that is usual.
    pub fn new(transport: Transport, address: impl Into<String>) -> Self {
        Self { transport, address: address.into(), port: Self::PORT }
    }

    /// Transport, address and port as nvme-cli's options.
    pub fn options(&self) -> String {
        format!("-t {} -a {} -s {}", self.transport, self.address, self.port)
    }

    /// As `afs --listen` takes it.
    pub fn url(&self) -> String {
        let Self { transport, address, port } = self;
        if address.contains(':') {
            format!("{transport}://[{address}]:{port}")
        } else {
            format!("{transport}://{address}:{port}")
        }
    }

    /// As the kernel's `/dev/nvme-fabrics` takes it.
    pub fn fabrics_options(&self) -> String {
        format!("transport={},traddr={},trsvcid={}", self.transport, self.address, self.port)
    }
}

/// A connected subsystem.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The subsystem's name.
    pub nqn: String,
    /// The controller, for example `/dev/nvme0`.
    pub controller: String,
    /// Namespace 1 as the multipath disk, for example `/dev/nvme0n1`.
    pub disk: String,
}

impl Connection {
    /// The controller's name in sysfs.
    pub fn name(&self) -> &str {
        self.controller.trim_start_matches("/dev/")
    }
}

/// Connects and waits for namespace 1. `options` are further options of `nvme connect`.
pub fn connect(guest: &Shell, target: &Target, nqn: &str, options: &str) -> Result<Connection> {
    target.transport.load(guest)?;
    let answer =
        guest.json(&format!("nvme connect {} -n {nqn} {options} -o json", target.options()))?;
    let device = answer["device"].as_str().context("nvme connect named no device")?;
    let disk = disk(guest, nqn, 1)?;
    Ok(Connection { nqn: nqn.to_owned(), controller: format!("/dev/{device}"), disk })
}

/// Connects to several targets of one subsystem; the disk that they are one of.
pub fn connect_all(guest: &Shell, targets: &[Target], nqn: &str, options: &str) -> Result<String> {
    let mut disk = String::new();
    for target in targets {
        let connection = connect(guest, target, nqn, options)?;
        ensure!(disk.is_empty() || disk == connection.disk, "{disk} and {}", connection.disk);
        disk = connection.disk;
    }
    Ok(disk)
}

/// How many paths to namespaces 1 have each ANA state, as in `2 non-optimized, 1 optimized`.
pub fn path_states(guest: &Shell) -> Result<String> {
    let count =
        "cat /sys/class/nvme/nvme*/nvme*c*n1/ana_state | sort | uniq -c | tr -s ' ' | tr '\\n' ','";
    Ok(guest.ok(count)?.trim().trim_end_matches(',').to_owned())
}

/// Disconnects every controller of a subsystem.
pub fn disconnect(guest: &Shell, nqn: &str) -> Result<()> {
    guest.ok(&format!("nvme disconnect -n {nqn}")).map(drop)
}

/// Disconnects one controller of a subsystem that may have more.
pub fn disconnect_one(guest: &Shell, connection: &Connection) -> Result<()> {
    guest.ok(&format!("nvme disconnect -d {}", connection.name())).map(drop)
}

/// Reads and writes that went to namespace 1 by one controller of a multipath disk.
pub fn path_ios(guest: &Shell, connection: &Connection) -> Result<u64> {
    let name = connection.name();
    let count =
        guest.ok(&format!("awk '{{ print $1 + $5 }}' /sys/class/nvme/{name}/nvme*c*n1/stat"))?;
    count.trim().parse().with_context(|| format!("I/Os of {name}: `{}`", count.trim()))
}

/// Says how the host chooses among the paths to a subsystem.
pub fn set_policy(guest: &Shell, nqn: &str, policy: &str) -> Result<()> {
    let script = format!(
        "for s in /sys/class/nvme-subsystem/*; do [ \"$(cat $s/subsysnqn)\" = {nqn} ] && echo {policy} > $s/iopolicy \
         && [ \"$(cat $s/iopolicy)\" = {policy} ] && exit 0; done; exit 1"
    );
    guest.ok(&script).with_context(|| format!("path policy {policy}")).map(drop)
}

/// Waits for the disk of a namespace and returns its path.
pub fn disk(guest: &Shell, nqn: &str, nsid: u32) -> Result<String> {
    let script = format!(
        "for s in /sys/class/nvme-subsystem/*; do [ \"$(cat $s/subsysnqn)\" = {nqn} ] || continue; \
         for d in $s/nvme*n*; do [ -e $d/size ] && [ \"$(cat $d/nsid 2>/dev/null)\" = {nsid} ] && [ \"$(cat $d/size)\" != 0 ] \
         && [ -b /dev/${{d##*/}} ] && echo /dev/${{d##*/}} && exit 0; done; done; exit 1"
    );
    let found = guest
        .eventually(NOTICE, &script)
        .with_context(|| format!("find namespace {nsid} of {nqn}"))?;
    Ok(found.trim().to_owned())
}

/// Waits until the controller of a connection is in a state, for example `live`.
pub fn wait_state(
    guest: &Shell,
    connection: &Connection,
    state: &str,
    deadline: Duration,
) -> Result<()> {
    let name = connection.name();
    guest
        .eventually(deadline, &format!("[ \"$(cat /sys/class/nvme/{name}/state)\" = {state} ]"))
        .map(drop)
}

/// Waits until the disk has a size in bytes.
pub fn wait_size(guest: &Shell, disk: &str, bytes: u64) -> Result<()> {
    guest.eventually(NOTICE, &format!("[ \"$(blockdev --getsize64 {disk})\" = {bytes} ]")).map(drop)
}
