//! A queue pair through the states that lead to a connection. The attributes of each state come
//! from the connection manager, which negotiated them; what we allow ourselves and the peer is
//! put on top.

use std::io;

use afs_verbs_sys as sys;
use parking_lot::Mutex;

use super::IdInner;
use crate::verbs::error::{check, check_errno};

/// What the two sides may do with each other's memory.
#[derive(Debug, Clone, Copy)]
pub(in crate::verbs) struct Access {
    /// How many RDMA READs we have under way at most.
    pub(in crate::verbs) initiator_depth: u8,
    /// How many RDMA READs of the peer we serve at once.
    pub(in crate::verbs) responder_resources: u8,
    /// May the peer read and write our memory, where a registration opens it?
    pub(in crate::verbs) remote: bool,
}

struct Pair {
    raw: *mut sys::ibv_qp,
    access: Access,
}

// SAFETY: libibverbs allows state changes from any thread; the lock around it keeps the queue
// pair from being destroyed meanwhile.
unsafe impl Send for Pair {}

/// The queue pair of an id, while there is one.
#[derive(Default)]
pub(in crate::verbs) struct PairSlot(Mutex<Option<Pair>>);

impl PairSlot {
    /// Calls `destroy` when no other thread is using the queue pair, and makes sure that none
    /// will.
    pub(in crate::verbs) fn retire(&self, destroy: impl FnOnce()) {
        let mut pair = self.0.lock();
        *pair = None;
        destroy();
    }
}

impl IdInner {
    /// Gives the id its queue pair, which becomes able to receive messages as soon as the peer
    /// answers.
    ///
    /// # Safety
    /// `raw` is a live queue pair on the id's device, and `pair.retire` is called before it is
    /// destroyed.
    pub(in crate::verbs) unsafe fn attach(
        &self,
        raw: *mut sys::ibv_qp,
        access: Access,
    ) -> io::Result<()> {
        let mut slot = self.pair.0.lock();
        let pair = slot.insert(Pair { raw, access });
        self.advance(pair, sys::IBV_QPS_INIT)
    }

    /// Passive side: accepts the peer. The queue pair can be used at once.
    pub(in crate::verbs) fn accept(&self, private_data: &[u8]) -> io::Result<()> {
        let slot = self.pair.0.lock();
        let pair = slot.as_ref().ok_or_else(gone)?;
        self.advance(pair, sys::IBV_QPS_RTR)?;
        self.advance(pair, sys::IBV_QPS_RTS)?;
        let mut parameter = parameter(pair, private_data)?;
        // SAFETY: a live id; the parameters are valid during the call, which copies them.
        check_errno(unsafe { self.verbs().cm().rdma_accept(self.raw(), &raw mut parameter) })
    }

    /// Active side: asks the peer. An event brings the answer.
    pub(in crate::verbs) fn connect(&self, private_data: &[u8]) -> io::Result<()> {
        let slot = self.pair.0.lock();
        let pair = slot.as_ref().ok_or_else(gone)?;
        let mut parameter = parameter(pair, private_data)?;
        // SAFETY: as above.
        check_errno(unsafe { self.verbs().cm().rdma_connect(self.raw(), &raw mut parameter) })
    }

    /// Active side: the peer has accepted. Called by the thread that reads events.
    pub(super) fn finish_connect(&self) -> io::Result<()> {
        let slot = self.pair.0.lock();
        let pair = slot.as_ref().ok_or_else(gone)?;
        self.advance(pair, sys::IBV_QPS_RTR)?;
        self.advance(pair, sys::IBV_QPS_RTS)?;
        // SAFETY: a live id, whose queue pair librdmacm does not know.
        check_errno(unsafe { self.verbs().cm().rdma_establish(self.raw()) })
    }

    /// Ends all work of the queue pair.
    pub(in crate::verbs) fn fail_pair(&self) -> io::Result<()> {
        let slot = self.pair.0.lock();
        let Some(pair) = slot.as_ref() else { return Ok(()) };
        let mut attributes = no_attributes();
        attributes.qp_state = sys::IBV_QPS_ERR;
        self.modify(pair, &mut attributes, sys::IBV_QP_STATE)
    }

    /// Tells the peer that the connection ends.
    pub(in crate::verbs) fn disconnect(&self) -> io::Result<()> {
        // SAFETY: a live id.
        check_errno(unsafe { self.verbs().cm().rdma_disconnect(self.raw()) })
    }

    fn advance(&self, pair: &Pair, state: sys::ibv_qp_state) -> io::Result<()> {
        let mut attributes = no_attributes();
        attributes.qp_state = state;
        let mut mask = 0;
        // SAFETY: a live id; both pointers are to locals of the right types.
        check_errno(unsafe {
            self.verbs().cm().rdma_init_qp_attr(self.raw(), &raw mut attributes, &raw mut mask)
        })?;
        let is_iwarp = self.context().is_some_and(|context| context.is_iwarp());
        if state == sys::IBV_QPS_INIT && !is_iwarp {
            attributes.qp_access_flags = match pair.access.remote {
                true => sys::IBV_ACCESS_REMOTE_READ | sys::IBV_ACCESS_REMOTE_WRITE,
                false => 0,
            };
        }
        if state == sys::IBV_QPS_RTR {
            attributes.max_dest_rd_atomic = pair.access.responder_resources;
            attributes.min_rnr_timer = RECEIVER_NOT_READY_PAUSE;
        }
        if state == sys::IBV_QPS_RTS {
            attributes.max_rd_atomic = pair.access.initiator_depth;
        }
        // Old kernels set bits that are not for users.
        let mask = u32::try_from(mask).unwrap_or(0) & USER_ATTRIBUTES;
        self.modify(pair, &mut attributes, mask)
    }

    fn modify(&self, pair: &Pair, attributes: &mut sys::ibv_qp_attr, mask: u32) -> io::Result<()> {
        let mask = i32::try_from(mask).unwrap_or(0);
        // SAFETY: the queue pair is live while it is in the slot, whose lock the caller holds.
        check(unsafe { self.verbs().ib().ibv_modify_qp(pair.raw, attributes, mask) })
    }
}

/// Attributes 0 to 20, up to the number of the peer's queue pair.
const USER_ATTRIBUTES: u32 = (1 << 21) - 1;

/// How often the device repeats a message that the peer does not acknowledge: the most there is.
const RETRIES: u8 = 7;

/// How often it repeats one that the peer has no receive for: for ever.
const RECEIVER_NOT_READY_RETRIES: u8 = 7;

/// How long a peer pauses that found no receive: 0.64 ms. The connection manager's own value, 0,
/// means 655 ms.
const RECEIVER_NOT_READY_PAUSE: u8 = 12;

fn parameter(pair: &Pair, private_data: &[u8]) -> io::Result<sys::rdma_conn_param> {
    let private_data_len = u8::try_from(private_data.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(sys::rdma_conn_param {
        private_data: private_data.as_ptr().cast(),
        private_data_len,
        responder_resources: pair.access.responder_resources,
        initiator_depth: pair.access.initiator_depth,
        flow_control: 1,
        retry_count: RETRIES,
        rnr_retry_count: RECEIVER_NOT_READY_RETRIES,
        srq: 1,
        // SAFETY: live, as above.
        qp_num: unsafe { (*pair.raw).qp_num },
    })
}

fn no_attributes() -> sys::ibv_qp_attr {
    // SAFETY: a struct of numbers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn gone() -> io::Error {
    io::Error::from(io::ErrorKind::NotConnected)
}
