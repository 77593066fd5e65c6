//! The driver task of a reactor: hands queued operations to the kernel, once per scheduling
//! round, and sees completions. It also is the task that keeps the reactor from sleeping (see
//! `idle`), so every reactor has one, with or without a ring.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Ring;
use crate::idle::Idle;

/// The ring's eventfd together with the ring that keeps it open.
struct Events(Ring);

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.eventfd()
    }
}

/// Runs until the reactor ends.
pub(crate) async fn drive(idle: Rc<Idle>) {
    let Some(ring) = idle.ring.clone() else {
        return std::future::poll_fn(|context| {
            idle.set_driver(context.waker());
            Poll::Pending
        })
        .await;
    };
    match watch(&ring) {
        Ok(events) => {
            std::future::poll_fn(|context| {
                idle.set_driver(context.waker());
                ring.set_driver(context);
                poll(&ring, &events, context)
            })
            .await;
        }
        Err(error) => tracing::error!(%error, "the disk ring cannot be watched"),
    }
}

fn watch(ring: &Ring) -> io::Result<AsyncFd<Events>> {
    // SAFETY: the eventfd belongs to the ring, which `Events` holds; it is opened and closed with
    // the ring and never replaced.
    Ok(unsafe { AsyncFd::register_with_interest(Events(ring.clone()), Interest::READABLE)? })
}

fn poll(ring: &Ring, events: &AsyncFd<Events>, context: &mut Context<'_>) -> Poll<()> {
    loop {
        if !ring.turn() {
            // The kernel is short of something: try again in the next round.
            context.waker().wake_by_ref();
        }
        // Readiness comes by edges: clear it, then look at the ring again. The count in the
        // eventfd is never read, which saves a call; every event is a new edge all the same.
        match events.poll_read_ready(context) {
            Poll::Ready(Ok(mut guard)) => {
                guard.clear_ready();
                ring.note_event();
            }
            Poll::Ready(Err(error)) => {
                // Only when the runtime ends, and this task with it.
                tracing::debug!(%error, "the disk ring is no longer watched");
                return Poll::Ready(());
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}

impl Ring {
    fn set_driver(&self, context: &Context<'_>) {
        let mut driver = self.inner.driver.borrow_mut();
        match driver.as_mut() {
            Some(known) => known.clone_from(context.waker()),
            None => *driver = Some(context.waker().clone()),
        }
    }
}
