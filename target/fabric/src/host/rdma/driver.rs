//! The task of a host's RDMA queue pair: posts what was submitted, hears what was answered.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use afs_reactor::Local;
use afs_reactor::verbs::{CmChannel, CmEvent, CmEventKind, QueuePair, QueuePairEvent};

use super::super::error::HostError;
use super::super::queue::Shared;
use super::link::RdmaLink;

/// Events that are taken before the others of the reactor get their turn.
const EVENTS_PER_TURN: usize = 64;
/// How long the device has to flush the work requests of a queue pair that ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Moves the commands of one connection.
pub(super) struct Driver {
    pub(super) link: Rc<RdmaLink>,
    pub(super) channel: CmChannel,
    pub(super) shared: Rc<Shared>,
    pub(super) local: Local,
}

impl Driver {
    /// Runs until the connection ends; everything outstanding ends with the reason then.
    pub(super) async fn run(self) {
        let error = {
            let mut parted = pin!(parted(&self.channel));
            poll_fn(|cx| match parted.as_mut().poll(cx) {
                Poll::Ready(error) => Poll::Ready(error),
                Poll::Pending => self.poll(cx),
            })
            .await
        };
        self.link.with_pair(QueuePair::disconnect);
        let idle =
            poll_fn(|cx| self.link.with_pair(|pair| pair.poll_idle(cx)).unwrap_or(Poll::Ready(())));
        if tokio::time::timeout(FLUSH_LIMIT, idle).await.is_err() {
            tracing::warn!("the device did not flush a queue pair in time");
        }
        // Buffers of commands may be given back only when the controller can no longer write to them.
        self.link.destroy();
        self.shared.close(&error);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<HostError> {
        match self.link.with_pair(QueuePair::flush) {
            Some(Ok(false)) => {}
            Some(Ok(true)) => self.shared.table.borrow_mut().counters.send_calls += 1,
            Some(Err(error)) => return Poll::Ready(HostError::from(&error)),
            None => return Poll::Ready(HostError::Closed),
        }
        for _ in 0..EVENTS_PER_TURN {
            let event = self.link.with_pair(|pair| pair.poll_event(cx));
            match event.unwrap_or(Poll::Pending) {
                Poll::Pending if self.shared.ending.get() => return Poll::Ready(HostError::Closed),
                Poll::Pending => {
                    *self.shared.driver.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(event) => {
                    if let Err(error) = self.handle(event) {
                        return Poll::Ready(error);
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn handle(&self, event: QueuePairEvent) -> Result<(), HostError> {
        self.local.counters().note_work();
        match event {
            QueuePairEvent::Received { header, len, .. } => {
                let mut table = self.shared.table.borrow_mut();
                self.link.complete(&mut table, &header, len)?;
                let released = table.take_released();
                drop(table);
                self.shared.permits.add_permits(released);
                Ok(())
            }
            QueuePairEvent::Failed(error) => Err(HostError::Work(error)),
            QueuePairEvent::Sent { .. } | QueuePairEvent::ReadDone { .. } => Ok(()),
        }
    }
}

/// Ready when the connection manager says that the connection is over.
async fn parted(channel: &CmChannel) -> HostError {
    loop {
        match channel.next().await {
            Ok(CmEvent {
                kind: CmEventKind::Established { .. } | CmEventKind::Other(_), ..
            }) => {}
            Ok(_) => return HostError::Closed,
            Err(error) => return HostError::from(&error),
        }
    }
}
