//! One id of the connection manager.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use afs_verbs_sys as sys;

use super::PairSlot;
use super::channel::ChannelInner;
use crate::verbs::address;
use crate::verbs::context::{Contexts, SharedContext};
use crate::verbs::error::check_errno;

/// Names one id in events. Never used again in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CmKey(pub(super) u64);

/// The id itself. Destroyed when the last holder lets go: the [`CmId`] or the queue pair made of
/// it, and the device that was opened through it.
pub(in crate::verbs) struct IdInner {
    raw: NonNull<sys::rdma_cm_id>,
    key: CmKey,
    channel: Arc<ChannelInner>,
    /// The device, as soon as it is known which.
    context: OnceLock<Arc<SharedContext>>,
    /// The queue pair, while there is one.
    pub(in crate::verbs) pair: PairSlot,
}

// SAFETY: librdmacm allows calls on an id from any thread. The fields of the C struct that are
// read here are written by librdmacm before the event that lets us read them is delivered.
unsafe impl Send for IdInner {}
// SAFETY: as above; calls that must not overlap are made under the lock of `pair`.
unsafe impl Sync for IdInner {}

impl IdInner {
    /// Takes over an id that was just made.
    ///
    /// # Safety
    /// `raw` is a live id of `channel`, owned by nobody else.
    pub(super) unsafe fn adopt(
        raw: NonNull<sys::rdma_cm_id>,
        channel: &Arc<ChannelInner>,
    ) -> Arc<IdInner> {
        let key = channel.new_key();
        // SAFETY: live and ours; librdmacm only keeps this field for us. The key goes back and
        // forth as a number, never followed.
        unsafe { (*raw.as_ptr()).context = std::ptr::without_provenance_mut(key_number(key)) };
        let id = Arc::new(IdInner {
            raw,
            key,
            channel: channel.clone(),
            context: OnceLock::new(),
            pair: PairSlot::default(),
        });
        channel.enter(key, &id);
        id
    }

    pub(in crate::verbs) fn raw(&self) -> *mut sys::rdma_cm_id {
        self.raw.as_ptr()
    }

    pub(in crate::verbs) fn key(&self) -> CmKey {
        self.key
    }

    pub(in crate::verbs) fn verbs(&self) -> &crate::verbs::Verbs {
        &self.channel.verbs
    }

    /// The device's context; `None` while it is not known which device it is.
    pub(in crate::verbs) fn context(&self) -> Option<&Arc<SharedContext>> {
        self.context.get()
    }

    /// Looks which device the id has been bound to.
    pub(super) fn learn_device(&self) -> io::Result<()> {
        // SAFETY: live; called when an event or a call has just set the field, if at all.
        let raw = unsafe { (*self.raw()).verbs };
        if !raw.is_null() && self.context.get().is_none() {
            // SAFETY: this id is bound to the device, and keeps the context in its own field.
            let context = unsafe { Contexts::get(self.verbs(), raw)? };
            // Another thread that was faster has set the same.
            let _ = self.context.set(context);
        }
        Ok(())
    }
}

impl Drop for IdInner {
    fn drop(&mut self) {
        self.channel.forget(self.key);
        // SAFETY: the last holder is gone, and with it the queue pair. The call waits only until
        // events that another thread is just reading are acknowledged.
        let code = unsafe { self.verbs().cm().rdma_destroy_id(self.raw()) };
        if let Err(error) = check_errno(code) {
            tracing::warn!(%error, "an id of the RDMA connection manager cannot be destroyed");
        }
    }
}

/// A connection in the making, or a listener. Dropping it destroys it; a peer that waits is
/// rejected.
pub struct CmId {
    pub(in crate::verbs) inner: Arc<IdInner>,
}

impl CmId {
    /// Its name in events.
    pub fn key(&self) -> CmKey {
        self.inner.key
    }

    /// The peer's address.
    pub fn peer(&self) -> Option<SocketAddr> {
        // SAFETY: live; the union is as large as a storage.
        unsafe {
            let address = &raw const (*self.inner.raw()).route.addr.__bindgen_anon_2;
            address::from_c(address.cast())
        }
    }

    /// The local address.
    pub fn local(&self) -> Option<SocketAddr> {
        // SAFETY: as above.
        unsafe {
            let address = &raw const (*self.inner.raw()).route.addr.__bindgen_anon_1;
            address::from_c(address.cast())
        }
    }

    /// The name of the device, as soon as it is known which.
    pub fn device_name(&self) -> Option<String> {
        let context = self.inner.context()?;
        // SAFETY: the context is open as long as this id; its device has a name that ends in zero.
        let name = unsafe {
            let device = (*context.raw()).device;
            CStr::from_ptr(self.inner.verbs().ib().ibv_get_device_name(device))
        };
        Some(name.to_string_lossy().into_owned())
    }

    /// Looks for the way to the peer, after [`AddressResolved`](super::CmEventKind::AddressResolved);
    /// an event tells of success or failure.
    ///
    /// # Errors
    /// What the system says.
    pub fn resolve_route(&self, timeout: Duration) -> io::Result<()> {
        // SAFETY: live.
        check_errno(unsafe {
            self.inner.verbs().cm().rdma_resolve_route(self.inner.raw(), milliseconds(timeout))
        })
    }

    /// Rejects the peer, with at most 148 bytes of reason. What the peer sees is a rejection by the
    /// consumer (28).
    ///
    /// # Errors
    /// What the system says, such as when the peer has given up.
    pub fn reject(self, private_data: &[u8]) -> io::Result<()> {
        let len = u8::try_from(private_data.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: live; the bytes are valid during the call, which copies them.
        check_errno(unsafe {
            self.inner.verbs().cm().rdma_reject(self.inner.raw(), private_data.as_ptr().cast(), len)
        })
    }
}

impl fmt::Debug for CmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CmId({})", self.inner.key.0)
    }
}

/// Keys travel through C as an address; this crate is for 64-bit machines.
fn key_number(key: CmKey) -> usize {
    usize::try_from(key.0).unwrap_or(0)
}

pub(super) fn milliseconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}
