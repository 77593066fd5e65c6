//! Machines with adapters for RDMA: two guests with two cables between them, one for hosts and one for the nodes among themselves.
//!
//! The first node has a guest of its own, and its links can be cut; the others run beside the host in the other guest. Conductors,
//! ZooKeeper and PostgreSQL are native, as over TCP.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::{Cut, Network, network};
use crate::guest::{Guest, GuestOptions, Lan, Shell, soft_rdma};
use crate::guest_node::HTTP_PORT;
use crate::nvme::Transport;
use crate::prepare::Kernel;
use crate::scene::prepare_folder;

/// The cables by number.
const HOSTS: usize = 0;
const PEERS: usize = 1;
/// What a node listens on for others: RDMA, which is tried first, and TCP.
pub(super) const PEERS_BY: [Transport; 2] = [Transport::Rdma, Transport::Tcp];
/// The node with a guest of its own.
const FIRST: usize = 0;
/// Nodes have the addresses from this one on in both networks.
const FIRST_ADDRESS: u8 = 11;

/// See the module.
#[derive(Debug)]
pub(super) struct Guests {
    apart: Guest,
    beside: Shell,
    /// Their ends of both cables; those of `apart` are the other ones.
    cables: [Lan; 2],
    /// Where those of the host's guest are reached that answer by HTTP.
    faces: Vec<SocketAddr>,
    network: Network,
}

/// The place of a node.
pub(super) struct Place<'a> {
    pub(super) shell: &'a Shell,
    /// For hosts.
    pub(super) address: String,
    /// For other nodes.
    pub(super) peers: String,
    /// Its port for HTTP in the guest, and where that is reached.
    pub(super) http: u16,
    pub(super) face: SocketAddr,
}

impl Drop for Guests {
    /// The host's guest outlives the cluster, and other tests count its devices.
    fn drop(&mut self) {
        for cable in self.cables {
            if let Err(error) = soft_rdma::remove_named(&self.beside, &cable.name()) {
                eprintln!("lab: {error:#}");
            }
        }
    }
}

impl Guests {
    /// Boots the first node's machine beside the host's, which has two cables, and folders for nodes in both.
    pub(super) fn start(host: &Guest, kernel: Kernel) -> Result<Self> {
        let cables = [host.lan(HOSTS)?, host.lan(PEERS)?];
        let ends = cables.map(Lan::other_end);
        for cable in cables {
            cable.start_rdma(host)?;
        }
        let apart = Guest::boot(&GuestOptions {
            memory_mib: 1024,
            scratch_gib: Some(4),
            forwarded: vec![HTTP_PORT],
            lans: ends.to_vec(),
            ..GuestOptions::new(kernel)
        })?;
        for cable in ends {
            cable.start_rdma(&apart)?;
        }
        for guest in [host, &apart] {
            prepare_folder(guest)?;
            guest.ok(&format!("nft list table inet lab || nft '{}'", network::TABLE))?;
        }
        let faces =
            [apart.forwarded(HTTP_PORT), host.forwarded(HTTP_PORT), host.forwarded(HTTP_PORT + 1)];
        let faces = faces.into_iter().collect::<Result<_>>()?;
        Ok(Self { apart, beside: Shell::clone(host), cables, faces, network: Network::new(0)? })
    }

    /// The network of those that are native.
    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// The place of a node.
    pub(super) fn place(&self, index: usize) -> Result<Place<'_>> {
        let face = *self.faces.get(index).context("there is no place for more nodes")?;
        let (shell, [hosts, peers]) = match index {
            FIRST => (&*self.apart, self.cables.map(Lan::other_end)),
            _ => (&self.beside, self.cables),
        };
        let number = u8::try_from(index)?;
        Ok(Place {
            shell,
            address: hosts.add_address(shell, FIRST_ADDRESS + number)?,
            peers: peers.add_address(shell, FIRST_ADDRESS + number)?,
            http: HTTP_PORT + u16::from(number.saturating_sub(1)),
            face,
        })
    }

    /// Drops what arrives at the first node or, with everything cut, comes from it.
    ///
    /// Where a packet is sent it is not dropped: soft RDMA would see an error there, which no adapter sees when a cable breaks.
    pub(super) fn cut(&self, index: usize, cut: Cut) -> Result<()> {
        ensure!(index == FIRST, "only the first node has links that can be cut");
        let [hosts, peers] = self.cables.map(Lan::name);
        match cut {
            Cut::FromPeers => {
                self.apart.ok(&format!("nft add rule inet lab in iifname {peers} drop"))
            }
            Cut::Everything => {
                let cables =
                    format!("nft 'add rule inet lab in iifname {{ {hosts}, {peers} }} drop'");
                self.beside.ok(&cables)?;
                self.apart.ok(&format!("{cables}; nft add rule inet lab out oifname eth0 drop"))
            }
        }
        .map(drop)
    }

    /// Lets everything pass again.
    pub(super) fn mend(&self) -> Result<()> {
        for shell in [&self.beside, &*self.apart] {
            shell.ok(network::MEND)?;
        }
        Ok(())
    }

    /// Takes the RDMA device for other nodes away in the host's guest; TCP stays.
    pub(super) fn remove_device_between_nodes(&self) -> Result<()> {
        soft_rdma::remove_named(&self.beside, &self.cables[PEERS].name())
    }

    /// Makes it again.
    pub(super) fn restore_device_between_nodes(&self) -> Result<()> {
        self.cables[PEERS].start_rdma(&self.beside)
    }
}
