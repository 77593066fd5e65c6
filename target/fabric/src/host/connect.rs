//! Opening a queue pair: TCP, ICReq, then the Connect command (CONFORMANCE 3.1).

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use afs_nvme::command::Connect;
use afs_nvme::fabrics::ConnectData;
use afs_nvme::{ControllerId, HostId, Nqn};
use afs_reactor::Local;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use zerocopy::IntoBytes;

use super::core::Core;
use super::driver::{Driver, handle};
use super::error::HostError;
use super::options::HostOptions;
use super::queue::{HostData, HostQueue, Shared};
use crate::area::ReceiveArea;
use crate::codec::encode::Encoder;
use crate::codec::{HostCodec, HostEvent};

/// Who connects a queue, and to what.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// Queue id; 0 makes a new controller.
    pub qid: u16,
    /// Keep-alive timeout in milliseconds, for the admin queue; 0 for none.
    pub kato_ms: u32,
    /// Identity of the host.
    pub host_id: HostId,
    /// Name of the host.
    pub host_nqn: Nqn,
    /// Subsystem.
    pub subsystem: Nqn,
    /// Controller to join, or [`ControllerId::DYNAMIC`] for the admin queue.
    pub controller: ControllerId,
}

impl HostQueue {
    /// Connects this queue pair to a controller; returns the controller's id.
    ///
    /// # Errors
    /// [`HostError::Status`] when the controller refuses; `result` says which field was wrong.
    pub async fn connect(&self, request: &ConnectRequest) -> Result<ControllerId, HostError> {
        let data = ConnectData::new(
            request.host_id,
            request.controller,
            &request.subsystem,
            &request.host_nqn,
        );
        let mut buffer = self.local().pool().alloc(size_of::<ConnectData>()).await;
        buffer.copy_from_slice(data.as_bytes());
        let command = Connect {
            qid: request.qid,
            sqsize: self.options().entries.saturating_sub(1),
            disable_sq_flow: self.options().disable_flow_control,
            kato_ms: request.kato_ms,
        };
        let (cqe, _) = self.command(command.to_sqe(), HostData::Out(buffer.freeze())).await?;
        if request.qid != 0 {
            self.set_io();
        }
        let [low, high, ..] = cqe.dw0().to_le_bytes();
        Ok(ControllerId(u16::from_le_bytes([low, high])))
    }
}

/// Opens the connection, shakes hands and starts the driver.
pub(super) async fn open(
    address: SocketAddr,
    local: &Local,
    options: HostOptions,
) -> Result<HostQueue, HostError> {
    if !(2..=1024).contains(&options.entries) || options.hpda > 31 {
        return Err(HostError::Argument("a queue has 2 to 1024 entries, HPDA is 0 to 31"));
    }
    let handshake = shake_hands(address, local, &options);
    let driver = tokio::time::timeout(options.connect_timeout, handshake)
        .await
        .map_err(|_| HostError::Timeout("opening the connection"))??;
    let shared = Rc::clone(&driver.shared);
    drop(local.spawn_local(driver.run()));
    Ok(HostQueue::new(shared, options, local.clone()))
}

async fn shake_hands(
    address: SocketAddr,
    local: &Local,
    options: &HostOptions,
) -> Result<Driver, HostError> {
    let socket = |error: std::io::Error| HostError::from(&error);
    let stream = TcpStream::connect(address).await.map_err(socket)?;
    stream.set_nodelay(true).map_err(socket)?;
    let mut request = Vec::with_capacity(128);
    Encoder::ic_request(&mut request, options.digests, options.hpda);
    let mut left = request.as_slice();
    while !left.is_empty() {
        stream.writable().await.map_err(socket)?;
        match stream.try_write(left) {
            Ok(count) => left = left.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(socket(error)),
        }
    }
    let mut codec = HostCodec::new(options.digests, options.hpda);
    let mut area = ReceiveArea::new(options.receive_bytes.max(64 << 10));
    let event = loop {
        let (consumed, event) = codec.next(area.unread()).map_err(HostError::Violation)?;
        match event {
            HostEvent::Need(_) => {}
            HostEvent::Terminated { fes, fei } => return Err(HostError::Terminated { fes, fei }),
            event => {
                area.consume(consumed);
                break event;
            }
        }
        stream.readable().await.map_err(socket)?;
        match stream.try_read(area.spare(usize::MAX)) {
            Ok(0) => return Err(HostError::Closed),
            Ok(count) => area.received(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(socket(error)),
        }
    };
    let encoder = Encoder { digests: options.digests, alignment: 4 };
    let mut core = Core::new(codec, encoder, options.in_capsule_bytes);
    handle(&mut core, &event)?;
    let shared = Rc::new(Shared {
        core: RefCell::new(core),
        permits: Semaphore::new(usize::from(options.entries) - 1),
        ended: Notify::new(),
        driver: RefCell::new(None),
        ending: Cell::new(false),
        peer: address,
    });
    Ok(Driver { stream, area, shared, local: local.clone() })
}
