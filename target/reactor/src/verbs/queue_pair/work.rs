//! The work of one queue pair: what is waiting, what the device has, and what to tell the owner.
//! Knows nothing of the device; `post` turns works into requests, `complete` takes them out.
//!
//! Invariants:
//! 1. The buffers of a work stay in its entry from the moment it is queued until its last request
//!    has completed, or the queue pair is destroyed.
//! 2. `reads_posted <= initiator_depth`, and `requests_posted <= requests_max`.
//! 3. There is one `Failed` event at most, and no work is queued after it.

use std::collections::VecDeque;
use std::task::Waker;

use slab::Slab;

use super::QueuePairEvent;
use crate::buffer::{Buffer, BufferMut};
use crate::verbs::device::HEADER_BYTES;
use crate::verbs::error::{WorkCause, WorkError};
use crate::verbs::{RemoteMemory, WorkOperation};

/// What is to be done.
pub(super) enum Task {
    Read {
        into: BufferMut,
        remote: RemoteMemory,
    },
    Send {
        message: [u8; HEADER_BYTES],
        len: u8,
        payload: Option<Buffer>,
        write: Option<(Buffer, RemoteMemory)>,
        invalidate: Option<u32>,
    },
}

impl Task {
    /// How many requests it takes.
    pub(super) fn requests(&self) -> u32 {
        match self {
            Task::Send { write: Some(_), .. } => 2,
            _ => 1,
        }
    }

    pub(super) fn operation(&self, is_write: bool) -> WorkOperation {
        match self {
            Task::Read { .. } => WorkOperation::Read,
            Task::Send { .. } if is_write => WorkOperation::Write,
            Task::Send { .. } => WorkOperation::Send,
        }
    }
}

pub(super) struct Work {
    pub(super) tag: u16,
    pub(super) task: Task,
}

/// What was decided at creation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Commands that are outstanding at once.
    pub(super) depth: u16,
    pub(super) initiator_depth: u8,
    /// Entries of the send queue.
    pub(super) requests_max: u32,
    /// Our messages are commands, not responses.
    pub(super) is_active: bool,
}

impl Bounds {
    /// How many works there can be: a command has a READ or a SEND under way, and its place may
    /// be used again before the completion of its last SEND was seen.
    pub(super) fn works_max(self) -> usize {
        4 * usize::from(self.depth) + 16
    }

    /// How many messages may wait to be looked at. The peer has `depth` commands outstanding; the
    /// rest is for those whose response it has seen earlier than we our completion.
    fn messages_max(self) -> usize {
        2 * usize::from(self.depth) + 16
    }
}

pub(super) struct Works {
    pub(super) bounds: Bounds,
    pub(super) table: Slab<Work>,
    /// READs that wait for their turn, and SENDs that were not handed over yet.
    pub(super) reads: VecDeque<u16>,
    pub(super) sends: VecDeque<u16>,
    pub(super) reads_posted: u8,
    pub(super) requests_posted: u32,
    /// Works that stay in the table until the queue pair is destroyed.
    pub(super) stranded: usize,
    events: VecDeque<QueuePairEvent>,
    messages: usize,
    failed: bool,
    /// Failed by our own judgement: the device does not know yet.
    condemned: bool,
    closing: bool,
    pub(super) ended: u64,
    waker: Option<Waker>,
    idle_waker: Option<Waker>,
}

impl Works {
    pub(super) fn new(bounds: Bounds) -> Works {
        let works = bounds.works_max();
        Works {
            bounds,
            table: Slab::with_capacity(works),
            reads: VecDeque::with_capacity(works),
            sends: VecDeque::with_capacity(works),
            reads_posted: 0,
            requests_posted: 0,
            stranded: 0,
            events: VecDeque::with_capacity(works + bounds.messages_max() + 1),
            messages: 0,
            failed: false,
            condemned: false,
            closing: false,
            ended: 0,
            waker: None,
            idle_waker: None,
        }
    }

    /// Works that are queued or with the device.
    pub(super) fn outstanding(&self) -> usize {
        self.table.len() - self.stranded
    }

