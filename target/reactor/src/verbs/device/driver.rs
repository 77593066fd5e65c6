//! The task of one device on one reactor: handles completions when the hooks in `idle` have seen
//! some, or when the device woke the reactor; passes asynchronous events on; posts receives when
//! there is memory for them again.

use std::rc::Weak;
use std::task::{Context, Poll};

use super::DeviceInner;

/// Runs until the device is closed.
pub(super) async fn drive(device: Weak<DeviceInner>) {
    std::future::poll_fn(|cx| match device.upgrade() {
        Some(device) => {
            device.turn(cx);
            Poll::Pending
        }
        None => Poll::Ready(()),
    })
    .await;
}

impl DeviceInner {
    fn turn(&self, cx: &mut Context<'_>) {
        self.set_driver(cx.waker());
        // Reading the events first: what is reaped afterwards is all that they announced.
        for queue in [&self.arrivals, &self.endings] {
            match queue.poll_woken(cx) {
                Ok(calls) => self.counters.shared().rdma_events.add(calls),
                Err(error) => {
                    tracing::debug!(%error, "an RDMA completion channel is no longer watched")
                }
            }
        }
        if !self.reap() {
            cx.waker().wake_by_ref();
        }
        self.read_events(cx);
        self.receives.borrow_mut().poll_shortage(&self.memory, cx);
    }

    /// Asynchronous events of the device, of all reactors: whoever comes first reads them.
    fn read_events(&self, cx: &mut Context<'_>) {
        let mut events = self.events.borrow_mut();
        let Some(watched) = events.as_ref() else { return };
        while let Poll::Ready(ready) = watched.poll_read_ready(cx) {
            let read = ready.and_then(|mut ready| {
                self.context.drain_events()?;
                ready.clear_ready();
                Ok(())
            });
            if let Err(error) = read {
                tracing::warn!(%error, "an RDMA device sends no more events: it is gone");
                self.context.mark_removed();
                *events = None;
                return;
            }
        }
    }
}
