//! Accepts connections and hands each to a reactor.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use afs_reactor::{Local, ReactorHandle};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;

use super::super::admission::HalfOpenTable;
use super::super::close::{QueueCloser, Signals};
use super::super::limits::Limits;
use super::super::queue::Queue;
use super::super::service::Service;
use super::serve::serve;

/// Pause after accept failed for want of file descriptors or memory: others may give some back.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A bound and listening address.
pub struct Listener {
    socket: StdTcpListener,
    address: SocketAddr,
}

/// Listens on `address`. A large `backlog` (1024 and more) lets all queues of many hosts connect at once
/// (CONFORMANCE T-10); the kernel cuts it to `net.core.somaxconn`.
///
/// # Errors
/// What the system says, such as `AddrInUse`.
pub fn listen_tcp(address: SocketAddr, backlog: u32) -> io::Result<Listener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    let socket = StdTcpListener::from(socket);
    let address = socket.local_addr()?;
    Ok(Listener { socket, address })
}

impl Listener {
    /// The address that is listened on, with the port that the system chose for port 0.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until the future is dropped. Connections go to `reactors` in turn; `make` makes the service of
    /// each, on its reactor. Runs on any tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be used at all; failures of single connections are not errors.
    pub async fn serve<S, M>(
        self,
        reactors: Vec<ReactorHandle>,
        limits: Limits,
        make: M,
    ) -> io::Result<()>
    where
        S: Service,
        M: Fn(&Queue, &Local) -> Rc<S> + Clone + Send + 'static,
    {
        let listener = TcpListener::from_std(self.socket)?;
        let half_open = HalfOpenTable::new(limits.half_open_per_peer, limits.half_open_total);
        for reactor in reactors.iter().cycle() {
            let (stream, peer) = accept(&listener).await;
            let signals = Signals::new();
            let Some(admission) = half_open.admit(peer, QueueCloser::new(Arc::clone(&signals)))
            else {
                tracing::warn!(%peer, "refused a connection: too many that never connected to a controller");
                continue;
            };
            let (limits, make) = (limits.clone(), make.clone());
            reactor.spawn(move |local| async move {
                let control = (signals, Some(admission));
                let reason =
                    serve(stream, &local, limits, control, |queue| make(queue, &local)).await;
                tracing::debug!(%peer, ?reason, "queue pair ended");
            });
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "no reactor to serve connections on"))
    }
}

/// The next connection; waits a moment when the process is out of file descriptors.
async fn accept(listener: &TcpListener) -> (StdTcpStream, SocketAddr) {
    loop {
        let accepted =
            listener.accept().await.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
        match accepted {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for the moment");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Whether the error says only that the connection died before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
