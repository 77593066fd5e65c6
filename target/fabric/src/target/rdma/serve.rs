//! Serves one connection from its request to its end, on a reactor.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use afs_nvme::rdma::{AcceptData, RejectData, RejectStatus, Request};
use afs_reactor::Local;
use afs_reactor::verbs::{
    CmId, CmWatch, ConnectRequest, DeviceOptions, QueuePair, QueuePairOptions, RdmaDevice,
};
use zerocopy::IntoBytes;

use super::super::admission::Admission;
use super::super::close::{CloseReason, Signals};
use super::super::connection::{Parts, run};
use super::super::limits::Limits;
use super::super::queue::{Origin, Queue, Way};
use super::super::reserve::reserve;
use super::super::service::Service;
use super::table::Registration;
use super::wire::RdmaWire;

/// A connection request that is in order so far.
pub(super) struct Incoming {
    pub(super) request: ConnectRequest,
    /// What its private data says.
    pub(super) wanted: Request,
    pub(super) signals: Arc<Signals>,
    pub(super) admission: Admission,
    pub(super) registration: Registration,
    pub(super) limits: Limits,
    /// Of the channel that tells when the host is gone.
    pub(super) watch: CmWatch,
}

/// Accepts the connection and serves its queue pair until it ends. `None` when it was rejected.
pub(super) async fn serve<S: Service>(
    incoming: Incoming,
    local: &Local,
    make: impl FnOnce(&Queue) -> Rc<S>,
) -> Option<CloseReason> {
    let Incoming { request, wanted, signals, admission, registration, limits, watch } = incoming;
    let admin = wanted.queue.get() == 0;
    let extra = if admin { limits.admin_extra_commands } else { 0 };
    let depth = usize::from(wanted.hsqsize) + 1 + extra;
    let (Ok(reserve), Some(peer), Some(own)) = (reserve(), request.id.peer(), request.id.local())
    else {
        reject(request.id, RejectStatus::NoResources);
        return None;
    };
    let pools = (local.pool().clone(), reserve);
    let options = DeviceOptions {
        capsule_data_bytes: limits.rdma.in_capsule_bytes as usize,
        receives_max: limits.rdma.receives,
    };
    let device = match RdmaDevice::of(local, &request.id, &options, std::slice::from_ref(&pools.1))
    {
        Ok(device) => device,
        Err(error) => {
            tracing::warn!(%peer, %error, "cannot use the RDMA device of a connection request");
            reject(request.id, RejectStatus::NoResources);
            return None;
        }
    };
    let (initiator_depth, status) = read_depth(&request, &device);
    if let Some(status) = status {
        reject(request.id, status);
        return None;
    }
    let pair = match accept(&device, request.id, &wanted, depth, initiator_depth) {
        Ok(pair) => pair,
        Err(error) => {
            tracing::warn!(%peer, %error, "cannot accept an RDMA connection");
            return None;
        }
    };
    let queue = Queue::new(Origin {
        way: Way::Rdma(watch),
        addresses: (peer, own),
        pools,
        signals: Arc::clone(&signals),
        admission: Some(admission),
        stall_timeout: limits.stall_timeout,
        in_capsule_bytes: limits.rdma.in_capsule_bytes,
    });
    let service = make(&queue);
    let wire = RdmaWire::new(pair, (admin, depth), &limits, Arc::clone(&signals));
    let reason = run(Parts { queue, signals, service, limits, local: local.clone() }, wire).await;
    drop(registration);
    Some(reason)
}

fn accept(
    device: &RdmaDevice,
    id: CmId,
    wanted: &Request,
    depth: usize,
    initiator_depth: u8,
) -> io::Result<QueuePair> {
    let private_data = AcceptData::new(wanted.hsqsize + 1);
    let options = QueuePairOptions {
        depth: u16::try_from(depth).unwrap_or(u16::MAX),
        initiator_depth,
        private_data: private_data.as_bytes(),
    };
    QueuePair::accept(device, id, &options)
}

/// RDMA READs that may be outstanding at once (CONFORMANCE ), or why there can be none.
fn read_depth(request: &ConnectRequest, device: &RdmaDevice) -> (u8, Option<RejectStatus>) {
    let ours = device.limits().initiator_depth;
    let status = match (request.initiator_depth, ours) {
        (0, _) => Some(RejectStatus::InboundReadDepth),
        (_, 0) => Some(RejectStatus::NoResources),
        _ => None,
    };
    (request.initiator_depth.min(ours), status)
}

/// CONFORMANCE R-1.
pub(super) fn reject(id: CmId, status: RejectStatus) {
    if let Err(error) = id.reject(RejectData::new(status).as_bytes()) {
        // The host is gone, or will hear of it by a time-out.
        tracing::debug!(%error, %status, "a rejection did not leave");
    }
}
