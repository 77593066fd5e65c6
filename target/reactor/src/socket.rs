//! TCP sockets as the fabric uses them: whole vectors of buffers per call, calls counted, and no
//! call made that is known to find nothing. A socket belongs to one reactor.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpListener};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::counters::Counters;
use crate::reactor::Local;

/// A connected TCP socket on one reactor, with `TCP_NODELAY` set.
pub struct Socket {
    stream: TcpStream,
    counters: Counters,
}

impl Socket {
    /// Takes a connected stream over to the reactor of `local`.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(stream: std::net::TcpStream, local: &Local) -> io::Result<Socket> {
        stream.set_nonblocking(true)?;
        Socket::from_tokio(TcpStream::from_std(stream)?, local)
    }

    /// Takes over a stream that was connected on this reactor.
    ///
    /// # Errors
    /// What the system says.
    pub fn from_tokio(stream: TcpStream, local: &Local) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        Ok(Socket { stream, counters: local.counters().clone() })
    }

    /// Receives what is there into `buffers`, in order; zero bytes at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there: wait with [`readable`](Socket::readable).
    pub fn try_recv(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let room: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let received = self.stream.try_io(Interest::READABLE, || {
            self.counters.count_socket_calls(1);
            Ok(rustix::io::readv(&self.stream, buffers)?)
        })?;
        self.after(Interest::READABLE, received, room);
        Ok(received)
    }

    /// Sends from `buffers`, in order, as much as the socket takes.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing now: wait with [`writable`](Socket::writable).
    pub fn try_send(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let sent = self.stream.try_io(Interest::WRITABLE, || {
            self.counters.count_socket_calls(1);
            Ok(rustix::io::writev(&self.stream, buffers)?)
        })?;
        self.after(Interest::WRITABLE, sent, offered);
        Ok(sent)
    }

    /// Waits until there is something to receive.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Waits until there is room to send.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// As [`readable`](Socket::readable), for hand-written futures; remembers one waker.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(context)
    }

    /// As [`writable`](Socket::writable), for hand-written futures; remembers one waker.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_write_ready(context)
    }

    /// Receives at least one byte, or zero at the end of the stream.
    ///
    /// # Errors
    /// What the system says.
    pub async fn recv(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        loop {
            self.readable().await?;
            match self.try_recv(buffers) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Sends at least one byte.
    ///
    /// # Errors
    /// What the system says.
    pub async fn send(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            self.writable().await?;
            match self.try_send(buffers) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// The stream itself: addresses and other options.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Gives the connection up when sent data stays unacknowledged for this long
    /// (`TCP_USER_TIMEOUT`, whole milliseconds).
    ///
    /// # Errors
    /// What the system says.
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        Ok(sockopt::set_tcp_user_timeout(&self.stream, milliseconds)?)
    }

    /// Ends the connection in one or both directions, at once.
    ///
    /// # Errors
    /// What the system says, such as `NotConnected`.
    pub fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
        let how = match how {
            std::net::Shutdown::Read => rustix::net::Shutdown::Read,
            std::net::Shutdown::Write => rustix::net::Shutdown::Write,
            std::net::Shutdown::Both => rustix::net::Shutdown::Both,
        };
        Ok(rustix::net::shutdown(&self.stream, how)?)
    }

    /// A call that moved less than it could has emptied (or filled) the socket: what comes later
    /// makes a new event. So the next call can wait for that, instead of finding nothing.
    fn after(&self, interest: Interest, moved: usize, wanted: usize) {
        if moved == 0 {
            return;
        }
        self.counters.note_work();
        if moved < wanted {
            let nothing = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
            // Fails by design: this is how tokio is told that the socket is not ready.
            let _ = self.stream.try_io(interest, nothing);
        }
    }
}

/// Listens on `address` with a queue of `backlog` connections that wait to be accepted. The port
/// can be taken again right after an earlier process ended (`SO_REUSEADDR`), and by several
/// listeners at once if `share_port` (`SO_REUSEPORT`). The listener does not block.
///
/// # Errors
/// What the system says, such as `AddrInUse`.
pub fn listen(address: SocketAddr, backlog: u32, share_port: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if share_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(TcpListener::from(socket))
}
