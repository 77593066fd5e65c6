//! Making a queue pair, and the two ways to connect one.

use std::io;
use std::ptr::NonNull;
use std::rc::Rc;

use afs_verbs_sys as sys;

use super::core::PairCore;
use super::work::Bounds;
use super::{QueuePair, QueuePairOptions};
use crate::buffer::{BufferMut, MAX_BUFFER_BYTES};
use crate::verbs::cm::{Access, CmId};
use crate::verbs::context::Fate;
use crate::verbs::device::{DeviceInner, HEADER_BYTES, RdmaDevice};
use crate::verbs::error::context as in_context;

/// More than this gains nothing: a command has one READ, or a WRITE and a SEND.
const REQUESTS_PER_COMMAND: u32 = 3;

/// Requests of commands whose places are used again early.
const REQUESTS_MORE: u32 = 8;

/// How many commands fit into a send queue of so many requests.
pub(in crate::verbs) fn depth_for(requests: u32) -> u16 {
    let depth = requests.saturating_sub(REQUESTS_MORE) / REQUESTS_PER_COMMAND;
    u16::try_from(depth).unwrap_or(u16::MAX).min(DEPTH_MAX)
}

/// Messages of a queue pair lie in one buffer.
#[allow(clippy::cast_possible_truncation, reason = "4092")]
const DEPTH_MAX: u16 = (MAX_BUFFER_BYTES / HEADER_BYTES / 4 - 4) as u16;

/// Makes the queue pair, enters it into the device's table and posts its receives. From here on
/// dropping the result undoes all of it.
pub(super) fn make(
    device: &RdmaDevice,
    id: CmId,
    options: &QueuePairOptions<'_>,
    access: Access,
) -> io::Result<QueuePair> {
    let inner = &device.inner;
    if id.inner.context().is_none_or(|context| context.raw() != inner.context.raw()) {
        return Err(invalid("the connection is on another RDMA device"));
    }
    if options.depth == 0 || options.depth > inner.limits().commands_max {
        return Err(invalid("more commands than an RDMA queue pair of this device can have"));
    }
    let requests =
        (u32::from(options.depth) * REQUESTS_PER_COMMAND + REQUESTS_MORE).min(inner.requests_max());
    let bounds = Bounds {
        depth: options.depth,
        initiator_depth: access.initiator_depth,
        requests_max: requests,
        is_active: access.remote,
    };
    inner.endings.reserve(requests)?;
    let reserved = Reserved { device: inner, requests: Some(requests) };
    let (raw, inline_bytes) = create(inner, requests)?;
    let fate = Fate::new([inner.arrivals.raw(), inner.endings.raw()], inner.receive_queue());
    let core = PairCore::new(raw, bounds, inline_bytes, id.inner, fate);
    reserved.keep();
    // Owned by the result from here on, whatever fails below.
    let pair = QueuePair::enter(device, Rc::new(core))?;
    pair.core.messages.replace(messages(inner, bounds, inline_bytes, access.remote)?);
    pair.attach(access)?;
    inner.replenish();
    Ok(pair)
}

/// Gives the reserved completions back when the queue pair cannot be made.
struct Reserved<'a> {
    device: &'a DeviceInner,
    requests: Option<u32>,
}

impl Reserved<'_> {
    fn keep(mut self) {
        self.requests = None;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(requests) = self.requests {
            self.device.endings.release(requests);
        }
    }
}

/// The C object, and how long a message can be that travels inside its request.
fn create(device: &DeviceInner, requests: u32) -> io::Result<(NonNull<sys::ibv_qp>, u32)> {
    let header = u32::try_from(HEADER_BYTES).unwrap_or(0);
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    // What a device can inline is only known by asking.
    for inline in [header, 0] {
        let mut attributes = sys::ibv_qp_init_attr {
            qp_context: std::ptr::null_mut(),
            send_cq: device.endings.raw(),
            recv_cq: device.arrivals.raw(),
            srq: device.receive_queue(),
            cap: sys::ibv_qp_cap {
                max_send_wr: requests,
                max_recv_wr: 0,
                max_send_sge: 2,
                max_recv_sge: 0,
                max_inline_data: inline,
            },
            qp_type: sys::IBV_QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: domain and queues are live, and of one device.
        let raw = unsafe {
            device.verbs().ib().ibv_create_qp(device.memory.domain(), &raw mut attributes)
        };
        match NonNull::new(raw) {
            Some(raw) => return Ok((raw, attributes.cap.max_inline_data)),
            None => last = io::Error::last_os_error(),
        }
    }
    Err(in_context("no RDMA queue pair can be made", &last))
}

/// Room for messages that do not travel inside their request: all of them on devices that inline
/// too little, else those with a payload, which only the active side sends.
fn messages(
    device: &DeviceInner,
    bounds: Bounds,
    inline_bytes: u32,
    sends_payloads: bool,
) -> io::Result<Option<BufferMut>> {
    if inline_bytes as usize >= HEADER_BYTES && !sends_payloads {
        return Ok(None);
    }
    let short =
        || io::Error::new(io::ErrorKind::OutOfMemory, "no buffer for a queue pair's messages");
    device.pool().try_alloc(bounds.works_max() * HEADER_BYTES).ok_or_else(short).map(Some)
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
