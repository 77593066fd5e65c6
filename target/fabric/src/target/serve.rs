//! Serves one connection from accept to close.

use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use afs_reactor::{BufferPool, Local, MAX_BUFFER_BYTES};
use tokio::net::TcpStream;

use super::admission::Admission;
use super::close::{CloseReason, MAX_SLOTS, Signals};
use super::connection::{Connection, Farewell, Parts};
use super::limits::Limits;
use super::queue::Queue;
use super::responses::Responses;
use super::service::{Completion, Service};
use crate::area::ReceiveArea;
use crate::socket;

/// Buffers per reactor that admin commands and, when the pool is empty, in-capsule data are given. Memory is
/// touched only when used.
const RESERVE_BYTES: usize = 8 << 20;
/// Time after which the system gives up a host that acknowledges nothing (CONFORMANCE M-44).
const UNACKNOWLEDGED_MS: u32 = 30_000;
/// How long a host has to take what was sent before the service closed the queue.
const REQUESTED_LINGER: Duration = Duration::from_secs(1);
/// With more than this unsent a host is not told why it is dropped: it does not read anyway.
const MAX_UNSENT_AT_TERM: u64 = 64 << 10;

thread_local! {
    static RESERVE: std::cell::OnceCell<BufferPool> = const { std::cell::OnceCell::new() };
}

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
    let limits = sane(limits);
    let prepared = prepare(stream).and_then(|ready| reserve().map(|pool| (ready, pool)));
    let ((stream, addresses), reserve) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return CloseReason::from(&error),
    };
    let pools = (local.pool().clone(), reserve.clone());
    let queue = Queue::new(addresses, pools, Arc::clone(&signals), admission, limits.stall_timeout);
    let service = make(&queue);
    let linger = limits.linger_timeout;
    let parts = Parts {
        stream,
        queue,
        signals,
        service: Rc::clone(&service),
        reserve,
        limits,
        local: local.clone(),
    };
    run(Connection::new(parts, S::call), service, linger).await
}

async fn run<S: Service, F: Future<Output = Completion>>(
    mut connection: Connection<S, F>,
    service: Rc<S>,
    linger: Duration,
) -> CloseReason {
    let reason = poll_fn(|cx| connection.poll(cx)).await;
    let (farewell, mut commands) = connection.end();
    service.closing(&reason);
    let drained = async {
        poll_fn(|cx| commands.poll_drained(cx)).await;
        service.closed(&reason);
    };
    tokio::join!(drained, part(farewell, &reason, linger));
    reason
}

/// Ends the connection as its reason demands: a TermReq for who broke the protocol, what is queued for who is
/// sent away, nothing for who is gone.
async fn part(farewell: Farewell, reason: &CloseReason, linger: Duration) {
    let Farewell { stream, mut responses, mut area } = farewell;
    let limit = match reason {
        CloseReason::Violation(violation) => {
            let transmit = &responses.transmit;
            if transmit.queued() - transmit.sent() > MAX_UNSENT_AT_TERM {
                return;
            }
            responses.terminate(violation);
            linger
        }
        CloseReason::Requested(_) => REQUESTED_LINGER.min(linger),
        _ => return,
    };
    // Whether the host reads it and closes in time changes nothing: the socket goes either way.
    let _ = tokio::time::timeout(limit, linger_on(&stream, &mut responses, &mut area)).await;
}

/// Sends what is left, says that nothing follows, and swallows what comes until the host closes. Closing with
/// unread bytes would reset the connection and take the TermReq with it.
async fn linger_on(
    stream: &TcpStream,
    responses: &mut Responses,
    area: &mut ReceiveArea,
) -> io::Result<()> {
    loop {
        socket::send(stream, &mut responses.transmit)?;
        if responses.transmit.is_empty() {
            break;
        }
        stream.writable().await?;
    }
    rustix::net::shutdown(stream, rustix::net::Shutdown::Write)?;
    loop {
        stream.readable().await?;
        area.consume(usize::MAX);
        let spare = area.spare(usize::MAX);
        let wanted = spare.len();
        if socket::receive(stream, &mut [io::IoSliceMut::new(spare)], wanted)? == Some(0) {
            return Ok(());
        }
    }
}

type Prepared = (TcpStream, (std::net::SocketAddr, std::net::SocketAddr));

fn prepare(stream: StdTcpStream) -> io::Result<Prepared> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS)?;
    let addresses = (stream.peer_addr()?, stream.local_addr()?);
    Ok((TcpStream::from_std(stream)?, addresses))
}

fn reserve() -> io::Result<BufferPool> {
    RESERVE.with(|cell| match cell.get() {
        Some(pool) => Ok(pool.clone()),
        None => {
            let pool = BufferPool::new(RESERVE_BYTES)?;
            Ok(cell.get_or_init(|| pool).clone())
        }
    })
}

/// Brings limits into the range that the rest relies on.
fn sane(mut limits: Limits) -> Limits {
    let largest = u32::try_from(MAX_BUFFER_BYTES).unwrap_or(u32::MAX);
    let wire = &mut limits.wire;
    wire.max_transfer = wire.max_transfer.clamp(4096, largest);
    wire.max_h2c_data = wire.max_h2c_data.clamp(4096, largest) & !3;
    wire.in_capsule_bytes = wire.in_capsule_bytes.min(32 << 10);
    limits.receive_bytes = limits.receive_bytes.clamp(64 << 10, 4 << 20);
    limits.admin_extra_commands = limits.admin_extra_commands.min(MAX_SLOTS / 2);
    limits
}
