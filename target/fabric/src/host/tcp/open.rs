//! Opening a queue pair over TCP: the connection, then ICReq and ICResp.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use afs_reactor::Local;
use tokio::net::TcpStream;

use super::super::error::HostError;
use super::super::options::HostOptions;
use super::super::queue::{HostQueue, Link, Shared};
use super::super::table::Table;
use super::driver::Driver;
use super::link::TcpLink;
use crate::area::ReceiveArea;
use crate::codec::encode::Encoder;
use crate::codec::{HostCodec, HostEvent};

/// Opens the connection, shakes hands and starts the driver.
pub(in super::super) async fn open(
    address: SocketAddr,
    local: &Local,
    options: HostOptions,
) -> Result<HostQueue, HostError> {
    options.check()?;
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
    let mut link = TcpLink::new(codec, encoder, options.in_capsule_bytes);
    let mut table = Table::new();
    link.handle(&mut table, &event)?;
    let link = Rc::new(RefCell::new(link));
    let shared = Shared::new(table, Link::Tcp(Rc::clone(&link)), options.entries, address);
    Ok(Driver { stream, area, link, shared, local: local.clone() })
}
