//! The Connect command: who may have which queue of which controller (CONFORMANCE 3.1).

use crate::admin::AdminQueue;
use crate::cluster::peer_queue::PeerQueue;
use crate::controller::{self, Controller, NoQueue};
use crate::discovery::DiscoveryView;
use crate::io::IoQueue;
use crate::limits::MQES;
use crate::link::Link;
use crate::node::Node;
use crate::queue::{Door, Role};
use crate::subsystem::{Host, NoController, Subsystem};
use afs_fabric::{Completion, Queue, QueueParameters, Request};
use afs_nvme::command::Connect;
use afs_nvme::fabrics::{CONNECT_DATA_BYTES, ConnectData, InvalidParameter};
use afs_nvme::{ControllerId, Nqn, Status};
use afs_reactor::Local;
use std::sync::Arc;
use zerocopy::FromBytes;

/// A queue that may serve from now on.
pub struct Connected {
    /// What it serves.
    pub role: Role,
    /// What the fabric has to know.
    pub parameters: QueueParameters,
    /// CNTLID for the answer.
    pub controller: ControllerId,
}

/// Why not, and what to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A field is wrong for good.
    Parameter(InvalidParameter),
    /// The subsystem is not known here. It may be to come, so the host may try again (CONFORMANCE F-4).
    UnknownSubsystem,
    /// Another status.
    Status(Status),
}

impl Refused {
    /// The label under which it is counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Refused::Parameter(_) => "invalid_parameter",
            Refused::UnknownSubsystem => "unknown_subsystem",
            Refused::Status(status) if *status == Status::CONNECT_INVALID_HOST.dnr() => {
                "host_not_allowed"
            }
            Refused::Status(status) if *status == Status::CONNECT_CONTROLLER_BUSY => "busy",
            Refused::Status(_) => "other",
        }
    }

    /// The answer to the host.
    pub fn completion(self) -> Completion {
        let invalid = Status::CONNECT_INVALID_PARAMETERS;
        match self {
            Refused::Parameter(parameter) => failed(invalid.dnr(), parameter.result()),
            Refused::UnknownSubsystem => failed(invalid, InvalidParameter::SUBNQN.result()),
            Refused::Status(status) => failed(status, 0),
        }
    }
}

fn failed(status: Status, result: u64) -> Completion {
    Completion { status, result, data: None }
}

/// Where a connection came in.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The node.
    pub node: &'a Arc<Node>,
    /// The reactor.
    pub local: &'a Local,
    /// The kind of listener.
    pub door: Door,
}

/// Decides on `command`, whose data is still to be received.
pub async fn connect(
    place: Place<'_>,
    queue: &Queue,
    command: &Connect,
    request: &mut Request,
) -> Result<Connected, Refused> {
    if request.data_len() != CONNECT_DATA_BYTES {
        return Err(Refused::Status(Status::DATA_SGL_LENGTH_INVALID.dnr())); // F-1
    }
    if command.sqsize == 0 || command.sqsize > MQES {
        return Err(Refused::Parameter(InvalidParameter::SQSIZE));
    }
    let data = request.receive().await.map_err(|error| Refused::Status(error.status()))?;
    let data = ConnectData::read_from_bytes(&data)
        .map_err(|_| Refused::Status(Status::DATA_SGL_LENGTH_INVALID.dnr()))?;
    let subsystem = data.subnqn().map_err(|_| Refused::Parameter(InvalidParameter::SUBNQN))?;
    let nqn = data.hostnqn().map_err(|_| Refused::Parameter(InvalidParameter::HOSTNQN))?;
    let Place { node, local, door } = place;
    let attempt = Attempt {
        node,
        local,
        door,
        queue,
        link: Link::of(queue),
        command,
        host: Host { nqn, id: data.hostid() },
        wanted: data.cntlid(),
    };
    let connected = match command.qid {
        0 => attempt.admin(&subsystem),
        _ => attempt.io(&subsystem),
    };
    if let Err(refused) = &connected {
        tracing::info!(peer = %queue.peer(), host = %attempt.host.nqn, %subsystem, qid = command.qid, ?refused, "Connect refused");
    }
    connected
}

struct Attempt<'a> {
    node: &'a Arc<Node>,
    local: &'a Local,
    door: Door,
    queue: &'a Queue,
    link: Link,
    command: &'a Connect,
    host: Host,
    wanted: ControllerId,
}

