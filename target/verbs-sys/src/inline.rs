//! The functions that verbs.h defines inline: each is a call through the table of operations that
//! the device's provider put into its context. A table without the operation (no provider has
//! such a one) counts as the operation failing.

use libc::{ENOSYS, c_int};

use crate::ibverbs::{ibv_cq, ibv_qp, ibv_recv_wr, ibv_send_wr, ibv_srq, ibv_wc};

/// Moves up to `entries` completions to `completions`. Returns how many, or a negative number.
///
/// # Safety
/// `cq` is a live completion queue that nobody else polls or resizes meanwhile, and there is room
/// for `entries` at `completions`.
#[inline]
pub unsafe fn ibv_poll_cq(cq: *mut ibv_cq, entries: c_int, completions: *mut ibv_wc) -> c_int {
    // SAFETY: a live queue points to a live context; the rest is the caller's promise.
    unsafe { (*(*cq).context).ops.poll_cq.map_or(-ENOSYS, |poll| poll(cq, entries, completions)) }
}

/// Asks for an event on the queue's channel at its next completion, or at its next solicited one
/// if `solicited_only` is not zero. Returns zero or an error number.
///
/// # Safety
/// `cq` is a live completion queue.
#[inline]
pub unsafe fn ibv_req_notify_cq(cq: *mut ibv_cq, solicited_only: c_int) -> c_int {
    // SAFETY: a live queue points to a live context; the rest is the caller's promise.
    unsafe {
        (*(*cq).context).ops.req_notify_cq.map_or(ENOSYS, |notify| notify(cq, solicited_only))
    }
}

/// Queues a chain of work requests. Returns zero or an error number; then `rejected` points to the
/// first request that was not queued.
///
/// # Safety
/// `qp` is a live queue pair, and `requests` a chain whose requests, scatter lists and inline data
/// are valid during the call. Registered memory that the requests name stays valid until their
/// completions have been seen.
#[inline]
pub unsafe fn ibv_post_send(
    qp: *mut ibv_qp,
    requests: *mut ibv_send_wr,
    rejected: *mut *mut ibv_send_wr,
) -> c_int {
    // SAFETY: a live queue pair points to a live context; the rest is the caller's promise.
    unsafe { (*(*qp).context).ops.post_send.map_or(ENOSYS, |post| post(qp, requests, rejected)) }
}

/// Adds a chain of receives to a shared receive queue. Returns zero or an error number; then
/// `rejected` points to the first receive that was not added.
///
/// # Safety
/// As for [`ibv_post_send`], with `srq` a live shared receive queue.
#[inline]
pub unsafe fn ibv_post_srq_recv(
    srq: *mut ibv_srq,
    requests: *mut ibv_recv_wr,
    rejected: *mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: a live queue points to a live context; the rest is the caller's promise.
    unsafe {
        (*(*srq).context).ops.post_srq_recv.map_or(ENOSYS, |post| post(srq, requests, rejected))
    }
}
