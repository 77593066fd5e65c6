//! Hears connection requests on one address and hands each to a reactor; outlives its device, and follows its address.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use afs_nvme::rdma::{RejectStatus, Request, RequestLimits};
use afs_reactor::verbs::{CmChannel, CmEvent, CmEventKind, CmId, CmWatch, ConnectRequest, Verbs};
use afs_reactor::{Local, ReactorHandle};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::super::admission::HalfOpenTable;
use super::super::close::{CloseReason, QueueCloser, Signals};
use super::super::limits::Limits;
use super::super::queue::Queue;
use super::super::service::Service;
use super::place::{Interfaces, Lookout};
use super::serve::{Incoming, reject, serve};
use super::table::ConnectionTable;

/// An RDMA address that hosts connect to.
pub struct RdmaListener {
    channel: CmChannel,
    address: SocketAddr,
    backlog: u32,
    /// `None` while no device has the address.
    id: Option<CmId>,
    /// The interfaces that had the address just before `id` was made; `None` if that is not known.
    place: Option<Interfaces>,
    lookout: Lookout,
    listening: watch::Sender<bool>,
}

impl RdmaListener {
    /// Listens on `address`. When no device has it now, [`RdmaListener::serve`] goes on trying; see
    /// [`RdmaListener::listening`].
    ///
    /// # Errors
    /// When the connection manager cannot be used, or `AddrInUse`.
    pub fn open(verbs: &Verbs, address: SocketAddr, backlog: u32) -> io::Result<RdmaListener> {
        RdmaListener::open_at(verbs, address, backlog, Lookout::default())
    }

    pub(super) fn open_at(
        verbs: &Verbs,
        address: SocketAddr,
        backlog: u32,
        lookout: Lookout,
    ) -> io::Result<RdmaListener> {
        let channel = CmChannel::open(verbs)?;
        let place = lookout.look_up(address.ip()).ok();
        let id = match channel.listen(address, backlog) {
            Ok(id) => Some(id),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => {
                tracing::warn!(%address, %error, "no RDMA device has this address now; listening as soon as one does");
                None
            }
        };
        let (listening, _) = watch::channel(id.is_some());
        Ok(RdmaListener { channel, address, backlog, id, place, lookout, listening })
    }

    /// Whether hosts can reach the address now, and when that changes.
    #[must_use]
    pub fn listening(&self) -> watch::Receiver<bool> {
        self.listening.subscribe()
    }