impl Attempt<'_> {
    fn admin(&self, name: &Nqn) -> Result<Connected, Refused> {
        if self.wanted != ControllerId::DYNAMIC {
            return Err(Refused::Parameter(InvalidParameter::CNTLID));
        }
        if self.node.stopping() {
            return Err(Refused::Status(Status::CONNECT_CONTROLLER_BUSY));
        }
        let controller = if name.is_discovery() && self.door == Door::Hosts {
            self.node.attach_discovery(&self.host, |id| {
                let view = DiscoveryView::new(self.node.directory(), self.host.nqn.clone());
                self.controller(id, controller::Role::Discovery(view))
            })
        } else {
            let subsystem = self.subsystem(name)?;
            let role = controller::Role::Io(Arc::clone(&subsystem));
            subsystem.attach(&self.host, |id| self.controller(id, role))
        };
        let controller = controller.map_err(|why| {
            Refused::Status(match why {
                NoController::Busy => Status::CONNECT_CONTROLLER_BUSY, // F-11: without DNR
                NoController::Forbidden => Status::CONNECT_INVALID_HOST.dnr(),
            })
        })?;
        tracing::info!(peer = %self.queue.peer(), host = %self.host.nqn, subsystem = %name, transport = self.link.transport.name(), controller = controller.id.get(), "controller made");
        let admin = AdminQueue::new(Arc::clone(self.node), Arc::clone(&controller));
        let connected = self.connected(Arc::clone(&controller), Role::Admin(admin));
        match &connected {
            Ok(_) => self.node.options.metrics.counters().controller_created(self.link.transport),
            Err(_) => self.node.detach(&controller),
        }
        connected
    }

    fn controller(&self, id: ControllerId, role: controller::Role) -> Arc<Controller> {
        let kato_ms = self.command.kato_ms;
        Arc::new(Controller::new(id, self.host.clone(), role, self.link, kato_ms))
    }

    /// What is served at this door. Other nodes are known by the cluster's identity, which they give as their HOSTID.
    fn subsystem(&self, name: &Nqn) -> Result<Arc<Subsystem>, Refused> {
        match self.door {
            Door::Hosts => self.node.subsystem(name).ok_or(Refused::UnknownSubsystem),
            Door::Peers => {
                let peers = self.node.peers().filter(|peers| peers.subsystem.identity.nqn == *name);
                let peers = peers.ok_or(Refused::UnknownSubsystem)?;
                let ours = peers.cluster.cluster().map(uuid::Uuid::into_bytes);
                if ours != Some(self.host.id.0) {
                    return Err(Refused::Status(Status::CONNECT_INVALID_HOST.dnr()));
                }
                Ok(Arc::clone(&peers.subsystem))
            }
        }
    }

    fn io(&self, name: &Nqn) -> Result<Connected, Refused> {
        if name.is_discovery() {
            return Err(Refused::Parameter(InvalidParameter::QID)); // D-1
        }
        let subsystem = self.subsystem(name)?;
        if !subsystem.access().allows(&self.host.nqn) {
            return Err(Refused::Status(Status::CONNECT_INVALID_HOST.dnr()));
        }
        let controller = self.live_controller(&subsystem)?;
        let qid = self.command.qid;
        if let (Door::Peers, Some(peers)) = (self.door, self.node.peers()) {
            let peer = PeerQueue::new(Arc::clone(&controller), qid, &peers.cluster, self.local);
            return self.connected(controller, Role::Peer(peer));
        }
        let transport = self.link.transport;
        let metrics = self.node.options.metrics.queue(self.local.index(), transport, qid);
        let role =
            IoQueue::new(Arc::clone(&controller), subsystem, qid, self.local.clone(), metrics);
        self.connected(controller, Role::Io(role))
    }

    /// A live controller of the same host and subsystem, by the same transport (CONFORMANCE 3.1, CNTLID).
    fn live_controller(&self, subsystem: &Subsystem) -> Result<Arc<Controller>, Refused> {
        subsystem
            .controller(self.wanted.get())
            .filter(|controller| {
                controller.host == self.host && controller.link.transport == self.link.transport
            })
            .ok_or(Refused::Parameter(InvalidParameter::CNTLID))
    }

    fn connected(&self, controller: Arc<Controller>, role: Role) -> Result<Connected, Refused> {
        let qid = self.command.qid;
        controller.join(qid, self.queue.closer()).map_err(|why| match why {
            NoQueue::NotReady => Refused::Status(Status::COMMAND_SEQUENCE_ERROR),
            NoQueue::Duplicate => Refused::Status(Status::COMMAND_SEQUENCE_ERROR.dnr()), // F-6
            NoQueue::OutOfRange => Refused::Parameter(InvalidParameter::QID),
        })?;
        let parameters = QueueParameters {
            qid,
            sqsize: self.command.sqsize,
            flow_control: !self.command.disable_sq_flow,
            admin: qid == 0,
        };
        Ok(Connected { role, parameters, controller: controller.id })
    }
}
