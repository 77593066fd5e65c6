//! Commands on admin queues, of I/O and discovery controllers (CONFORMANCE 3.2, 4).
//!
//! Everything is answered from state in memory and never waits for I/O or the cluster (CONFORMANCE A-59); only an
//! Asynchronous Event Request stays until there is something to report.

mod features;
mod identify;
mod logs;

use crate::controller::{Controller, Role};
use crate::keep_alive::DISCOVERY_IDLE;
use crate::limits::{EVENT_REQUESTS_MAX, TRANSFER_BYTES_MAX};
use crate::node::Node;
use crate::properties::Change;
use afs_fabric::{CloseReason, Completion, Request};
use afs_nvme::command::{AdminCommand, FabricsCommand, check_flags};
use afs_nvme::{Sqe, Status};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use tokio::task::AbortHandle;

/// What an admin command is answered with: a status, or a result with perhaps data.
type Answer = Result<Completion, Status>;

/// The admin queue of one controller.
pub struct AdminQueue {
    node: Arc<Node>,
    controller: Arc<Controller>,
    event_requests: Cell<u8>,
    watch: RefCell<Option<AbortHandle>>,
}

impl AdminQueue {
    /// The admin queue of `controller`.
    pub fn new(node: Arc<Node>, controller: Arc<Controller>) -> AdminQueue {
        AdminQueue { node, controller, event_requests: Cell::new(0), watch: RefCell::new(None) }
    }

    /// Whose queue it is.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Ends the association when the host falls silent (CONFORMANCE A-52). Runs until the queue is closed.
    pub fn watch_keep_alive(&self) {
        let controller = Arc::clone(&self.controller);
        let node = Arc::clone(&self.node);
        let task = tokio::task::spawn_local(async move {
            let idle = match controller.role {
                Role::Io(_) => None,
                Role::Discovery(_) => Some(DISCOVERY_IDLE),
            };
            controller.keep_alive.expired(idle).await;
            tracing::warn!(host = %controller.host.nqn, controller = controller.id.get(), "keep-alive expired");
            node.options.metrics.counters().keep_alive_timeout();
            controller.properties.lock().fail();
            controller.close("keep-alive expired");
        });
        self.watch.replace(Some(task.abort_handle()));
    }

