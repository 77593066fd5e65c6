//! One queue pair as the fabric serves it: before Connect, as an admin queue, as an I/O queue.
//!
//! The fabric makes one [`QueueService`] per connection and calls it for each capsule, all on one reactor.

use crate::admin::AdminQueue;
use crate::cluster::peer_queue::PeerQueue;
use crate::connect::{self, Connected};
use crate::io::IoQueue;
use crate::link::Link;
use crate::node::Node;
use afs_fabric::{CloseReason, Completion, Queue, Request, Service};
use afs_nvme::command::FabricsCommand;
use afs_nvme::fabrics::connect_result;
use afs_nvme::{Sqe, Status, opcode};
use afs_reactor::Local;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;

/// What a connected queue is.
pub enum Role {
    /// Queue 0 of an I/O or discovery controller.
    Admin(AdminQueue),
    /// Another queue.
    Io(IoQueue),
    /// A queue of another node.
    Peer(PeerQueue),
}

/// See the module.
pub struct QueueService {
    node: Arc<Node>,
    local: Local,
    queue: Queue,
    door: Door,
    connecting: Cell<bool>,
    role: OnceCell<Role>,
}

/// For whom a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Hosts: everything but the peers' subsystem.
    Hosts,
    /// Other nodes: the peers' subsystem alone.
    Peers,
}

impl Door {
    /// The flag that sets where it is.
    pub const fn flag(self) -> &'static str {
        match self {
            Door::Hosts => "--listen",
            Door::Peers => "--peer-listen",
        }
    }
}

impl QueueService {
    /// The service of a fresh connection.
    pub fn new(node: Arc<Node>, local: Local, queue: &Queue, door: Door) -> Rc<QueueService> {
        node.options.metrics.counters().connection_opened(Link::of(queue).transport);
        Rc::new(QueueService {
            node,
            local,
            queue: queue.clone(),
            door,
            connecting: Cell::new(false),
            role: OnceCell::new(),
        })
    }

    /// A capsule on a queue without Connect, or a Fabrics command that is not for the admin queue alone.
    async fn unconnected(self: Rc<Self>, mut request: Request) -> Completion {
        let sqe = *request.sqe();
        if sqe.opcode != opcode::FABRICS {
            return Completion::error(Status::COMMAND_SEQUENCE_ERROR);
        }
        let FabricsCommand::Connect(command) = (match FabricsCommand::parse(&sqe) {
            Ok(command) => command,
            Err(status) => return Completion::error(status),
        }) else {
            return Completion::error(Status::COMMAND_SEQUENCE_ERROR);
        };
        // One Connect at a time and one in all (CONFORMANCE F-2).
        if self.role.get().is_some() || self.connecting.replace(true) {
            return Completion::error(Status::COMMAND_SEQUENCE_ERROR);
        }
        let place = connect::Place { node: &self.node, local: &self.local, door: self.door };
        let outcome = connect::connect(place, &self.queue, &command, &mut request).await;
        self.connecting.set(false);
        match outcome {
            Ok(Connected { role, parameters, controller }) => {
                if self.role.set(role).is_err() {
                    return Completion::error(Status::COMMAND_SEQUENCE_ERROR);
                }
                self.queue.set_connected(parameters);
                self.serve();
                Completion::with_result(connect_result(controller, false))
            }
            Err(refused) => {
                self.node.options.metrics.counters().connect_refused(refused.kind());
                refused.completion()
            }
        }
    }

    /// From Connect on the patience with this host is that of its controller, and the admin queue watches the keep-alive.
    fn serve(&self) {
        let keep_alive = match self.role.get() {
            Some(Role::Admin(admin)) => {
                admin.watch_keep_alive();
                &admin.controller().keep_alive
            }
            Some(Role::Io(io)) => &io.controller.keep_alive,
            Some(Role::Peer(peer)) => &peer.controller.keep_alive,
            None => return,
        };
        self.queue.set_stall_timeout(keep_alive.stall_timeout());
    }
}

impl Service for QueueService {
    async fn call(self: Rc<Self>, request: Request) -> Completion {
        match self.role.get() {
            Some(Role::Io(io)) => {
                io.controller.keep_alive.sign_of_life();
                if request.sqe().opcode == opcode::FABRICS {
                    return Box::pin(self.unconnected(request)).await;
                }
                io.execute(request).await
            }
            Some(Role::Peer(peer)) => {
                peer.controller.keep_alive.sign_of_life();
                if request.sqe().opcode == opcode::FABRICS {
                    return Box::pin(self.unconnected(request)).await;
                }
                peer.execute(request).await
            }
            // Nothing on an admin queue is hot: boxed, so that the slots of I/O queues stay small.
            Some(Role::Admin(admin)) => {
                admin.controller().keep_alive.sign_of_life();
                Box::pin(admin.execute(request)).await
            }
            None => Box::pin(self.unconnected(request)).await,
        }
    }

    fn refused(&self, sqe: &Sqe, status: Status) {
        match self.role.get() {
            Some(Role::Admin(admin)) => admin.controller().errors.record(0, sqe, status),
            Some(Role::Io(io)) => io.controller.errors.record(io.qid, sqe, status),
            Some(Role::Peer(peer)) => peer.controller.errors.record(peer.qid, sqe, status),
            None => {}
        }
    }

    fn closing(&self, _: &CloseReason) {
        match self.role.get() {
            Some(Role::Admin(admin)) => admin.closing(),
            Some(Role::Io(io)) => io.closing(),
            Some(Role::Peer(peer)) => peer.closing(),
            None => {}
        }
    }

    fn closed(&self, reason: &CloseReason) {
        let counters = self.node.options.metrics.counters();
        counters.connection_closed(Link::of(&self.queue).transport);
        if let Some(kind) = protocol_error(reason) {
            counters.protocol_error(kind);
        }
        match self.role.get() {
            Some(Role::Admin(admin)) => admin.closed(reason),
            Some(Role::Io(io)) => {
                tracing::debug!(
                    qid = io.qid,
                    controller = io.controller.id.get(),
                    ?reason,
                    "I/O queue closed"
                );
                io.controller.leave(io.qid);
            }
            Some(Role::Peer(peer)) => peer.controller.leave(peer.qid),
            None => tracing::debug!(peer = %self.queue.peer(), ?reason, "closed before Connect"),
        }
    }
}

/// The label under which an end that was the peer's fault is counted; `None` for ordinary ends.
fn protocol_error(reason: &CloseReason) -> Option<&'static str> {
    match reason {
        CloseReason::Violation(_) | CloseReason::ShortCapsule(_) => Some("violation"),
        CloseReason::Work(_) => Some("rdma"),
        CloseReason::TooManyCommands => Some("too_many_commands"),
        CloseReason::DuplicateCommandId(_) => Some("duplicate_command_id"),
        CloseReason::TerminatedByHost { .. } => Some("terminated_by_host"),
        CloseReason::NoIcRequest => Some("no_icreq"),
        CloseReason::NotEstablished => Some("not_established"),
        CloseReason::NoConnect => Some("no_connect"),
        CloseReason::Stalled => Some("stalled"),
        CloseReason::Evicted => Some("evicted"),
        CloseReason::PeerClosed
        | CloseReason::Socket(_)
        | CloseReason::DeviceGone
        | CloseReason::Requested(_) => None,
    }
}
