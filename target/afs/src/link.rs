//! What reaches a controller, and what Identify says because of it.

use afs_fabric::Queue;
use afs_nvme::identify::{IdentifyController, sgls};

use crate::portal::Transport;

/// How the queues of a controller travel: all of them as its admin queue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The transport.
    pub transport: Transport,
    /// Data that a capsule of an I/O queue may carry, in bytes.
    pub in_capsule_bytes: u32,
}

impl Link {
    /// That of `queue`.
    pub fn of(queue: &Queue) -> Link {
        Link { transport: queue.transport(), in_capsule_bytes: queue.in_capsule_bytes() }
    }

    /// SGLS, and the capsules of I/O queues (CONFORMANCE 4.3, T-22, R-12, R-18): data begins right behind the command
    /// (ICDOFF 0), and there is one descriptor (MSDBD 1).
    pub fn describe(self, id: &mut IdentifyController) {
        let supported = match self.transport {
            Transport::Tcp => sgls::TCP,
            Transport::Rdma => sgls::RDMA,
        };
        id.sgls = supported.into();
        id.ioccsz = ((64 + self.in_capsule_bytes) / 16).into();
        id.iorcsz = 1.into();
        id.icdoff = 0.into();
        id.msdbd = 1;
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn described(transport: Transport, in_capsule_bytes: u32) -> IdentifyController {
        let mut id = IdentifyController::new_zeroed();
        Link { transport, in_capsule_bytes }.describe(&mut id);
        id
    }

    #[test]
    fn rdma_hosts_are_offered_keyed_descriptors_and_data_in_capsules_r_12_r_18() {
        let id = described(Transport::Rdma, 4096);
        assert_eq!(id.sgls.get(), 0x0010_0005);
        assert_eq!((id.ioccsz.get(), id.iorcsz.get()), ((64 + 4096) / 16, 1));
        assert_eq!((id.icdoff.get(), id.msdbd), (0, 1));
    }

    #[test]
    fn tcp_hosts_are_not_offered_keyed_descriptors_t_25() {
        let id = described(Transport::Tcp, 16 << 10);
        assert_eq!(id.sgls.get(), 0x0010_0001);
        assert_eq!(id.ioccsz.get(), (64 + (16 << 10)) / 16);
    }

    #[test]
    fn a_capsule_without_data_is_four_units_long() {
        assert_eq!(described(Transport::Rdma, 0).ioccsz.get(), 4);
    }
}
