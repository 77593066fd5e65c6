//! Discovery: what one host may see of the whole cluster, as log page 70h (CONFORMANCE 4.7).
//!
//! Every node answers for all: the directory lists each port of each node, TCP and RDMA, for each subsystem. A discovery controller
//! reads through a frozen snapshot that is taken anew at each read from offset 0, so that a log which changes between the
//! chunks of one reading never mixes (D-8), and GENCTR only rises (D-9).

use crate::portal::{Portal, Transport};
use crate::subsystem::Access;
use afs_nvme::log::discovery::{adrfam, eflags, subtype, treq, trtype, tsas};
use afs_nvme::log::{DiscoveryEntry, DiscoveryHeader, RdmaTsas};
use afs_nvme::{ControllerId, Nqn, text};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use zerocopy::{FromZeros, IntoBytes};

/// ASQSZ: entries of an admin queue (D-3).
const ADMIN_QUEUE_ENTRIES: u16 = 32;

/// A portal on which a node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// PORTID, unique per listener in the cluster (D-10).
    pub id: u16,
    /// Where hosts can reach it, never a wildcard (D-7).
    pub portal: Portal,
}

/// What can be discovered, for all hosts.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Each subsystem with who may use it.
    pub subsystems: Vec<(Nqn, Arc<Access>)>,
    /// Every port of every node, of both transports, also of nodes that are down for a while (D-11).
    pub ports: Vec<Port>,
    /// Rises by each change; starts at the wall clock.
    pub generation: u64,
}

impl Directory {
    /// The next generation after `before`, never below the wall clock in milliseconds, so that it rises over restarts (D-9).
    pub fn next_generation(before: u64) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        u64::try_from(now).unwrap_or(u64::MAX).max(before.saturating_add(1))
    }

    fn entries_for(&self, host: &Nqn) -> Vec<DiscoveryEntry> {
        let allowed = self.subsystems.iter().filter(|(_, access)| access.allows(host));
        let this = self
            .ports
            .iter()
            .map(|port| entry(port, subtype::CURRENT_DISCOVERY, &Nqn::discovery()));
        let subsystems = allowed
            .flat_map(|(nqn, _)| self.ports.iter().map(move |port| entry(port, subtype::NVM, nqn)));
        this.chain(subsystems).collect()
    }
}

fn entry(port: &Port, kind: u8, nqn: &Nqn) -> DiscoveryEntry {
    let Portal { transport, address } = port.portal;
    let mut entry = DiscoveryEntry::new_zeroed();
    (entry.trtype, entry.tsas) = attributes(transport);
    entry.adrfam = if address.is_ipv4() { adrfam::IPV4 } else { adrfam::IPV6 };
    entry.subtype = kind;
    entry.treq = treq::NOT_SPECIFIED;
    entry.portid = port.id.into();
    entry.cntlid = ControllerId::DYNAMIC.get().into();
    entry.asqsz = ADMIN_QUEUE_ENTRIES.into();
    if kind == subtype::CURRENT_DISCOVERY {
        // Every node returns the same data and keeps persistent connections (D-12).
        entry.eflags = (eflags::DUPLICATE_RETURNED | eflags::PERSISTENT).into();
    }
    entry.trsvcid = text::padded(&address.port().to_string());
    entry.traddr = text::padded(&address.ip().to_string());
    entry.subnqn = nqn.to_field();
    entry
}

/// TRTYPE and TSAS (D-3).
fn attributes(transport: Transport) -> (u8, [u8; 256]) {
    match transport {
        Transport::Tcp => {
            let mut tcp = [0; 256];
            tcp[0] = tsas::TCP_NO_SECURITY;
            (trtype::TCP, tcp)
        }
        Transport::Rdma => (trtype::RDMA, RdmaTsas::connected().to_bytes()),
    }
}

struct Snapshot {
    generation: u64,
    entries: Vec<DiscoveryEntry>,
    /// Header and entries as the host reads them.
    bytes: Vec<u8>,
}

impl Snapshot {
    fn of(directory: &Directory, host: &Nqn) -> Snapshot {
        let entries = directory.entries_for(host);
        let header = DiscoveryHeader::new(directory.generation, entries.len() as u64);
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(entries.as_bytes());
        Snapshot { generation: directory.generation, entries, bytes }
    }
}

/// The discovery log as one discovery controller sees it.
pub struct DiscoveryView {
    directory: Arc<ArcSwap<Directory>>,
    host: Nqn,
    snapshot: Mutex<Arc<Snapshot>>,
}

impl DiscoveryView {
    /// The view of `host`.
    pub fn new(directory: Arc<ArcSwap<Directory>>, host: Nqn) -> DiscoveryView {
        let snapshot = Arc::new(Snapshot::of(&directory.load(), &host));
        DiscoveryView { directory, host, snapshot: Mutex::new(snapshot) }
    }

    /// Whether what this host can see differs from what its snapshot shows (D-15).
    pub fn differs(&self) -> bool {
        let shown = Arc::clone(&self.snapshot.lock());
        self.directory.load().entries_for(&self.host).as_bytes() != shown.entries.as_bytes()
    }

    /// Copies the log from `offset` to `out`, zeroes after its end; a read at offset 0 takes a new snapshot (D-8).
    ///
    /// Returns false when `offset` lies beyond the log (CONFORMANCE A-31).
    pub fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        let snapshot = if offset == 0 { self.renew() } else { Arc::clone(&self.snapshot.lock()) };
        crate::admin::copy_from(&snapshot.bytes, offset, out)
    }

    fn renew(&self) -> Arc<Snapshot> {
        let directory = self.directory.load();
        let mut snapshot = self.snapshot.lock();
        if snapshot.generation != directory.generation {
            *snapshot = Arc::new(Snapshot::of(&directory, &self.host));
        }
        Arc::clone(&snapshot)
    }
}
