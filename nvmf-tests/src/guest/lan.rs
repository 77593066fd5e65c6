//! A network cable between two guests: what a host and a node that are two machines have.

use std::net::SocketAddr;

use anyhow::Result;

use super::Shell;
use crate::node::free_port;

/// One end of a cable. The end that [`new`](Self::new) makes must be up before the other one; it stays up when that one loses its
/// power, and may then be joined again.
#[derive(Clone, Copy, Debug)]
pub struct Lan {
    socket: SocketAddr,
    end: u8,
}

impl Lan {
    /// A new cable's first end.
    pub fn new() -> Result<Self> {
        Ok(Self { socket: free_port()?, end: 1 })
    }

    /// The second end.
    pub fn other_end(self) -> Self {
        Self { end: 2, ..self }
    }

    /// The IPv4 address of the guest at this end.
    pub fn address(self) -> String {
        format!("10.78.0.{}", self.end)
    }

    pub(super) fn mac(self) -> String {
        format!("52:54:00:78:00:0{}", self.end)
    }

    pub(super) fn qemu_arguments(self) -> [String; 4] {
        let what = if self.end == 1 { "listen" } else { "connect" };
        [
            "-netdev".to_owned(),
            format!("socket,id=lan,{what}={}", self.socket),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev=lan,romfile=,mac={}", self.mac()),
        ]
    }

    /// Gives the guest its address, and a soft RDMA device `lan` on the interface.
    pub fn start_rdma(self, shell: &Shell) -> Result<()> {
        super::soft_rdma::load(shell)?;
        let command = format!(
            "set -e; modprobe virtio_net; i=$(basename $(dirname $(grep -l {} /sys/class/net/*/address))); \
             ip address replace {}/24 dev $i; ip link set $i up; \
             rdma link show lan/1 > /dev/null 2>&1 || rdma link add lan type rxe netdev $i; \
             for wait in $(seq 100); do grep -q ACTIVE /sys/class/infiniband/lan/ports/1/state && exit 0; sleep 0.1; done; exit 1",
            self.mac(),
            self.address()
        );
        shell.ok(&command).map(drop)
    }
}
