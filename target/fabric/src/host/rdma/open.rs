//! Opening a queue pair over RDMA: address, route, request, answer (CONFORMANCE 2.1, R-5).

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use afs_nvme::rdma::{ADMIN_ENTRIES_MAX, AcceptData, RejectData, Request};
use afs_nvme::{ControllerId, QueueId};
use afs_reactor::Local;
use afs_reactor::verbs::{
    CmChannel, CmEventKind, CmId, DeviceOptions, QueuePair, QueuePairOptions, RdmaDevice, Verbs,
};
use zerocopy::IntoBytes;

use super::super::error::HostError;
use super::super::options::HostOptions;
use super::super::queue::{HostQueue, Link, Shared};
use super::super::table::Table;
use super::driver::Driver;
use super::link::RdmaLink;
use crate::target::RdmaLimits;

/// Time to resolve an address, and again a route.
const RESOLVE_LIMIT: Duration = Duration::from_secs(3);

/// Opens queue `qid`, of `controller` if that is known, and starts its driver.
pub(in super::super) async fn open(
    verbs: &Verbs,
    address: SocketAddr,
    local: &Local,
    mut options: HostOptions,
    (qid, controller): (u16, Option<ControllerId>),
) -> Result<HostQueue, HostError> {
    options.check()?;
    if qid == 0 {
        options.entries = options.entries.min(ADMIN_ENTRIES_MAX);
    }
    let request = Request::new(QueueId(qid), options.entries - 1, controller);
    let limit = options.connect_timeout;
    let (channel, id) = tokio::time::timeout(limit, resolve(verbs, address))
        .await
        .map_err(|_| HostError::Timeout("finding the way"))??;
    let (device, pair) = request_queue(local, id, request, options.receives)
        .map_err(|error| HostError::Device(error.to_string()))?;
    tokio::time::timeout(limit, established(&channel))
        .await
        .map_err(|_| HostError::Timeout("opening the connection"))??;
    let in_capsule = if qid == 0 { 0 } else { options.in_capsule_bytes };
    let link = Rc::new(RdmaLink::new(pair, device, in_capsule));
    let shared = Shared::new(Table::new(), Link::Rdma(Rc::clone(&link)), options.entries, address);
    let driver = Driver { link, channel, shared: Rc::clone(&shared), local: local.clone() };
    drop(local.spawn_local(driver.run()));
    Ok(HostQueue::new(shared, options, local.clone()))
}

async fn resolve(verbs: &Verbs, address: SocketAddr) -> Result<(CmChannel, CmId), HostError> {
    let failed = |error: std::io::Error| HostError::from(&error);
    let channel = CmChannel::open(verbs).map_err(failed)?;
    let id = channel.resolve(address, RESOLVE_LIMIT).map_err(failed)?;
    expect(&channel, |kind| matches!(kind, CmEventKind::AddressResolved)).await?;
    id.resolve_route(RESOLVE_LIMIT).map_err(failed)?;
    expect(&channel, |kind| matches!(kind, CmEventKind::RouteResolved)).await?;
    Ok((channel, id))
}

async fn established(channel: &CmChannel) -> Result<(), HostError> {
    let accepted = expect(channel, |kind| matches!(kind, CmEventKind::Established { .. })).await?;
    if let CmEventKind::Established { private_data } = accepted {
        AcceptData::parse(&private_data)
            .map_err(|_| HostError::Unusable("private data of the accepted connection"))?;
    }
    Ok(())
}

fn request_queue(
    local: &Local,
    id: CmId,
    request: Request,
    receives_max: u32,
) -> std::io::Result<(RdmaDevice, QueuePair)> {
    let capsule_data_bytes = RdmaLimits::default().in_capsule_bytes as usize;
    let device_options = DeviceOptions { capsule_data_bytes, receives_max };
    let device = RdmaDevice::of(local, &id, &device_options, &[])?;
    let entries = request.hsqsize + 1;
    let private_data = request.to_data();
    let options = QueuePairOptions {
        depth: entries,
        initiator_depth: 0,
        private_data: private_data.as_bytes(),
    };
    let pair = QueuePair::connect(&device, id, &options)?;
    Ok((device, pair))
}

/// The next event, if it is the `wanted` one.
async fn expect(
    channel: &CmChannel,
    wanted: impl Fn(&CmEventKind) -> bool,
) -> Result<CmEventKind, HostError> {
    let event = channel.next().await.map_err(|error| HostError::from(&error))?;
    match event.kind {
        kind if wanted(&kind) => Ok(kind),
        CmEventKind::Rejected { reason, private_data } => {
            Err(match RejectData::parse(&private_data) {
                Ok(status) => HostError::Rejected(status),
                Err(_) => HostError::Unreachable { what: "rejected", reason },
            })
        }
        CmEventKind::Unreachable(reason) => {
            Err(HostError::Unreachable { what: "unreachable", reason })
        }
        CmEventKind::ConnectError(reason) => {
            Err(HostError::Unreachable { what: "connection failed", reason })
        }
        _ => Err(HostError::Unusable("an event of the connection manager")),
    }
}