    /// The connection is lost, and with it the association: its other connections end too (CONFORMANCE T-92).
    pub fn closing(&self) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
        self.controller.close("the admin queue is gone");
        self.controller.events.close();
    }

    /// All commands of the queue have ended.
    pub fn closed(&self, reason: &CloseReason) {
        let controller = &self.controller;
        tracing::info!(host = %controller.host.nqn, controller = controller.id.get(), ?reason, "controller gone");
        controller.leave(0);
        self.node.detach(controller);
        self.node.options.metrics.counters().controller_removed(controller.link.transport);
    }

    /// Carries out one command.
    pub async fn execute(&self, mut request: Request) -> Completion {
        let sqe = *request.sqe();
        let answer = match check_flags(&sqe) {
            Err(status) => Err(status),
            Ok(()) if sqe.is_fabrics() => self.fabrics(&sqe),
            Ok(()) if !self.controller.enabled() => Err(Status::COMMAND_SEQUENCE_ERROR),
            Ok(()) => match AdminCommand::parse(&sqe) {
                Ok(command) => self.admin(command, &sqe, &mut request).await,
                Err(status) => Err(status),
            },
        };
        answer.unwrap_or_else(|status| {
            self.controller.errors.record(0, &sqe, status);
            Completion::error(status)
        })
    }

    fn fabrics(&self, sqe: &Sqe) -> Answer {
        match FabricsCommand::parse(sqe)? {
            FabricsCommand::PropertyGet { offset, size } => {
                let value = self.controller.properties.lock().get(offset, size);
                value.map(Completion::with_result).map_err(|_| Status::INVALID_FIELD)
            }
            FabricsCommand::PropertySet { offset, size, value } => {
                let mut properties = self.controller.properties.lock();
                let change = properties.set(offset, size, value);
                drop(properties);
                match change.map_err(|_| Status::INVALID_FIELD)? {
                    Change::None => {}
                    Change::Enabled => self.controller.set_enabled(true),
                    Change::Disabled => self.controller.set_enabled(false),
                }
                Ok(Completion::success())
            }
            // A queue connects once (CONFORMANCE F-2).
            FabricsCommand::Connect(_) => Err(Status::COMMAND_SEQUENCE_ERROR),
            // OFCS bit 0 is 0, and no authentication was asked for (CONFORMANCE 3).
            FabricsCommand::AuthSend { .. }
            | FabricsCommand::AuthReceive { .. }
            | FabricsCommand::Disconnect => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    async fn admin(&self, command: AdminCommand, sqe: &Sqe, request: &mut Request) -> Answer {
        let discovery = matches!(self.controller.role, Role::Discovery(_));
        match command {
            AdminCommand::KeepAlive => Ok(Completion::success()),
            AdminCommand::AsyncEventRequest => self.next_event().await,
            AdminCommand::Identify { cns, cntid, csi } => {
                self.identify(sqe.nsid(), cns, cntid, csi, request).await
            }
            AdminCommand::GetLogPage { lid, lsp, rae, bytes, offset, .. } => {
                let log = logs::Wanted { lid, lsp, rae, bytes, offset, nsid: sqe.nsid() };
                self.log_page(&log, request).await
            }
            AdminCommand::GetFeatures { fid, sel, cdw11 } => {
                self.get_feature(fid, sel, cdw11, request).await
            }
            AdminCommand::SetFeatures { fid, save, cdw11, .. } => {
                self.set_feature(fid, save, cdw11, request).await
            }
            // A discovery controller knows none (CONFORMANCE D-1).
            AdminCommand::Abort { .. } if discovery => Err(Status::INVALID_OPCODE.dnr()),
            // "Not aborted": the victim completes on its own (CONFORMANCE A-55).
            AdminCommand::Abort { .. } => Ok(Completion::with_result(1)),
        }
    }

    /// Holds the request until something happened (CONFORMANCE A-40).
    async fn next_event(&self) -> Answer {
        if self.event_requests.get() >= EVENT_REQUESTS_MAX {
            return Err(Status::ASYNC_EVENT_LIMIT_EXCEEDED.dnr());
        }
        let _held = Held::new(&self.event_requests);
        let Some(event) = self.controller.events.next().await else {
            return Err(Status::ABORTED_SQ_DELETION);
        };
        self.node.options.metrics.counters().event_sent();
        Ok(Completion::with_result(event.result().into()))
    }
}

/// One more of something for as long as it lives, also when the queue drops its commands.
struct Held<'a>(&'a Cell<u8>);

impl<'a> Held<'a> {
    fn new(count: &'a Cell<u8>) -> Held<'a> {
        count.set(count.get() + 1);
        Held(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// An answer with `length` bytes of data, zeroes but for what `fill` writes.
///
/// The SGL of the command must have room for them (CONFORMANCE A-31, T-26).
async fn data(request: &Request, length: u32, fill: impl FnOnce(&mut [u8])) -> Answer {
    if request.data_len() < length || length > TRANSFER_BYTES_MAX {
        return Err(Status::DATA_SGL_LENGTH_INVALID.dnr());
    }
    let mut buffer = request.pool().alloc(length as usize).await;
    buffer.fill(0);
    fill(&mut buffer);
    Ok(Completion::with_data(buffer.freeze()))
}

/// Copies what `log` has from `offset` on to `out`, whose rest stays as it is. False when `offset` lies beyond its end.
pub fn copy_from(log: &[u8], offset: u64, out: &mut [u8]) -> bool {
    let Some(rest) = usize::try_from(offset).ok().and_then(|offset| log.get(offset..)) else {
        return false;
    };
    let length = rest.len().min(out.len());
    out[..length].copy_from_slice(&rest[..length]);
    true
}