    /// Accepts until the future is dropped. Connections go to `reactors` in turn; `make` makes the service of
    /// each, on its reactor. When the device goes, its connections end; when it is back, so is the listener. When the
    /// address leaves its interface, it is listened on anew wherever it appears; its connections end as their packets do.
    ///
    /// # Errors
    /// When the connection manager fails for good; failures of single connections are not errors.
    pub async fn serve<S, M>(
        mut self,
        reactors: Vec<ReactorHandle>,
        limits: Limits,
        make: M,
    ) -> io::Result<()>
    where
        S: Service,
        M: Fn(&Queue, &Local) -> Rc<S> + Clone + Send + 'static,
    {
        let limits = limits.sane();
        let dispatch = Dispatch {
            half_open: HalfOpenTable::new(limits.half_open_per_peer, limits.half_open_total),
            table: ConnectionTable::default(),
            limits,
            make,
            watch: self.channel.watch(),
        };
        let mut next = reactors.iter().cycle();
        // One timer for all: events, which hosts cause as often as they like, do not put it off.
        let mut looks = tokio::time::interval(self.lookout.every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = self.channel.next() => event?,
                _ = looks.tick() => {
                    self.look();
                    continue;
                }
            };
            if let Some(request) = self.sort(&dispatch.table, event) {
                let Some(reactor) = next.next() else {
                    let message = "no reactor to serve connections on";
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                };
                dispatch.request(request, reactor);
            }
        }
    }

    /// Gives up an address that is not where it was, and listens where there is no listener.
    ///
    /// The connection manager ties a listener to the device and interface that have the address at that moment, and does
    /// not tell when it leaves them (only when a bond changes its adapter, see [`CmEventKind::AddressChange`]).
    fn look(&mut self) {
        if self.id.is_some() && !self.address.ip().is_unspecified() {
            match self.lookout.look_up(self.address.ip()) {
                Ok(now) if self.place.as_ref().is_none_or(|place| *place == now) => {
                    self.place = Some(now);
                }
                Ok(now) if now.is_empty() => {
                    tracing::warn!(address = %self.address, "this machine does not have the address any more; listening again when it does");
                    self.set_id(None);
                }
                Ok(_) => {
                    tracing::warn!(address = %self.address, "the address has moved to another interface; listening anew");
                    self.set_id(None);
                }
                Err(error) => {
                    tracing::debug!(address = %self.address, %error, "cannot look where the address is");
                }
            }
        }
        if self.id.is_none() {
            self.listen_again();
        }
    }

    fn listen_again(&mut self) {
        // Before it listens: what changes in between is seen at the next look.
        self.place = self.lookout.look_up(self.address.ip()).ok();
        match self.channel.listen(self.address, self.backlog) {
            Ok(id) => {
                tracing::info!(address = %self.address, "listening: an RDMA device has the address again");
                self.set_id(Some(id));
            }
            Err(error) => tracing::debug!(address = %self.address, %error, "still no RDMA device"),
        }
    }

    fn set_id(&mut self, id: Option<CmId>) {
        // Nobody has to watch.
        self.listening.send_replace(id.is_some());
        self.id = id;
    }

    /// Passes an event on to its connection; a connection request comes back.
    fn sort(&mut self, table: &ConnectionTable, event: CmEvent) -> Option<ConnectRequest> {
        let CmEvent { key, kind } = event;
        let of_listener = self.id.as_ref().is_some_and(|id| id.key() == key);
        let reason = match kind {
            CmEventKind::ConnectRequest(request) => return Some(request),
            CmEventKind::DeviceRemoval if of_listener => {
                tracing::warn!(address = %self.address, "the RDMA device was removed; listening again when it is back");
                self.set_id(None);
                return None;
            }
            CmEventKind::AddressChange if of_listener => {
                tracing::warn!(address = %self.address, "the address has moved to another adapter; listening anew");
                self.set_id(None);
                self.listen_again();
                return None;
            }
            CmEventKind::DeviceRemoval | CmEventKind::AddressChange => CloseReason::DeviceGone,
            CmEventKind::Disconnected
            | CmEventKind::TimewaitExit
            | CmEventKind::Rejected { .. }
            | CmEventKind::Unreachable(_)
            | CmEventKind::ConnectError(_) => CloseReason::PeerClosed,
            CmEventKind::Established { .. } => {
                table.established(key);
                return None;
            }
            CmEventKind::AddressResolved | CmEventKind::RouteResolved | CmEventKind::Other(_) => {
                return None;
            }
        };
        table.close(key, reason);
        None
    }
}

/// What every connection request needs.
struct Dispatch<M> {
    half_open: HalfOpenTable,
    table: ConnectionTable,
    limits: Limits,
    make: M,
    watch: CmWatch,
}

impl<M> Dispatch<M> {
    /// Rejects the request, or hands it to `reactor`.
    fn request<S>(&self, request: ConnectRequest, reactor: &ReactorHandle)
    where
        S: Service,
        M: Fn(&Queue, &Local) -> Rc<S> + Clone + Send + 'static,
    {
        let peer = request.id.peer();
        match self.admit(request) {
            Err((id, status)) => {
                tracing::info!(?peer, %status, "RDMA connection rejected");
                reject(id, status);
            }
            Ok(incoming) => {
                let make = self.make.clone();
                reactor.spawn(move |local| async move {
                    let reason = serve(incoming, &local, |queue| make(queue, &local)).await;
                    tracing::debug!(?peer, ?reason, "queue pair ended");
                });
            }
        }
    }

    fn admit(&self, request: ConnectRequest) -> Result<Incoming, (CmId, RejectStatus)> {
        let rdma = self.limits.rdma;
        let allowed = RequestLimits { qid_max: rdma.qid_max, hsqsize_max: rdma.sqsize_max };
        let wanted = match Request::parse(&request.private_data, &allowed) {
            Ok(wanted) => wanted,
            Err(status) => return Err((request.id, status)),
        };
        let signals = Signals::new();
        let closer = QueueCloser::new(Arc::clone(&signals));
        let admission =
            request.id.peer().and_then(|peer| self.half_open.admit(peer, closer.clone()));
        let Some(admission) = admission else {
            return Err((request.id, RejectStatus::NoResources));
        };
        let registration = self.table.enter(request.id.key(), closer);
        let (limits, watch) = (self.limits.clone(), self.watch.clone());
        Ok(Incoming { request, wanted, signals, admission, registration, limits, watch })
    }
}
