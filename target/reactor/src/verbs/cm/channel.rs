//! The channel that events come from, and the ids made on it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use afs_verbs_sys as sys;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::id::{IdInner, milliseconds};
use super::{CmEvent, CmEventKind, CmId, CmKey, ConnectRequest, PrivateData};
use crate::verbs::address;
use crate::verbs::context::{Contexts, Watched, set_nonblocking, watch};
use crate::verbs::error::{check_errno, context};
use crate::verbs::library::Verbs;

/// The C object; held by all ids that were made on it.
pub(super) struct ChannelInner {
    pub(super) verbs: Verbs,
    raw: NonNull<sys::rdma_event_channel>,
    ids: Mutex<HashMap<CmKey, Weak<IdInner>>>,
    /// An event was taken, and whoever took it has not come for the next one.
    passing_on: AtomicBool,
}

// SAFETY: librdmacm allows calls on a channel from any thread; the C struct is only a descriptor.
unsafe impl Send for ChannelInner {}
// SAFETY: as above.
unsafe impl Sync for ChannelInner {}

impl ChannelInner {
    pub(super) fn new_key(&self) -> CmKey {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        CmKey(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn enter(&self, key: CmKey, id: &Arc<IdInner>) {
        self.ids.lock().insert(key, Arc::downgrade(id));
    }

    pub(super) fn forget(&self, key: CmKey) {
        self.ids.lock().remove(&key);
    }

    fn find(&self, key: CmKey) -> Option<Arc<IdInner>> {
        self.ids.lock().get(&key).and_then(Weak::upgrade)
    }
}

impl Drop for ChannelInner {
    fn drop(&mut self) {
        // SAFETY: all ids of the channel are gone, as each holds it.
        unsafe { self.verbs.cm().rdma_destroy_event_channel(self.raw.as_ptr()) };
    }
}

/// Tells any thread whether a channel is quiet.
#[derive(Clone)]
pub struct CmWatch(Arc<ChannelInner>);

impl CmWatch {
    /// Whether all that has happened to the channel's ids up to now was passed on by whoever takes its events, which must be one
    /// task that passes each on before it asks for the next.
    pub fn is_quiet(&self) -> bool {
        // SAFETY: the channel, and with it its descriptor, lives as long as `self`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.0.raw.as_ref().fd) };
        let mut looked = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        let waiting = poll(&mut looked, Some(&Timespec::default()));
        // In this order: an event that is gone from the channel was marked before it went.
        waiting == Ok(0) && !self.0.passing_on.load(Ordering::SeqCst)
    }
}

/// Where connections begin: listeners and outgoing connections are made here, and events of all
/// of them come out. May be used by several threads at once.
pub struct CmChannel {
    watched: Watched,
    inner: Arc<ChannelInner>,
}

impl CmChannel {
    /// Makes a channel, on a tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(verbs: &Verbs) -> io::Result<CmChannel> {
        // SAFETY: no arguments.
        let raw = NonNull::new(unsafe { verbs.cm().rdma_create_event_channel() })
            .ok_or_else(io::Error::last_os_error)?;
        let inner = Arc::new(ChannelInner {
            verbs: verbs.clone(),
            raw,
            ids: Mutex::new(HashMap::new()),
            passing_on: AtomicBool::new(false),
        });
        // SAFETY: made above.
        let fd = unsafe { raw.as_ref() }.fd;
        set_nonblocking(fd)?;
        Ok(CmChannel { watched: watch(fd)?, inner })
    }

    /// A way to ask whether there are events.
    pub fn watch(&self) -> CmWatch {
        CmWatch(Arc::clone(&self.inner))
    }

    /// Listens on `address`, with at most `backlog` peers that wait to be accepted. Dropping the
    /// result ends that. An IPv6 address takes no IPv4 connections.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, or what else the system says.
    pub fn listen(&self, address: SocketAddr, backlog: u32) -> io::Result<CmId> {
        let id = self.create()?;
        let options: &[_] = if address.is_ipv6() {
            &[sys::RDMA_OPTION_ID_REUSEADDR, sys::RDMA_OPTION_ID_AFONLY]
        } else {
            &[sys::RDMA_OPTION_ID_REUSEADDR]
        };
        for &option in options {
            set_option(&self.inner.verbs, &id, option)?;
        }
        let cm = self.inner.verbs.cm();
        let mut storage = address::to_c(address);
        // SAFETY: a live id; the address is valid during the call.
        check_errno(unsafe { cm.rdma_bind_addr(id.inner.raw(), (&raw mut storage).cast()) })?;
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        // SAFETY: a live id.
        check_errno(unsafe { cm.rdma_listen(id.inner.raw(), backlog) })?;
        id.inner.learn_device()?;
        Ok(id)
    }

    /// Begins a connection to `to`: an event tells when the address is resolved.
    ///
    /// # Errors
    /// What the system says.
    pub fn resolve(&self, to: SocketAddr, timeout: Duration) -> io::Result<CmId> {
        let id = self.create()?;
        let mut storage = address::to_c(to);
        // SAFETY: a live id; the address is valid during the call.
        check_errno(unsafe {
            self.inner.verbs.cm().rdma_resolve_addr(
                id.inner.raw(),
                std::ptr::null_mut(),
                (&raw mut storage).cast(),
                milliseconds(timeout),
            )
        })?;
        Ok(id)
    }

    /// The next event of any id. Dropping the future loses none.
    ///
    /// # Errors
    /// What the system says, and when the runtime ends.
    pub async fn next(&self) -> io::Result<CmEvent> {
        self.inner.passing_on.store(false, Ordering::SeqCst);
        loop {
            let mut ready = self.watched.readable().await?;
            // Tries first and forgets the readiness only when nothing is there.
            if let Ok(result) = ready.try_io(|_| self.take()) {
                return result;
            }
        }
    }

    fn create(&self) -> io::Result<CmId> {
        // Who lost a device asks for it again and again, so this comes about as often as is needed.
        Contexts::close_leftovers(&self.inner.verbs);
        let mut raw = std::ptr::null_mut();
        // SAFETY: the channel is live; a success writes a fresh id.
        check_errno(unsafe {
            self.inner.verbs.cm().rdma_create_id(
                self.inner.raw.as_ptr(),
                &raw mut raw,
                std::ptr::null_mut(),
                sys::RDMA_PS_TCP,
            )
        })?;
        let raw = NonNull::new(raw).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // SAFETY: fresh, and ours alone.
        Ok(CmId { inner: unsafe { IdInner::adopt(raw, &self.inner) } })
    }

    /// An event that is there, else `WouldBlock`.
    fn take(&self) -> io::Result<CmEvent> {
        let mut raw = std::ptr::null_mut();
        self.inner.passing_on.store(true, Ordering::SeqCst);
        // SAFETY: the channel is live; a success writes an event.
        let taken = check_errno(unsafe {
            self.inner.verbs.cm().rdma_get_cm_event(self.inner.raw.as_ptr(), &raw mut raw)
        });
        if let Err(error) = taken {
            self.inner.passing_on.store(false, Ordering::SeqCst);
            return Err(error);
        }
        // Declared before the event, so that it is let go after the acknowledgement: whoever lets
        // go of an id last destroys it, and that waits for its events to be acknowledged.
        let _id;
        let event = Unacknowledged { verbs: &self.inner.verbs, raw };
        // SAFETY: a success delivers an event, which lives until it is acknowledged.
        let (fields, key) = unsafe {
            let fields = &*event.raw;
            let id = if fields.listen_id.is_null() { fields.id } else { fields.listen_id };
            (fields, CmKey((*id).context.addr() as u64))
        };
        let id = self.inner.find(key);
        let kind = self.translate(fields, id.as_deref()).unwrap_or_else(|error| {
            tracing::warn!(%error, event = fields.event, "an RDMA connection event has no effect");
            CmEventKind::ConnectError(-error.raw_os_error().unwrap_or(libc::EIO))
        });
        _id = id;
        drop(event);
        Ok(CmEvent { key, kind })
    }

    /// What the event means; an error means that the id it is about cannot be used.
    fn translate(
        &self,
        event: &sys::rdma_cm_event,
        id: Option<&IdInner>,
    ) -> io::Result<CmEventKind> {
        if let Some(id) = id {
            id.learn_device()?;
        }
        // SAFETY: ids for connections have this kind of parameter, all zero if the event has none.
        let (parameter, private_data) = unsafe {
            let parameter = *event.param.conn;
            (parameter, PrivateData::copy(&parameter))
        };
        Ok(match event.event {
            sys::RDMA_CM_EVENT_CONNECT_REQUEST => {
                CmEventKind::ConnectRequest(self.request(event, &parameter, private_data)?)
            }
            sys::RDMA_CM_EVENT_CONNECT_RESPONSE => {
                id.map_or_else(|| Err(gone()), IdInner::finish_connect)?;
                CmEventKind::Established { private_data }
            }
            sys::RDMA_CM_EVENT_ADDR_RESOLVED => CmEventKind::AddressResolved,
            sys::RDMA_CM_EVENT_ROUTE_RESOLVED => CmEventKind::RouteResolved,
            sys::RDMA_CM_EVENT_ESTABLISHED => CmEventKind::Established { private_data },
            sys::RDMA_CM_EVENT_REJECTED => {
                CmEventKind::Rejected { reason: event.status, private_data }
            }
            sys::RDMA_CM_EVENT_UNREACHABLE => CmEventKind::Unreachable(event.status),
            sys::RDMA_CM_EVENT_ADDR_ERROR
            | sys::RDMA_CM_EVENT_ROUTE_ERROR
            | sys::RDMA_CM_EVENT_CONNECT_ERROR => CmEventKind::ConnectError(event.status),
            sys::RDMA_CM_EVENT_DISCONNECTED => CmEventKind::Disconnected,
            sys::RDMA_CM_EVENT_TIMEWAIT_EXIT => CmEventKind::TimewaitExit,
            sys::RDMA_CM_EVENT_DEVICE_REMOVAL => {
                if let Some(context) = id.and_then(IdInner::context) {
                    context.mark_removed();
                }
                CmEventKind::DeviceRemoval
            }
            sys::RDMA_CM_EVENT_ADDR_CHANGE => CmEventKind::AddressChange,
            other => CmEventKind::Other(other),
        })
    }

    fn request(
        &self,
        event: &sys::rdma_cm_event,
        parameter: &sys::rdma_conn_param,
        private_data: PrivateData,
    ) -> io::Result<ConnectRequest> {
        let raw = NonNull::new(event.id).ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))?;
        // SAFETY: a request brings a fresh id, which is the receiver's.
        let inner = unsafe { IdInner::adopt(raw, &self.inner) };
        inner.learn_device()?;
        Ok(ConnectRequest {
            id: CmId { inner },
            private_data,
            initiator_depth: parameter.initiator_depth,
            responder_resources: parameter.responder_resources,
        })
    }
}

/// The owner dropped the id while its event was on the way.
fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNABORTED)
}

/// An event that is acknowledged, once, when this goes.
struct Unacknowledged<'a> {
    verbs: &'a Verbs,
    raw: *mut sys::rdma_cm_event,
}

impl Drop for Unacknowledged<'_> {
    fn drop(&mut self) {
        // SAFETY: fetched, not acknowledged yet, and not used afterwards.
        unsafe { self.verbs.cm().rdma_ack_cm_event(self.raw) };
    }
}

fn set_option(verbs: &Verbs, id: &CmId, option: u32) -> io::Result<()> {
    let number = |value: u32| i32::try_from(value).unwrap_or(0);
    let mut on: i32 = 1;
    // SAFETY: a live id; both options take an int.
    let code = unsafe {
        verbs.cm().rdma_set_option(
            id.inner.raw(),
            number(sys::RDMA_OPTION_ID),
            number(option),
            (&raw mut on).cast(),
            size_of::<i32>(),
        )
    };
    check_errno(code).map_err(|error| context("an option of an RDMA listener", &error))
}