    /// Will nothing more be handed to the device?
    pub(super) fn is_over(&self) -> bool {
        self.failed || self.closing
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(super) fn has_queued(&self) -> bool {
        !(self.reads.is_empty() && self.sends.is_empty())
    }

    /// Does anybody wait for the end of a request? For the data of READs; for room, while works are
    /// queued; for all to end; and a command that cannot be sent is heard of in no other way.
    pub(super) fn is_urgent(&self) -> bool {
        let waits = self.is_over() || self.bounds.is_active || self.idle_waker.is_some();
        self.reads_posted > 0 || self.has_queued() || (waits && self.outstanding() > 0)
    }

    /// Queues a work, unless the queue pair has ended: then it is dropped.
    pub(super) fn queue(&mut self, work: Work) {
        if self.is_over() {
            return;
        }
        if self.table.len() >= self.bounds.works_max() {
            return self.condemn(WorkError::connection(WorkCause::TooManyRequests));
        }
        if matches!(work.task, Task::Read { .. }) && self.bounds.initiator_depth == 0 {
            let error = WorkError { operation: WorkOperation::Read, cause: WorkCause::NoReads };
            return self.condemn(error);
        }
        let is_read = matches!(work.task, Task::Read { .. });
        let Ok(index) = u16::try_from(self.table.insert(work)) else { return };
        if is_read { self.reads.push_back(index) } else { self.sends.push_back(index) }
    }

    /// A message of the peer.
    pub(super) fn receive(&mut self, event: QueuePairEvent) {
        if self.failed {
            return;
        }
        if self.messages >= self.bounds.messages_max() {
            return self.condemn(WorkError::connection(WorkCause::TooManyMessages));
        }
        self.messages += 1;
        self.events.push_back(event);
        self.wake();
    }

    /// The last request of a work has completed.
    pub(super) fn complete(&mut self, index: u16, error: Option<WorkError>) {
        let Some(work) = self.table.try_remove(usize::from(index)) else { return };
        self.requests_posted -= work.task.requests();
        self.ended += 1;
        if matches!(work.task, Task::Read { .. }) {
            self.reads_posted -= 1;
        }
        match (error, work.task) {
            (Some(error), _) => self.fail(error),
            (None, Task::Read { into, .. }) => {
                self.tell(QueuePairEvent::ReadDone { tag: work.tag, buffer: into });
            }
            (None, Task::Send { .. }) => self.tell(QueuePairEvent::Sent { tag: work.tag }),
        }
        self.wake_if_idle();
    }

    /// The queue pair is in error, or must be. What was not handed over yet is dropped.
    pub(super) fn fail(&mut self, error: WorkError) {
        if self.failed {
            return;
        }
        self.failed = true;
        self.drop_queued();
        // What ends because it was closed on purpose is no failure.
        if !self.closing {
            self.tell(QueuePairEvent::Failed(error));
        }
    }

    /// Ends a queue pair that the device still takes for a good one.
    pub(super) fn condemn(&mut self, error: WorkError) {
        self.condemned |= !self.failed;
        self.fail(error);
    }

    /// Must the device be told that it has failed? True once.
    pub(super) fn take_condemned(&mut self) -> bool {
        std::mem::take(&mut self.condemned)
    }

    /// The owner closes it.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.drop_queued();
    }

    /// Takes works back that the device did not take.
    pub(super) fn drop_queued(&mut self) {
        for queue in [&mut self.reads, &mut self.sends] {
            for index in queue.drain(..) {
                if self.table.try_remove(usize::from(index)).is_some() {
                    self.ended += 1;
                }
            }
        }
        self.wake_if_idle();
    }

    pub(super) fn next_event(&mut self) -> Option<QueuePairEvent> {
        let event = self.events.pop_front()?;
        if matches!(event, QueuePairEvent::Received { .. }) {
            self.messages -= 1;
        }
        Some(event)
    }

    pub(super) fn remember(&mut self, waker: &Waker) {
        store(&mut self.waker, waker);
    }

    pub(super) fn remember_idle(&mut self, waker: &Waker) {
        store(&mut self.idle_waker, waker);
    }

    fn tell(&mut self, event: QueuePairEvent) {
        self.events.push_back(event);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn wake_if_idle(&mut self) {
        if self.outstanding() == 0
            && let Some(waker) = self.idle_waker.take()
        {
            waker.wake();
        }
    }
}

fn store(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) => known.clone_from(waker),
        None => *place = Some(waker.clone()),
    }
}
