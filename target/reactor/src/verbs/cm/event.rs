//! Events of the connection manager, as copies that outlive their acknowledgement.

use std::fmt;
use std::ops::Deref;

use afs_verbs_sys as sys;

use super::{CmId, CmKey};

/// Something happened to an id.
#[derive(Debug)]
pub struct CmEvent {
    /// Whose event it is.
    pub key: CmKey,
    /// What happened.
    pub kind: CmEventKind,
}

/// What can happen to an id.
#[derive(Debug)]
pub enum CmEventKind {
    /// A peer wants to connect; the event's key is the listener's.
    ConnectRequest(ConnectRequest),
    /// The peer's address has been found: [`CmId::resolve_route`] comes next.
    AddressResolved,
    /// The way to the peer has been found: a queue pair can connect.
    RouteResolved,
    /// The connection stands, and the queue pair can be used.
    Established {
        /// What the peer sent along with its acceptance; on its own side, nothing.
        private_data: PrivateData,
    },
    /// The peer does not want the connection.
    Rejected {
        /// The reason in the connection manager's terms; 28 is the peer's own decision.
        reason: i32,
        /// The peer's own words for it.
        private_data: PrivateData,
    },
    /// The peer did not answer: a negative error number.
    Unreachable(i32),
    /// Resolving or connecting failed: a negative error number.
    ConnectError(i32),
    /// The connection has ended.
    Disconnected,
    /// What was left of an ended connection is forgotten.
    TimewaitExit,
    /// The device goes away: everything on it must be closed.
    DeviceRemoval,
    /// The address has moved to another device: the connection should be made anew.
    AddressChange,
    /// Something else, by its number in librdmacm.
    Other(u32),
}

/// A peer's wish to connect. Dropping it rejects the peer.
#[derive(Debug)]
pub struct ConnectRequest {
    /// The connection in the making.
    pub id: CmId,
    /// What the peer sent along.
    pub private_data: PrivateData,
    /// How many RDMA READs the peer serves at once: the most that we may have under way.
    pub initiator_depth: u8,
    /// How many RDMA READs the peer would like to have under way itself.
    pub responder_resources: u8,
}

/// Bytes that come along with a connection event, at most 255.
#[derive(Clone)]
pub struct PrivateData {
    bytes: [u8; 255],
    len: u8,
}

impl PrivateData {
    /// None.
    pub(super) fn empty() -> PrivateData {
        PrivateData { bytes: [0; 255], len: 0 }
    }

    /// A copy of an event's.
    ///
    /// # Safety
    /// The parameter's pointer and length are what librdmacm made them.
    pub(super) unsafe fn copy(parameter: &sys::rdma_conn_param) -> PrivateData {
        let mut data = PrivateData::empty();
        if !parameter.private_data.is_null() {
            data.len = parameter.private_data_len;
            let len = usize::from(data.len);
            // SAFETY: so many bytes lie at the pointer, and there is room for 255.
            unsafe {
                data.bytes
                    .as_mut_ptr()
                    .copy_from_nonoverlapping(parameter.private_data.cast(), len);
            }
        }
        data
    }
}

impl Deref for PrivateData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for PrivateData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateData({} bytes)", self.len)
    }
}
