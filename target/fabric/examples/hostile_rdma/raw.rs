//! A queue pair without manners: any private data, any message, any descriptor.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use afs_nvme::command::Connect;
use afs_nvme::fabrics::{CONNECT_DATA_BYTES, ConnectData};
use afs_nvme::rdma::{RejectData, RejectStatus};
use afs_nvme::{ControllerId, Cqe, HostId, Nqn, Sgl, SglDescriptor, Sqe};
use afs_reactor::Local;
use afs_reactor::verbs::{
    CmChannel, CmEventKind, DeviceOptions, QueuePair, QueuePairEvent, QueuePairOptions, RdmaDevice,
    RemoteMemory, Verbs,
};
use zerocopy::{FromBytes, IntoBytes};

const PATIENCE: Duration = Duration::from_secs(20);
const RESOLVE: Duration = Duration::from_secs(3);

/// How a connection request ended, if not well.
#[derive(Debug, PartialEq, Eq)]
pub enum NotConnected {
    /// With this status of the NVMe binding.
    Rejected(RejectStatus),
    /// Otherwise.
    Other(String),
}

/// How a wait for an answer ended.
#[derive(Debug)]
pub enum Answer {
    /// With a completion.
    Completion(Cqe),
    /// With the end of the queue pair.
    Ended,
    /// Not within 20 s.
    Nothing,
}

/// See the module.
pub struct Raw {
    channel: CmChannel,
    pair: QueuePair,
    device: RdmaDevice,
    local: Local,
}

impl Raw {
    /// Connects with these bytes as private data; `depth` receives are posted for responses.
    pub async fn open(
        verbs: &Verbs,
        address: SocketAddr,
        local: &Local,
        private_data: &[u8],
        depth: u16,
    ) -> Result<Raw, NotConnected> {
        let raw = Raw::ask(verbs, address, local, private_data, depth).await?;
        match next(&raw.channel).await? {
            CmEventKind::Established { .. } => Ok(raw),
            _ => Err(NotConnected::Other("an unexpected event".to_owned())),
        }
    }

    /// As [`Raw::open`], but never looks at the answer: the request leaves, and no confirmation follows.
    pub async fn ask(
        verbs: &Verbs,
        address: SocketAddr,
        local: &Local,
        private_data: &[u8],
        depth: u16,
    ) -> Result<Raw, NotConnected> {
        let other = |error: std::io::Error| NotConnected::Other(error.to_string());
        let channel = CmChannel::open(verbs).map_err(other)?;
        let id = channel.resolve(address, RESOLVE).map_err(other)?;
        next(&channel).await?;
        id.resolve_route(RESOLVE).map_err(other)?;
        next(&channel).await?;
        let options = DeviceOptions { capsule_data_bytes: 4096, receives_max: 4096 };
        let device = RdmaDevice::of(local, &id, &options, &[]).map_err(other)?;
        let options = QueuePairOptions { depth, initiator_depth: 0, private_data };
        let pair = QueuePair::connect(&device, id, &options).map_err(other)?;
        Ok(Raw { channel, pair, device, local: local.clone() })
    }

    /// Sends any bytes, the first 64 of them as the message and the rest from a buffer.
    pub async fn send(&self, bytes: &[u8]) {
        let (head, tail) = bytes.split_at(bytes.len().min(64));
        let payload = match tail.len() {
            0 => None,
            len => {
                let mut buffer = self.local.pool().alloc(len).await;
                buffer.copy_from_slice(tail);
                Some(buffer.freeze())
            }
        };
        self.pair.send(0, head, payload, None, None);
        // A failure shows as the end of the queue pair.
        let _ = self.pair.flush();
    }

    /// Sends a command with data in the capsule behind it.
    pub async fn command(&self, sqe: Sqe, data: &[u8]) -> Answer {
        let mut bytes = sqe.as_bytes().to_vec();
        bytes.extend_from_slice(data);
        self.send(&bytes).await;
        self.answer().await
    }

    /// The next completion.
    pub async fn answer(&self) -> Answer {
        let wait = async {
            loop {
                let event = tokio::select! {
                    event = poll_fn(|cx| self.pair.poll_event(cx)) => event,
                    event = self.channel.next() => match event.map(|event| event.kind) {
                        Ok(CmEventKind::Established { .. } | CmEventKind::Other(_)) => continue,
                        _ => return Answer::Ended,
                    },
                };
                match event {
                    QueuePairEvent::Received { header, len, .. } if len >= size_of::<Cqe>() => {
                        match Cqe::read_from_prefix(&header) {
                            Ok((cqe, _)) => return Answer::Completion(cqe),
                            Err(_) => return Answer::Ended,
                        }
                    }
                    QueuePairEvent::Received { .. } | QueuePairEvent::Failed(_) => {
                        return Answer::Ended;
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or(Answer::Nothing)
    }

    /// A Connect with its data in registered memory, with a change to its descriptor.
    pub async fn connect(
        &self,
        (qid, sqsize): (u16, u16),
        (subsystem, host): (&Nqn, &Nqn),
        change: impl FnOnce(RemoteMemory, u32) -> Sgl,
    ) -> Answer {
        let data = ConnectData::new(HostId([9; 16]), ControllerId::DYNAMIC, subsystem, host);
        let mut buffer = self.local.pool().alloc(size_of::<ConnectData>()).await;
        buffer.copy_from_slice(data.as_bytes());
        let buffer = buffer.freeze();
        let Some(memory) = self.device.remote_key(&buffer) else {
            return Answer::Nothing;
        };
        let connect = Connect { qid, sqsize, disable_sq_flow: false, kato_ms: 0 };
        let sqe = Sqe { sgl: change(memory, CONNECT_DATA_BYTES), ..connect.to_sqe() };
        let answer = self.command(sqe, &[]).await;
        drop(buffer);
        answer
    }
}

/// The descriptor of registered memory.
pub fn keyed(memory: RemoteMemory, length: u32) -> Sgl {
    let RemoteMemory { address, key } = memory;
    SglDescriptor::Keyed { address, length, key, invalidate: false }.to_sgl()
}

async fn next(channel: &CmChannel) -> Result<CmEventKind, NotConnected> {
    let event = tokio::time::timeout(PATIENCE, channel.next()).await;
    let event = event.map_err(|_| NotConnected::Other("no event in time".to_owned()))?;
    match event.map_err(|error| NotConnected::Other(error.to_string()))?.kind {
        CmEventKind::Rejected { reason, private_data } => {
            Err(match RejectData::parse(&private_data) {
                Ok(status) => NotConnected::Rejected(status),
                Err(_) => NotConnected::Other(format!("rejected for reason {reason}")),
            })
        }
        CmEventKind::Unreachable(error) | CmEventKind::ConnectError(error) => {
            Err(NotConnected::Other(format!("failed: {error}")))
        }
        kind => Ok(kind),
    }
}
