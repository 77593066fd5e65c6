//! By which of its addresses another node is reached.

use afs_reactor::verbs::Verbs;

use crate::portal::{Portal, Transport};

/// RDMA as other nodes are reached by it.
#[derive(Clone)]
pub struct PeerRdma {
    /// The libraries.
    pub verbs: Verbs,
    /// Receives that a reactor has posted on a device at most: as its listeners say.
    pub receives: u32,
}

/// Why another node cannot even be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// The conductor knows no address of it.
    #[error("it has no address for other nodes: give it a `peer_listen`")]
    NoAddress,
    /// We have no RDMA, and it has nothing else.
    #[error(
        "it listens for other nodes by RDMA alone, and this one has no RDMA for them: give this one an rdma:// address in its `peer_listen` and a device, or that one a tcp:// address as well"
    )]
    OnlyRdma,
}

/// RDMA first, as it copies nothing; then TCP.
pub(super) fn sorted(portals: &[Portal], rdma: bool) -> Result<Vec<Portal>, NoWay> {
    let by = |transport| portals.iter().filter(move |portal| portal.transport == transport);
    let mut ways: Vec<Portal> = by(Transport::Rdma).filter(|_| rdma).copied().collect();
    ways.extend(by(Transport::Tcp));
    match (ways.is_empty(), portals.is_empty()) {
        (false, _) => Ok(ways),
        (true, true) => Err(NoWay::NoAddress),
        (true, false) => Err(NoWay::OnlyRdma),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rdma_is_tried_first_where_both_have_it_and_tcp_is_what_is_left() {
        let portal = |transport, address: &str| {
            let address = address.parse().unwrap();
            Portal { transport, address }
        };
        let tcp = portal(Transport::Tcp, "10.0.0.1:4430");
        let [first, second] =
            ["10.0.0.1:4430", "10.0.1.1:4430"].map(|address| portal(Transport::Rdma, address));
        assert_eq!(sorted(&[tcp, first, second], true), Ok(vec![first, second, tcp]));
        assert_eq!(sorted(&[first, tcp], false), Ok(vec![tcp]));
        assert_eq!(sorted(&[first], false), Err(NoWay::OnlyRdma));
        assert_eq!(sorted(&[], true), Err(NoWay::NoAddress));
    }
}
