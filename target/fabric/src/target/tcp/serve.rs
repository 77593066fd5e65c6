//! Serves one connection from accept to close.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::rc::Rc;
use std::sync::Arc;

use afs_reactor::Local;
use tokio::net::TcpStream;

use super::super::admission::Admission;
use super::super::close::{CloseReason, Signals};
use super::super::connection::{Parts, run};
use super::super::limits::Limits;
use super::super::queue::{Origin, Queue, Way};
use super::super::reserve::reserve;
use super::super::service::Service;
use super::wire::TcpWire;

/// Time after which the system gives up a host that acknowledges nothing (CONFORMANCE M-44).
const UNACKNOWLEDGED_MS: u32 = 30_000;
/// Serves a queue pair on the calling reactor until it ends, and says why it did. `stream` comes fresh from
/// accept; `make` makes its service. [`Service::closed`] has been called when this returns.
pub async fn serve_tcp<S: Service>(
    stream: StdTcpStream,
    local: &Local,
    limits: Limits,
    make: impl FnOnce(&Queue) -> Rc<S>,
) -> CloseReason {
    serve(stream, local, limits, (Signals::new(), None), make).await
}

/// As [`serve_tcp`], for a connection that a listener counts as half-open.
pub(super) async fn serve<S: Service>(
    stream: StdTcpStream,
    local: &Local,
    limits: Limits,
    (signals, admission): (Arc<Signals>, Option<Admission>),
    make: impl FnOnce(&Queue) -> Rc<S>,
) -> CloseReason {
    let limits = limits.sane();
    let prepared = prepare(stream).and_then(|ready| reserve().map(|pool| (ready, pool)));
    let ((stream, addresses), reserve) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return CloseReason::from(&error),
    };
    let stream = Rc::new(stream);
    let queue = Queue::new(Origin {
        way: Way::Tcp(Rc::clone(&stream)),
        addresses,
        pools: (local.pool().clone(), reserve.clone()),
        signals: Arc::clone(&signals),
        admission,
        stall_timeout: limits.stall_timeout,
        in_capsule_bytes: limits.wire.in_capsule_bytes,
    });
    let service = make(&queue);
    let wire = TcpWire::new(stream, reserve, &limits);
    run(Parts { queue, signals, service, limits, local: local.clone() }, wire).await
}

type Prepared = (TcpStream, (std::net::SocketAddr, std::net::SocketAddr));

fn prepare(stream: StdTcpStream) -> io::Result<Prepared> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS)?;
    let addresses = (stream.peer_addr()?, stream.local_addr()?);
    Ok((TcpStream::from_std(stream)?, addresses))
}
