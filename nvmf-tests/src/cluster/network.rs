//! A network of namespaces: each node a machine of its own behind a cable to a switch, and links that can be cut.
//!
//! Namespaces have no names: each lives as long as the process that holds it, and these die with ours. When the switch goes so do
//! all cables to it, so that nothing is left on the machine, however the lab ends. This machine's own end of the network reaches
//! all nodes, and so does a guest behind QEMU's user-mode network.

use std::env;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Tied, run, spawn, tied, wait_until};

const NAMESPACE_WAIT: Duration = Duration::from_secs(10);

/// Networks that one process may have at a time, each a /24 of 10.79.0.0/16.
const SUBNETS: u32 = 256;
/// The last byte of the first node's address.
const FIRST_NODE: u8 = 11;

/// The table in which packets are dropped, empty.
pub(super) const TABLE: &str = "add table inet lab; add chain inet lab in { type filter hook input priority 0; }; \
    add chain inet lab out { type filter hook output priority 0; }";
/// Empties it again.
pub(super) const MEND: &str = "nft flush chain inet lab in; nft flush chain inet lab out";

/// What no longer passes a node's cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing that other nodes send arrives; what this one sends does.
    FromPeers,
    /// Nothing at all.
    Everything,
}

/// What keeps a machine from having such a network, if anything.
pub fn obstacle() -> Option<String> {
    let script = "nft add table inet lab && ip link add lab0 type veth peer name lab1 \
                  && ip link add lab2 type bridge";
    let mut trial = Command::new("unshare");
    trial.args(["--net", "sh", "-c", script]).env("PATH", search_path());
    let failed = run(&mut trial).err()?;
    Some(format!("no network namespaces with veth, bridge and nftables here: {failed:#}"))
}

/// Whether a test that needs such a network may run; says by name why not.
#[allow(clippy::panic, reason = "called by tests only, where a panic is the way to fail")]
pub fn may_run(test: &str) -> bool {
    let Some(reason) = obstacle() else { return true };
    let ci = env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "{test} cannot run, and with CI=true nothing is skipped: {reason}");
    println!("lab: skipped {test}: {reason}");
    false
}

/// A user's PATH often lacks the folders of `ip` and `nft`.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default())
}

/// A network namespace that lives as long as this value.
#[derive(Debug)]
struct Namespace {
    holder: Tied,
}

impl Namespace {
    fn new() -> Result<Self> {
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let mut holder = tied("unshare");
        holder.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let mut holder = spawn(holder)?;
        let theirs = format!("/proc/{}/ns/net", holder.id());
        wait_until("a network namespace", NAMESPACE_WAIT, || {
            if let Some(status) = holder.ended()? {
                anyhow::bail!("there can be no network namespace: {status}");
            }
            let now = std::fs::read_link(&theirs).ok();
            Ok(now.filter(|now| *now != own).map(drop))
        })?;
        Ok(Self { holder })
    }

    fn id(&self) -> String {
        self.holder.id().to_string()
    }

    fn handle(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.id())
    }

    fn run(&self, script: &str) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args([&self.handle(), "sh", "-ec", script]).env("PATH", search_path());
        run(&mut command).map(drop)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Network {
    switch: Namespace,
    nodes: Vec<Namespace>,
    subnet: u8,
}

impl Network {
    /// A switch with a cable to this machine and one to each of `count` nodes.
    pub fn new(count: usize) -> Result<Self> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        // Two labs on one machine seldom meet.
        let subnet = u8::try_from((std::process::id() + number) % SUBNETS)?;
        let switch = Namespace::new()?;
        switch.run("ip link add switch type bridge; ip link set switch up")?;
        let mut network = Self { switch, nodes: Vec::new(), subnet };
        let cable = format!("lab{}-{number}", std::process::id());
        let script = format!(
            "ip link add {cable} type veth peer name outside netns {}; \
             ip address add {}/24 dev {cable}; ip link set {cable} up",
            network.switch.id(),
            network.outside()
        );
        let mut command = Command::new("sh");
        run(command.args(["-ec", &script]).env("PATH", search_path()))
            .context("a cable from this machine")?;
        network.switch.run("ip link set outside master switch up")?;
        for _ in 0..count {
            network.add_node()?;
        }
        Ok(network)
    }

    fn add_node(&mut self) -> Result<()> {
        let (node, index) = (Namespace::new()?, self.nodes.len());
        self.switch.run(&format!(
            "ip link add node{index} type veth peer name eth0 netns {}; ip link set node{index} master switch up",
            node.id()
        ))?;
        node.run(&format!(
            "ip link set lo up; ip address add {}/24 dev eth0; ip link set eth0 up; \
             nft '{TABLE}'",
            self.node(index)
        ))?;
        self.nodes.push(node);
        Ok(())
    }

    /// This machine's own address in the network.
    pub fn outside(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 79, self.subnet, 1)
    }

    /// A node's address.
    pub fn node(&self, index: usize) -> Ipv4Addr {
        let last = u8::try_from(index).unwrap_or(u8::MAX).saturating_add(FIRST_NODE);
        Ipv4Addr::new(10, 79, self.subnet, last)
    }

    /// A command, tied to us, that runs in a node's namespace.
    pub fn tied(&self, index: usize, program: impl AsRef<OsStr>) -> Result<Command> {
        let node = self.nodes.get(index).context("no such node")?;
        let mut command = tied("nsenter");
        command.arg(node.handle()).arg("--").arg(program);
        Ok(command)
    }

    /// Drops packets at a node from now on.
    pub fn cut(&self, index: usize, cut: Cut) -> Result<()> {
        let node = self.nodes.get(index).context("no such node")?;
        match cut {
            Cut::FromPeers => {
                let peers = (0..self.nodes.len()).filter(|peer| *peer != index);
                let peers: Vec<String> = peers.map(|peer| self.node(peer).to_string()).collect();
                let peers = peers.join(", ");
                node.run(&format!("nft 'add rule inet lab in ip saddr {{ {peers} }} drop'"))
            }
            Cut::Everything => node.run(
                "nft add rule inet lab in iifname eth0 drop; nft add rule inet lab out oifname eth0 drop",
            ),
        }
    }

    /// Lets everything pass again.
    pub fn mend(&self, index: usize) -> Result<()> {
        let node = self.nodes.get(index).context("no such node")?;
        node.run(MEND)
    }
}
