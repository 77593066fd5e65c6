//! An I/O queue of another node: its calls to services here.

use std::cell::RefCell;
use std::sync::Arc;

use afs_decisions::NodeId;
use afs_env::{Answer, Buffer};
use afs_fabric::{Completion, Request};
use afs_nvme::Status;
use afs_reactor::Local;
use uuid::Uuid;
use zerocopy::FromBytes;

use super::Cluster;
use super::client::serve_forwarded;
use super::local::{LocalHost, Server};
use super::wire::{self, SERVICES_MAX, Service, ServiceName};
use crate::controller::Controller;

#[derive(Clone)]
enum Attached {
    Replica(Server),
    Volume(Uuid),
}

/// See the module.
pub struct PeerQueue {
    /// Whose queue it is.
    pub controller: Arc<Controller>,
    /// Its id.
    pub qid: u16,
    host: LocalHost,
    services: RefCell<Vec<Attached>>,
}

impl PeerQueue {
    /// The queue `qid` of `controller` on the reactor of `local`.
    pub fn new(
        controller: Arc<Controller>,
        qid: u16,
        cluster: &Arc<Cluster>,
        local: &Local,
    ) -> PeerQueue {
        let host = LocalHost::of(cluster, local);
        PeerQueue { controller, qid, host, services: RefCell::default() }
    }

    /// The connection is lost. A process that dies lets go of all its connections at once, long before it is missed. One that
    /// was shut down has another one in its place.
    pub fn closing(&self) {
        if self.controller.properties.lock().is_shut_down() {
            return;
        }
        let name = self.controller.host.nqn.as_str();
        let number = name.rsplit_once("node-").and_then(|(_, number)| number.parse().ok());
        if let Some(node) = number.map(NodeId) {
            self.host.cluster().reaches(node, false);
        }
    }

    /// Carries out one call.
    pub async fn execute(&self, mut request: Request) -> Completion {
        let sqe = *request.sqe();
        let data = match sqe.opcode {
            wire::ATTACH | wire::CALL_OUT => match request.receive().await {
                Ok(data) => Some(data),
                Err(error) => return Completion::error(error.status()),
            },
            wire::CALL | wire::CALL_IN => None,
            _ => return Completion::error(Status::INVALID_OPCODE.dnr()),
        };
        if sqe.opcode == wire::ATTACH {
            return self.attach(data.as_deref().unwrap_or_default());
        }
        let service = usize::try_from(sqe.nsid()).ok().and_then(|number| number.checked_sub(1));
        let attached = service.and_then(|index| self.services.borrow().get(index).cloned());
        let reply = request.data_len() as usize * usize::from(sqe.opcode == wire::CALL_IN);
        let header = wire::header(&sqe);
        let answer = match attached {
            Some(Attached::Replica(server)) => server.handle(&header, data).await,
            Some(Attached::Volume(volume)) => {
                let closed = || request.queue().may_be_given_up(self.host.reactor());
                serve_forwarded(&self.host, volume, &header, data, reply, &closed).await
            }
            None => return Completion::error(wire::status(wire::UNKNOWN_SERVICE)),
        };
        self.completion(answer, reply)
    }

    fn attach(&self, name: &[u8]) -> Completion {
        let unknown = Completion::error(wire::status(wire::UNKNOWN_SERVICE));
        let Some(service) = ServiceName::read_from_bytes(name).ok().and_then(|name| name.service())
        else {
            return unknown;
        };
        let attached = match service {
            Service::Replica(replica) => self.host.server(replica).map(Attached::Replica),
            Service::Volume(volume) => Some(Attached::Volume(volume)),
        };
        let mut services = self.services.borrow_mut();
        match attached {
            Some(attached) if services.len() < SERVICES_MAX => {
                services.push(attached);
                Completion::with_result(services.len() as u64)
            }
            _ => unknown,
        }
    }

    /// An answer with data fills what the peer reserved: shorter data is followed by zeroes.
    fn completion(&self, answer: Answer, reply: usize) -> Completion {
        let data = match answer.data {
            Some(data) if data.len() == reply => Some(data),
            Some(data) if data.len() < reply => match self.padded(&data, reply) {
                Some(data) => Some(data),
                None => return Completion::error(Status::INTERNAL_ERROR),
            },
            Some(_) => return Completion::error(Status::DATA_SGL_LENGTH_INVALID.dnr()),
            None => None,
        };
        let status = wire::status(answer.status);
        Completion { status, result: u64::from_le_bytes(answer.result), data }
    }

    fn padded(&self, data: &[u8], reply: usize) -> Option<Buffer> {
        let mut buffer = afs_volume::Host::pool(&self.host).try_alloc(reply)?;
        let (head, rest) = buffer.split_at_mut_checked(data.len())?;
        head.copy_from_slice(data);
        rest.fill(0);
        Some(buffer.freeze())
    }
}
