//! Network cables between two guests: what a host and a node that are two machines have.

use std::net::SocketAddr;

use anyhow::Result;

use super::Shell;
use crate::node::free_port;

/// One end of a cable. The end that [`new`](Self::new) makes must be up before the other one; it stays up when that one loses its
/// power, and may then be joined again.
#[derive(Clone, Copy, Debug)]
pub struct Lan {
    socket: SocketAddr,
    number: u8,
    end: u8,
}

impl Lan {
    /// The first end of a new cable; its number is its own in the guest.
    pub fn new(number: u8) -> Result<Self> {
        Ok(Self { socket: free_port()?, number, end: 1 })
    }

    /// The second end.
    pub fn other_end(self) -> Self {
        Self { end: 2, ..self }
    }

    /// The name of the interface and of the soft RDMA device at this end.
    pub fn name(self) -> String {
        format!("lan{}", self.number)
    }

    /// The IPv4 address of the guest at this end.
    pub fn address(self) -> String {
        self.numbered(self.end)
    }

    fn numbered(self, last: u8) -> String {
        format!("10.78.{}.{last}", self.number)
    }

    fn mac(self) -> String {
        format!("52:54:00:78:{:02x}:{:02x}", self.number, self.end)
    }

    pub(super) fn qemu_arguments(self) -> [String; 4] {
        let (name, what) = (self.name(), if self.end == 1 { "listen" } else { "connect" });
        [
            "-netdev".to_owned(),
            format!("socket,id={name},{what}={}", self.socket),
            "-device".to_owned(),
            format!("virtio-net-pci,netdev={name},romfile=,mac={}", self.mac()),
        ]
    }

    /// Gives the guest its address, and a soft RDMA device on the interface.
    pub fn start_rdma(self, shell: &Shell) -> Result<()> {
        super::soft_rdma::load(shell)?;
        let (name, mac, address) = (self.name(), self.mac(), self.address());
        let command = format!(
            "set -e; modprobe virtio_net; i=$(basename $(dirname $(grep -l {mac} /sys/class/net/*/address))); \
             [ $i = {name} ] || ip link set $i name {name}; \
             ip address replace {address}/24 dev {name}; ip link set {name} mtu 9000 up; \
             rdma link show {name}/1 > /dev/null 2>&1 || rdma link add {name} type rxe netdev {name}; \
             for wait in $(seq 100); do grep -q ACTIVE /sys/class/infiniband/{name}/ports/1/state && exit 0; sleep 0.1; done; exit 1"
        );
        shell.ok(&command).map(drop)
    }

    /// Gives the guest one more address on the cable, and returns it.
    pub fn add_address(self, shell: &Shell, last: u8) -> Result<String> {
        let address = self.numbered(last);
        shell.ok(&format!("ip address replace {address}/24 dev {}", self.name()))?;
        Ok(address)
    }
}
