//! The command part of a round: futures started and polled, R2Ts opened, answers queued.

use std::future::Future;
use std::rc::Rc;

use afs_nvme::{Sqe, Status};
use afs_reactor::Buffer;

use super::super::close::MAX_SLOTS;
use super::super::request::Request;
use super::super::service::{Completion, Service};
use super::super::slots::slot_of;
use super::Connection;

impl<S: Service, F: Future<Output = Completion>> Connection<S, F> {
    /// Starts a command and polls it at once.
    pub(super) fn start(&mut self, slot: u16, sqe: Sqe, in_capsule: Option<Buffer>) {
        let data = self.codec.commands().data(slot);
        let request = Request::new(self.queue.clone(), slot, sqe, data, in_capsule);
        let future = (self.call)(Rc::clone(&self.service), request);
        let completion = self.slots.start(slot, future);
        self.after_poll(slot, completion);
    }

    /// Polls every command whose waker was called; false when there was none.
    pub(super) fn poll_woken(&mut self) -> bool {
        let mut polled = false;
        for word in 0..self.slots.words() {
            let mut bits = self.signals.take_word(word);
            while bits != 0 {
                let slot = slot_of(word, bits.trailing_zeros());
                bits &= bits - 1;
                let completion = self.slots.poll(slot);
                self.after_poll(slot, completion);
                polled = true;
            }
        }
        polled
    }

    /// Answers a capsule whose data or SGL was wrong.
    pub(super) fn refuse(&mut self, slot: u16, sqe: &Sqe, status: Status) {
        if status == Status::TRANSIENT_TRANSPORT_ERROR {
            self.queue.count(|counters| counters.digest_errors += 1);
        }
        self.service.refused(sqe, status);
        self.respond(slot, Completion::error(status));
    }

    /// Queues the answer of a command.
    pub(super) fn respond(&mut self, slot: u16, completion: Completion) {
        let commands = self.codec.commands();
        let command = (slot, commands.cid(slot), commands.data(slot));
        self.responses.complete(self.queue.parameters(), command, completion);
    }

    fn after_poll(&mut self, slot: u16, completion: Option<Completion>) {
        self.open_transfers();
        self.note_connected();
        let Some(completion) = completion else { return };
        // T-33: the host still has the command on its send list until the R2T is satisfied.
        if self.codec.commands().is_receiving(slot) {
            self.slots.hold(slot, completion);
        } else {
            self.respond(slot, completion);
        }
    }

    /// Sends R2Ts for the buffers that commands brought.
    fn open_transfers(&mut self) {
        while let Some((slot, buffer)) = self.queue.next_wanted() {
            let cid = self.codec.commands().cid(slot);
            if let Some(length) = self.codec.commands_mut().open_transfer(slot) {
                self.incoming.open(slot, buffer);
                self.responses.r2t(cid, slot, length);
                self.queue.count(|counters| counters.r2ts += 1);
            }
        }
    }

    /// CONFORMANCE T-27: how many commands may be outstanding is known after Connect.
    fn note_connected(&mut self) {
        if self.connected {
            return;
        }
        let Some(parameters) = self.queue.parameters() else { return };
        self.connected = true;
        let extra = if parameters.admin { self.limits.admin_extra_commands } else { 0 };
        let limit = usize::from(parameters.sqsize) + 1 + extra;
        self.codec.set_connected(parameters.admin, limit.min(MAX_SLOTS));
    }
}
