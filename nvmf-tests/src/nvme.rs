//! The host's side of a connection: nvme-cli and sysfs in a guest.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::guest::Guest;

/// How long a host may take to see a change: a device to appear, a size to change, a controller to come back.
pub const NOTICE: Duration = Duration::from_secs(60);

/// Where a target is, as the guest sees it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Address.
    pub address: String,
    /// Port.
    pub port: u16,
}

impl Target {
    /// Address and port as nvme-cli's options.
    pub fn options(&self) -> String {
        format!("-t tcp -a {} -s {}", self.address, self.port)
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

/// Connects and waits for namespace 1. `options` are further options of `nvme connect`.
pub fn connect(guest: &Guest, target: &Target, nqn: &str, options: &str) -> Result<Connection> {
    guest.ok("modprobe nvme-tcp")?;
    let answer =
        guest.json(&format!("nvme connect {} -n {nqn} {options} -o json", target.options()))?;
    let device = answer["device"].as_str().context("nvme connect named no device")?;
    let disk = disk(guest, nqn, 1)?;
    Ok(Connection { nqn: nqn.to_owned(), controller: format!("/dev/{device}"), disk })
}

/// Disconnects every controller of a subsystem.
pub fn disconnect(guest: &Guest, nqn: &str) -> Result<()> {
    guest.ok(&format!("nvme disconnect -n {nqn}")).map(drop)
}

/// Waits for the disk of a namespace and returns its path.
pub fn disk(guest: &Guest, nqn: &str, nsid: u32) -> Result<String> {
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
    guest: &Guest,
    connection: &Connection,
    state: &str,
    deadline: Duration,
) -> Result<()> {
    let name = connection.controller.trim_start_matches("/dev/");
    guest
        .eventually(deadline, &format!("[ \"$(cat /sys/class/nvme/{name}/state)\" = {state} ]"))
        .map(drop)
}

/// Waits until the disk has a size in bytes.
pub fn wait_size(guest: &Guest, disk: &str, bytes: u64) -> Result<()> {
    guest.eventually(NOTICE, &format!("[ \"$(blockdev --getsize64 {disk})\" = {bytes} ]")).map(drop)
}
